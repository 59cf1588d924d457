"""What makes a map right: layer, resolution, smoothing, averaging over views, scored on twins.

    python tests/benchmarks/recipes.py RUN OUT [--pictures 60]

RUN is a finished run on generated birds. Every recipe stands beside the plain map it is of; see
`fieldmarks.experiments.explanations` for the scores."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from fieldmarks.evaluation.explanations import compare, summarise
from fieldmarks.experiments.explanations import REFERENCES, Explanations, Parameters, by_score
from fieldmarks.experiments.result import finished_run
from fieldmarks.explain.enlarged import enlarged
from fieldmarks.explain.explainer import Explainer, Outputs, cosine, evaluating, to_maps
from fieldmarks.explain.explainers import EXPLAINERS


def at_layer(layer: nn.Module) -> Explainer:
    """Features times gradients, place by place, at any module (HiResCAM, Draelos & Carin 2020)."""

    def explain(embed, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        features = []

        def keep(module, inputs, output):
            features.append(output.detach().requires_grad_())
            return features[-1]

        with evaluating(embed, backbone):
            with torch.no_grad():
                reference = embed(query).float()
            handle = layer.register_forward_hook(keep)
            with torch.enable_grad():
                score = cosine(embed(match).float(), reference, hold_length=True).sum()
            handle.remove()
            (gradients,) = torch.autograd.grad(score, features)
        return to_maps((gradients * features[0].detach()).sum(1), match.shape[-2:])

    return explain


def averaged(explain: Explainer, shifts: int = 3, step: int = 10) -> Explainer:
    """Mean over shifts x shifts views of the match, `step` pixels apart and half of them mirrored,
    each map moved back; the border is repeated where a view reaches beyond the image. A feature
    map's places are 32 px wide: views between them tell more. shifts x shifts times the cost."""

    def of_views(embed: Outputs, backbone: nn.Module, query: Tensor, match: Tensor) -> Tensor:
        height, width = match.shape[-2:]
        reach = step * (shifts // 2)
        wide = F.pad(match, (reach,) * 4, mode="replicate") if reach else match
        total = torch.zeros(len(match), height + 2 * reach, width + 2 * reach)
        covered = torch.zeros_like(total)
        for number in range(shifts * shifts):
            y, x = (step * place for place in divmod(number, shifts))
            view = wide[..., y : y + height, x : x + width]
            mirrored = view.flip(-1) if number % 2 else view
            heat = explain(embed, backbone, query, mirrored.contiguous()).cpu()
            total[:, y : y + height, x : x + width] += heat.flip(-1) if number % 2 else heat
            covered[:, y : y + height, x : x + width] += 1
        mean = total / covered.clamp(min=1)
        inside = slice(reach, reach + height), slice(reach, reach + width)
        return to_maps(mean[(slice(None), *inside)], (height, width)).to(match.device)

    return of_views


def smoothed(explain: Explainer, sigma: float) -> Explainer:
    def of_map(*pair) -> Tensor:
        maps = [gaussian_filter(heat.cpu().numpy(), sigma) for heat in explain(*pair)]
        return torch.stack([torch.from_numpy(heat) for heat in maps])

    return of_map


class Recipes(Explanations):
    def explainers(self) -> dict[str, Callable]:
        plain = {n: EXPLAINERS[n] for n in ("place_map", "grad_cam_full_cosine", "eigen_grad_cam")}
        blocks = self.method.backbone.network.blocks
        found = dict(plain)
        for name, explain in plain.items():
            found[f"{name}, 9 views"] = averaged(explain)
            found[f"{name}, enlarged 1.5"] = enlarged(explain)
            found[f"{name}, enlarged 2"] = enlarged(explain, 2.0)
            found[f"{name}, smoothed 16 px"] = smoothed(explain, 16.0)
        best = enlarged(plain["place_map"], 2.0)
        found["place_map, enlarged 2, 9 views"] = averaged(best)
        found |= {f"block {n}": at_layer(blocks[n]) for n in (2, 3, 4, 5)}
        found |= {f"block {n}, 9 views": averaged(found[f"block {n}"]) for n in (3, 4)}
        return found | {"occlusion": EXPLAINERS["occlusion"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=int, default=60)
    given = parser.parse_args()
    _, result = finished_run(given.run, "run")
    same = ("generated", "resize", "size", "backbone", "weights")
    values = {name: result["parameters"][name] for name in same}
    options = {"run": str(given.run), "pictures": given.pictures, "sane": 0, "out": str(given.out)}
    recipes = Recipes(Parameters(**values, **options))
    scores = recipes.evaluate()
    found, table = by_score(scores.values, recipes.parameters.looked_at[0]), {}
    for score, values in found.items():
        for recipe, of_pictures in values.items():
            mean, low, high, *_ = summarise(of_pictures)
            table.setdefault(recipe, {})[score] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    for recipe, row in table.items():
        print(recipe, *row.values(), sep=" | ", flush=True)
    for score in ("pointing", "correctness"):
        asked = {n: v for n, v in found[score].items() if n not in REFERENCES - {"middle"}}
        for each in compare(asked, "place_map"):
            line = f"{each.mean:+.2f} [{each.low:+.2f}, {each.high:+.2f}] p {each.p:.3f}"
            print(f"{score} - place_map", each.first, line, sep=" | ")
    print(json.dumps(recipes.reasons))


if __name__ == "__main__":
    main()
