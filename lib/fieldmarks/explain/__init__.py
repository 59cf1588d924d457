"""What a network looks at, and what its attributes respond to."""

from fieldmarks.explain.attributes import selective_dimensions as selective_dimensions
from fieldmarks.explain.attributes import top_patches as top_patches
from fieldmarks.explain.gradcam import activation_maps as activation_maps
from fieldmarks.explain.gradcam import class_map as class_map
from fieldmarks.explain.gradcam import dimension_map as dimension_map
from fieldmarks.explain.gradcam import pair_map as pair_map
