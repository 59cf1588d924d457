"""How far maps of an explainer can be believed, in words, as measured on counterfactual twins."""

from typing import NamedTuple


class Pointing(NamedTuple):
    """In which share of pictures a map's maximum lies in the part whose exchange costs the cosine
    most, with its 95 % interval."""

    mean: float
    low: float
    high: float


# docs/explanations.md
SETTING = "drawn birds, L_a with a cosine head, 60 pictures"
OF_CODES = "drawn birds, ADSH with 24 bits, 60 pictures"
OF_PAN = "drawn birds, PAN with attributes, 60 pictures"
MEASURED = {
    "grad_cam": Pointing(0.10, 0.03, 0.18),  # of codes; of averages it is the place map
    "channel_mean": Pointing(0.28, 0.18, 0.40),
    "place_map": Pointing(0.22, 0.12, 0.32),
    "grad_cam_full_cosine": Pointing(0.17, 0.08, 0.27),
    "eigen_grad_cam": Pointing(0.33, 0.22, 0.45),
    "occlusion": Pointing(0.34, 0.23, 0.45),
    "pan_score": Pointing(0.08, 0.02, 0.17),  # Grad-CAM of PAN's similarity of a pair
}
MIDDLE = Pointing(0.32, 0.21, 0.44)  # of a blob that no network made, in either of the first two
MIDDLE_OF_PAN = 0.15  # to whose similarity other parts count most


def trust(explainer: str) -> str:
    """One line on an explainer of `fieldmarks.explain.EXPLAINERS` or on "pan_score", Grad-CAM of
    PAN's similarity; or on one that has no figures.

    Of an embedding that is the average of its features, `pair_map` is the place map."""
    if explainer not in MEASURED:
        return "How far such maps can be believed has not been measured."
    maps = MEASURED[explainer]
    setting = {"grad_cam": OF_CODES, "pan_score": OF_PAN}.get(explainer, SETTING)
    middle = MIDDLE_OF_PAN if explainer == "pan_score" else MIDDLE.mean
    interval = f"[{100 * maps.low:.0f}, {100 * maps.high:.0f}]"
    return (
        f"How far to believe such maps: in {maps.mean:.0%} of pictures {interval} the maximum lies "
        f"in the part that counts most; a blob in the middle does in {middle:.0%} ({setting})."
    )
