"""Controls of the experiments' notebooks, and the reader's own picture."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fieldmarks.backbones import Backbone
from fieldmarks.progress import in_jupyterlab


def with_controls(display: Callable, draw: Callable, /, **controls) -> None:
    """Show controls of ipywidgets and, below them, draw(name=value, ...), again whenever one of
    them changes. Where nobody can move them, in batch or on a page, the first picture stands alone.

    Args:
        display: the notebook's own."""
    if in_jupyterlab():
        for control in controls.values():
            if hasattr(control, "continuous_update"):
                control.continuous_update = False  # a slider draws when it is let go
            control.style.description_width = "initial"
            display(control)
    values = lambda: {name: control.value for name, control in controls.items()}
    picture = display(draw(**values()), display_id=True)
    answer = undisturbed()(lambda change: picture.update(draw(**values())))
    for control in controls.values():
        control.observe(answer, "value")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Around what a control answers, or as its decorator: garbage is collected after it, for to go
    through the million objects of the libraries takes up to half a second."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def own_picture(path: str, backbone: Backbone, otherwise: Tensor) -> Tensor | None:
    """The reader's picture as the network sees it, (1, 3, H, W): `otherwise` where no file is
    named; None, after a line that says what is wrong, where the file cannot be read."""
    if not path:
        return otherwise
    try:
        return backbone.preprocess([Path(path).expanduser()])
    except ValueError as problem:  # an ImageError, which names the file
        print(
            f'{problem}. Name another file in this cell, or none (picture = ""), and run it again.'
        )
        return None
