"""How far training is."""

import os
import sys
import time

from fieldmarks.checks import one_of
from fieldmarks.processes import is_main

LINE_SECONDS = 10  # between lines of epochs that are not evaluated


def choose_mode(mode: str) -> str:
    """ "bar", "lines" or "none" for a `progress` parameter, which may also be "auto".

    Raises:
        ValueError: another word."""
    one_of("progress", mode, ("auto", "bar", "lines", "none"))
    if not is_main():
        return "none"
    if mode == "auto":
        return os.environ.get("FIELDMARKS_PROGRESS") or ("bar" if in_jupyterlab() else "lines")
    return mode


def counter(what: str, mode: str):
    """A callback (done, total) for work before training: a bar, or one line at its end."""
    mode, began, bars = choose_mode(mode), time.perf_counter(), []

    def count(done: int, total: int) -> None:
        if mode == "bar":
            if not bars:
                from tqdm.auto import tqdm

                bars.append(tqdm(total=total, desc=what))
            bars[0].update(done - bars[0].n)
            if done == total:
                bars[0].close()
        elif mode == "lines" and done == total:
            print(f"{what}: {total:,} in {time.perf_counter() - began:.0f} s", flush=True)

    return count


class Progress:
    """A bar with images/s and time left in JupyterLab; elsewhere a line for every epoch that was
    evaluated or took a while, which survives in logs and executed notebooks."""

    def __init__(self, mode: str, epochs: int, steps: int, start: int, batch_size: int):
        self.mode, self.epochs, self.total = choose_mode(mode), epochs, epochs * steps
        self.start = self.done = start
        self.batch_size, self.bar = batch_size, None
        self.began = self.printed = time.perf_counter()

    def __enter__(self):
        if self.mode == "bar":
            from tqdm.auto import tqdm

            images = (self.total * self.batch_size, self.start * self.batch_size)
            self.bar = tqdm(total=images[0], initial=images[1], unit=" images", unit_scale=True)
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def resumed(self, epochs: list[dict]) -> None:
        """Say where a run stands that goes on, or is complete: a page may have been reloaded, and
        the bar that said so be gone."""
        if epochs and self.bar is not None:
            self.epoch(epochs[-1])

    def step(self) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.batch_size)

    def epoch(self, row: dict, evaluated: bool = True) -> None:
        shown = {k: v for k, v in row.items() if k not in ("epoch", "lr", "images_per_second")}
        text = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {row['epoch']}/{self.epochs}  {text}")
        elif self.mode == "lines" and (evaluated or now - self.printed > LINE_SECONDS):
            self.printed = now
            left = (now - self.began) / max(1, self.done - self.start) * (self.total - self.done)
            rate = f"{row['images_per_second']:.0f} images/s  {left:.0f} s left"
            line = f"epoch {row['epoch']:3d}/{self.epochs}  {text}  lr {row['lr']:.2g}  {rate}"
            print(line, flush=True)


def in_jupyterlab() -> bool:
    """A kernel that a Jupyter server started; papermill's and nbclient's kernels have no
    session."""
    return "ipykernel" in sys.modules and "JPY_SESSION_NAME" in os.environ
