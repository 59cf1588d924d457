"""PAN's few-shot evaluation, 600 episodes of 5 ways, 5 shots, 16 queries, against its products.

    python tests/benchmarks/bench_episodes.py [--threads 2] [--dim 512] [--concepts 312]

The reference is one product of the same operations: 600 x 80 x 25 pairs times two linear maps.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from fieldmarks.evaluation.episodes import (
    cosine_scores,
    episode_accuracies,
    mean_pair_score,
    prototype_scores,
    sample_episodes,
)
from fieldmarks.methods.pan import ConceptSimilarity


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--concepts", type=int, default=312)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    labels = torch.arange(2953) % 50  # CUB's novel split
    features = torch.randn(50, options.dim)[labels] + 2 * torch.randn(len(labels), options.dim)
    head = ConceptSimilarity(options.dim, options.concepts)
    start = time.perf_counter()
    episodes = sample_episodes(labels, 5, 5, 16, 600, torch.Generator().manual_seed(0))
    sizes = f"{options.dim} features, {options.concepts} concepts, {options.threads} threads"
    print(f"600 episodes, {sizes}")
    print(f"sampling           {time.perf_counter() - start:6.2f} s")
    pairs, weight = torch.rand(2000, options.dim), torch.rand(options.dim, 2 * options.concepts)
    products, ours = [], []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(600):
            pairs @ weight
        products.append(time.perf_counter() - start)
        start = time.perf_counter()
        episode_accuracies(features, episodes, mean_pair_score(head.score))
        ours.append(time.perf_counter() - start)
    print(f"products alone     {min(products):6.2f} s")
    ratio = f"ratio {min(ours) / min(products):.2f}   (target: below 10 s on two cores)"
    print(f"PAN's head         {min(ours):6.2f} s   {ratio}")
    for name, scores in (("prototypes", prototype_scores), ("cosine", cosine_scores)):
        start = time.perf_counter()
        accuracy = episode_accuracies(features, episodes, scores).mean()
        print(f"{name:18} {time.perf_counter() - start:6.2f} s   accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
