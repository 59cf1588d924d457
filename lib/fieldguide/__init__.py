"""Fieldguide: drawn birds and garments in the layouts of official data sets.

    import fieldguide

    fieldguide.make_fieldguide("birds", classes=100, images=20)    # CUB-200-2011
    fieldguide.make_wardrobe("garments", items=600, outfits=1000)  # Polyvore Outfits and In-shop
    fieldguide.make_twins("twins", pairs=1000)                     # one field mark exchanged
    for twin in fieldguide.twins(1000):                            # the same, in memory
        twin.image, twin.other, twin.changed, twin.mark, twin.value, twin.other_value
    fieldguide.draw_plate(classes=100)                             # (height, width, 3) RGB
    fieldguide.draw_window(items=600)

or `python -m fieldguide --help`. The same parameters give the same bytes. It needs numpy, Pillow
and OpenCV, and loads them with the first name used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fieldguide.birds.guide import make_fieldguide
    from fieldguide.birds.plate import draw_plate
    from fieldguide.birds.twins import twins
    from fieldguide.garments.wardrobe import make_wardrobe
    from fieldguide.garments.window import draw_window
    from fieldguide.pairs import make_twins

__all__ = ["draw_plate", "draw_window", "make_fieldguide", "make_twins", "make_wardrobe", "twins"]

_MODULES = {
    "draw_plate": "birds.plate",
    "draw_window": "garments.window",
    "make_fieldguide": "birds.guide",
    "make_twins": "pairs",
    "make_wardrobe": "garments.wardrobe",
    "twins": "birds.twins",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
