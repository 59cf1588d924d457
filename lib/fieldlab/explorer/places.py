"""Where in each result a network finds a place of the query: cosines taken apart, exactly."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fieldlab.explorer.exploring import Finder, views_of
from fieldlab.explorer.gallery import Picture
from fieldmarks.explain.explainer import remembering
from fieldmarks.explain.point_to_point import exact_features, point_to_point
from fieldmarks.show.examples import shown


class Places:
    """A query and n matches, from one pass of the backbone; then any place at no cost.

    Attributes:
        pictures: n + 1 as the network sees them, (H, W, 3) in [0, 1], the query first.
        pairs: (n, h, w, h', w') what each place of the query and each of a match add to the cosine.
        carried: (n, h, w) what each place of the query adds.  cosines: (n,).

    Raises:
        ValueError, OSError: there is no match, a picture cannot be read, or the score is no sum
            over places; one line.
    """

    def __init__(self, finder: Finder, query: Picture, matches: Sequence[Picture]):
        if not matches:
            raise ValueError("there is no result to find a place of the query in")
        if finder.score != "cosine":
            # NOTE its averaged features have a cosine, but before a hash layer all may be near 1
            other = "choose a run of VAPNet or the frozen network"
            problem = f"{finder.name} ranks by no cosine, so its score is no sum over places"
            raise ValueError(f"{problem}: {other}")
        embed, backbone = finder.model.method.embed, finder.model.backbone
        images = views_of(finder, query, *matches)
        with remembering(backbone, images):
            features, _ = exact_features(embed, backbone, images, images)
        self.pictures = shown(backbone, images)
        of_query = features[:1].expand(len(matches), -1, -1, -1)
        self.pairs = point_to_point(of_query, features[1:]).cpu()
        self.carried = self.pairs.sum((3, 4))
        self.cosines = self.carried.sum((1, 2))

    @property
    def heat(self) -> Tensor:
        """Maps over the matches, (1 + h w, n, h', w') in [0, 1], cut at zero: of all places of the
        query together, and of each. All of these have one scale, so that they can be compared."""
        each = self.pairs.flatten(1, 2).transpose(0, 1)
        return torch.cat([scaled(self.pairs.sum((1, 2)))[None], scaled(each)])

    def at(self, row: int, column: int) -> tuple[Tensor, Tensor]:
        """Of one place of the query, maps (n, h', w') in [0, 1], and what it adds to each cosine,
        (n,)."""
        place = row * self.pairs.shape[2] + column
        return self.heat[1 + place], self.carried[:, row, column]


def scaled(heat: Tensor) -> Tensor:
    """Cut at zero and divided by its maximum."""
    heat = heat.relu()
    return heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)
