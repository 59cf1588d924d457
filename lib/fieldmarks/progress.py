"""How far training is."""

import os
import sys
import time

from fieldmarks.processes import is_main


def choose_mode(mode: str) -> str:
    """ "bar", "lines" or "none" for a `progress` parameter, which may also be "auto".

    Raises:
        ValueError: another word.
    """
    if mode not in ("auto", "bar", "lines", "none"):
        raise ValueError(f"progress is '{mode}': it must be auto, bar, lines or none")
    if not is_main():
        return "none"
    if mode == "auto":
        return os.environ.get("FIELDMARKS_PROGRESS") or ("bar" if in_jupyterlab() else "lines")
    return mode


def counter(what: str, mode: str):
    """A callback (done, total) for work before training: a bar in JupyterLab, elsewhere one line at its end."""
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
    """A bar with images/s and time left in JupyterLab; elsewhere a line an epoch, which survives in logs and executed notebooks."""

    def __init__(self, mode: str, epochs: int, steps: int, start: int, batch_size: int):
        self.mode, self.epochs, self.total, self.start = (
            choose_mode(mode),
            epochs,
            epochs * steps,
            start,
        )
        self.batch_size, self.bar, self.done, self.began = (
            batch_size,
            None,
            start,
            time.perf_counter(),
        )

    def __enter__(self):
        if self.mode == "bar":
            from tqdm.auto import tqdm

            self.bar = tqdm(
                total=self.total * self.batch_size,
                initial=self.start * self.batch_size,
                unit=" images",
                unit_scale=True,
            )
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def step(self) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.batch_size)

    def epoch(self, row: dict) -> None:
        shown = {k: v for k, v in row.items() if k not in ("epoch", "lr", "images_per_second")}
        text = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {row['epoch']}/{self.epochs}  {text}")
        elif self.mode == "lines":
            left = (
                (time.perf_counter() - self.began)
                / max(1, self.done - self.start)
                * (self.total - self.done)
            )
            print(
                f"epoch {row['epoch']:3d}/{self.epochs}  {text}  lr {row['lr']:.2g}  "
                f"{row['images_per_second']:.0f} images/s  {left:.0f} s left",
                flush=True,
            )


def in_jupyterlab() -> bool:
    """A kernel that a Jupyter server started; papermill's and nbclient's kernels have no session."""
    return "ipykernel" in sys.modules and "JPY_SESSION_NAME" in os.environ
