"""The experiment of the small lab's notebook: parameters alone, to check cards by."""

import dataclasses

from fieldmarks.experiments.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Parameters:
    dataset: str = "fieldguide"
    root: str = ""
    generated: dict = dataclasses.field(default_factory=dict)
    lr: float = 0.1
    steps: int = -1
    grids: tuple[int, ...] = (2, 4)
    flag: bool = True
    behaviour: str = "good"
    tuned: str = ""
    seed: int = 0
    out: str = ""
    card: str = ""

    def __post_init__(self):
        if self.steps > 1000 and not self.flag:
            raise ValueError(f"steps is {self.steps}: it must be at most 1000 without flag")

    def plain(self) -> dict:
        drawn = {} if self.root else {"generated": {"classes": 100, "seed": 0, **self.generated}}
        return dataclasses.asdict(self) | drawn


class Work(Experiment):
    Parameters = Parameters
