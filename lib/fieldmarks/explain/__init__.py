"""What a network looks at, and what its attributes respond to."""

from fieldmarks.explain.attributes import TopPatches, selective_dimensions, top_patches
from fieldmarks.explain.gradcam import activation_maps, class_map, dimension_map, grad_cam, pair_map

__all__ = [
    "TopPatches",
    "activation_maps",
    "class_map",
    "dimension_map",
    "grad_cam",
    "pair_map",
    "selective_dimensions",
    "top_patches",
]
