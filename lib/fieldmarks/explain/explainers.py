"""Explainers of a match by name, all of one signature (see `explainer`)."""

from torch import Tensor, nn

from fieldmarks.explain.cams import CAMS, cam
from fieldmarks.explain.explainer import Explainer, Outputs, check_pairs, evaluating
from fieldmarks.explain.gradcam import activation_maps
from fieldmarks.explain.integrated_gradients import integrated_gradients
from fieldmarks.explain.perturbation import occlusion, random_masks
from fieldmarks.explain.point_to_point import place_map


def channel_mean(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
    """The mean over channels by which SREM erases (FCAENet, eq. 3), whatever the query is."""
    check_pairs(query, match)
    with evaluating(embed, backbone):
        return activation_maps(backbone, match)


EXPLAINERS: dict[str, Explainer] = {
    "channel_mean": channel_mean,
    "place_map": place_map,
    "grad_cam_full_cosine": cam("grad_cam", hold_length=False),
    **{name: cam(name) for name in CAMS},
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
    "random_masks": random_masks,
}
COSTLY = ("score_cam", "ablation_cam", "integrated_gradients", "occlusion", "random_masks")
