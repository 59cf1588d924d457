"""What a network looks at, what makes two pictures similar, and what attributes respond to."""

from fieldmarks.explain.attributes import selective_dimensions as selective_dimensions
from fieldmarks.explain.attributes import top_patches as top_patches
from fieldmarks.explain.cams import cam as cam
from fieldmarks.explain.enlarged import enlarged as enlarged
from fieldmarks.explain.explainer import Explainer as Explainer
from fieldmarks.explain.explainer import remembering as remembering
from fieldmarks.explain.explainers import EXPLAINERS as EXPLAINERS
from fieldmarks.explain.gradcam import activation_maps as activation_maps
from fieldmarks.explain.gradcam import class_map as class_map
from fieldmarks.explain.gradcam import dimension_map as dimension_map
from fieldmarks.explain.gradcam import pair_map as pair_map
from fieldmarks.explain.integrated_gradients import integrated_gradients as integrated_gradients
from fieldmarks.explain.perturbation import occlusion as occlusion
from fieldmarks.explain.perturbation import random_masks as random_masks
from fieldmarks.explain.point_to_point import place_map as place_map
from fieldmarks.explain.point_to_point import point_to_point as point_to_point
from fieldmarks.explain.shared_attributes import attribute_explainer as attribute_explainer
from fieldmarks.explain.shared_attributes import concept_explainer as concept_explainer
