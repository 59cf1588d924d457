"""Seeded generators: everything random follows from whole numbers such as (seed, epoch) or (seed,
step)."""

import torch


def seeded(*numbers: int) -> torch.Generator:
    """A CPU generator for a tuple of whole numbers; different tuples give unrelated streams."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:  # splitmix64, absorbing one number at a time
        state = (state + number * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) % 2**64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
        state ^= state >> 31
    return torch.Generator().manual_seed(state % 2**63)
