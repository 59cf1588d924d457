"""The training loop.

All randomness of a step follows from (seed, step), so that a run that was stopped, killed or resumed ends where a straight run
ends, bit for bit on the same machine. `torchrun` runs the same function: each process takes its rows of every batch.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fieldmarks.backbones import has_depthwise
from fieldmarks.checkpoints import plain, resume, save_checkpoint
from fieldmarks.data.batches import TrainingStream, read_ahead
from fieldmarks.methods.method import Method
from fieldmarks.processes import is_main, mean_over_processes, rank, stop_requests, synchronise
from fieldmarks.progress import Progress
from fieldmarks.random import seeded

DIVERGED = 1e3  # a loss this many times that of the first step (or one, if that is more) does not come back


@dataclass(frozen=True)
class Settings:
    """How a method is trained.

    Attributes:
        epochs: passes over the training images.  lr: peak learning rate.
        optimizer: "sgd", "adam" or "adamw".  momentum, nesterov: of sgd.  weight_decay: not applied to one-dimensional parameters.
        schedule: "constant", "cosine" to zero, "step": times `gamma` every `step_epochs` epochs, or "milestones": times `gamma` after
            each number of epochs in `milestones`.
        warmup_steps: the learning rate rises linearly over these first steps.
        clip_norm: gradients are scaled down to this norm; 0 leaves them.
        precision: "fp32", "bf16", "fp16" (with a loss scaler), or "auto" (see `choose_precision`).
        evaluate_every: epochs between evaluations; 0 evaluates only after the last.
        monitor: the metric, a larger-is-better one, by which the best checkpoint is kept.
    """

    epochs: int = 10
    lr: float = 0.01
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    step_epochs: int = 5
    gamma: float = 0.9
    milestones: tuple[int, ...] = ()
    warmup_steps: int = 0
    clip_norm: float = 0.0
    precision: str = "auto"
    evaluate_every: int = 1
    monitor: str = "recall@1"
    seed: int = 0

    def __post_init__(self):
        for name, allowed in (
            ("optimizer", ("sgd", "adam", "adamw")),
            ("schedule", ("constant", "cosine", "step", "milestones")),
            ("precision", ("auto", "fp32", "bf16", "fp16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} is '{getattr(self, name)}': it must be one of {', '.join(allowed)}"
                )
        for name in ("lr", "gamma", "step_epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be positive")
        for name in (
            "epochs",
            "momentum",
            "weight_decay",
            "warmup_steps",
            "clip_norm",
            "evaluate_every",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative")


@dataclass
class History:
    """What happened: `epochs` holds a row for each epoch (loss terms averaged over its steps, learning rate, images/s), `evaluations`
    a row for each evaluation; `seconds` is training time without evaluations, over all sittings."""

    epochs: list[dict] = field(default_factory=list)
    evaluations: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    def best(self, monitor: str) -> dict | None:
        """The evaluation with the highest `monitor`, the earliest of equals."""
        return max(self.evaluations, key=lambda row: row[monitor], default=None)


class Diverged(RuntimeError):
    """The loss is no longer a number, or grew out of all bounds. The message names the step and the terms."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did so after saving. A `KeyboardInterrupt`, so that a notebook stops here too."""

    def _render_traceback_(self):
        # JupyterLab asks an exception for this instead of printing a traceback.
        return [str(self)]


def fit(
    method: Method,
    stream: TrainingStream,
    settings: Settings,
    *,
    folder: Path | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    identity: dict | None = None,
    progress: str = "auto",
) -> History:
    """Train `method` in place.

    Args:
        stream: yields batches, has `steps_per_epoch`, `batch_size`, `device`.
        folder: for `last.pt` and `best.pt`; a `last.pt` that is there already is taken up again.
        evaluate: called in evaluation mode without gradients; what it returns is kept, and `settings.monitor` decides on best.pt.
        identity: what else a checkpoint must agree on to be taken up again (method and data parameters, plain values).
        progress: "bar", "lines" (one an epoch), "none", or "auto": a bar in JupyterLab, lines elsewhere.
    Returns:
        the history, earlier sittings included.
    Raises:
        Diverged, Interrupted; ValueError when last.pt is damaged or comes from other parameters; OSError when it cannot be written.
    """
    device, steps = stream.device, stream.steps_per_epoch
    method.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(method, settings)
    precision = choose_precision(settings.precision, device, method)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    identity = plain(
        {**(identity or {}), "settings": asdict(settings), "batch_size": stream.batch_size}
    )
    base_lr = [group["lr"] for group in optimizer.param_groups]
    history, step, watch = History(), 0, LossWatch()
    if folder is not None and (Path(folder) / "last.pt").exists():
        state = resume(Path(folder) / "last.pt", method, optimizer, scaler, identity)
        history, step, watch = (
            History(**state["history"]),
            state["step"],
            LossWatch(**state["watch"]),
        )
    parallel = nn.parallel.DistributedDataParallel(method) if dist.is_initialized() else method
    show = Progress(progress, settings.epochs, steps, step, stream.batch_size)

    def save(names: list[str]) -> None:
        if folder is not None and is_main():
            state = {
                "schema": 1,
                "identity": identity,
                "method": method.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "step": step,
                "history": asdict(history),
                "watch": watch.state(),
                "mean": list(getattr(method.backbone, "mean", ())),
                "std": list(getattr(method.backbone, "std", ())),
            }
            for name in names:
                save_checkpoint(Path(folder) / name, state)

    with stop_requests() as stop, show:
        for epoch in range(step // steps if steps else 0, settings.epochs):
            method.train()
            started, images = time.perf_counter(), 0
            for batch in stream.epoch(epoch, start=step - epoch * steps):
                torch.manual_seed(
                    seeded(settings.seed, 2, step, rank()).initial_seed()
                )  # dropout and the like
                factor = lr_factor(step, steps, settings)
                for group, lr in zip(optimizer.param_groups, base_lr):
                    group["lr"] = lr * factor
                with torch.autocast(
                    device.type, dtype=DTYPES[precision], enabled=precision != "fp32"
                ):
                    terms = parallel(batch)
                watch.add(step, terms)
                optimizer.zero_grad(set_to_none=True)
                scaler.scale(sum(terms.values())).backward()
                if settings.clip_norm:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(method.parameters(), settings.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                method.after_step()
                step += 1
                images += batch.total
                show.step()
                if stop.asked() and step % steps:
                    break
            watch.check()
            synchronise(device)
            seconds = time.perf_counter() - started
            history.seconds += seconds
            history.images += images
            if step % steps:
                save(["last.pt"])
                raise Interrupted(
                    f"stopped at step {step} of {settings.epochs * steps}; saved, run again to go on from here"
                )
            row = {
                "epoch": epoch + 1,
                **watch.means(),
                "lr": base_lr[0] * factor,
                "images_per_second": images / seconds,
            }
            history.epochs.append(row)
            watch = LossWatch()
            due = settings.evaluate_every and (epoch + 1) % settings.evaluate_every == 0
            improved = False
            if evaluate is not None and (due or epoch + 1 == settings.epochs):
                before = history.best(settings.monitor)
                measured = run_evaluation(method, evaluate)
                history.evaluations.append({"epoch": epoch + 1, **measured})
                improved = before is None or measured[settings.monitor] > before[settings.monitor]
                row = row | measured
            save(["last.pt", "best.pt"] if improved else ["last.pt"])
            show.epoch(row)
            if stop.asked() and epoch + 1 < settings.epochs:
                raise Interrupted(
                    f"stopped after epoch {epoch + 1} of {settings.epochs}; saved, run again to go on from here"
                )
    return history


def run_evaluation(method: nn.Module, evaluate: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Call `evaluate` in evaluation mode and without gradients; the method is left in the mode it was in."""
    training = method.training
    method.eval()
    try:
        with torch.no_grad():
            return evaluate()
    finally:
        method.train(training)


@torch.no_grad()
def embed_all(
    method: Method,
    pixels,
    views: Callable,
    *,
    batch_size: int = 64,
    device="cpu",
    precision: str = "fp32",
) -> Tensor:
    """Embeddings of every image of a pixel cache, in order, on the CPU in float32.

    In a distributed run each process embeds every world-th image; all of them return all rows.

    Args:
        pixels: has `batch(index)` and a length.  views: as `augment.TestViews`.
    Returns:
        (N, D) float32.
    """
    device = torch.device(device)
    method.to(device, memory_format=torch.channels_last)
    world = dist.get_world_size() if dist.is_initialized() else 1
    own = torch.arange(rank(), len(pixels), world)
    rows = []
    training = method.training
    method.eval()
    try:
        for _, _, (canvas, sizes) in read_ahead(pixels, list(own.split(batch_size))):
            images = views(canvas.to(device, non_blocking=True), sizes)
            with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
                rows.append(method.embed(images).float().cpu())
    finally:
        method.train(training)
    embeddings = torch.cat(rows)
    if world == 1:
        return embeddings
    shares: list = [None] * world
    dist.all_gather_object(shares, (own, embeddings))
    whole = embeddings.new_full((len(pixels), embeddings.shape[1]), math.nan)
    for index, share in shares:
        whole[index] = share
    if whole.isnan().any():
        raise RuntimeError("an image was embedded by no process, or its embedding is not a number")
    return whole


# Optimiser, schedule, precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_optimizer(method: Method, settings: Settings) -> torch.optim.Optimizer:
    groups = [
        group
        for group in method.parameter_groups(settings.lr, settings.weight_decay)
        if group["params"]
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            groups, momentum=settings.momentum, nesterov=settings.nesterov and settings.momentum > 0
        )
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer](groups)


def lr_factor(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """The share of the peak learning rate that `step` (from 0) uses."""
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.schedule == "cosine":
        total = max(1, settings.epochs * steps_per_epoch - settings.warmup_steps)
        done = min(1.0, max(0, step - settings.warmup_steps) / total)
        return warm * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "step":
        return warm * settings.gamma ** (step // steps_per_epoch // settings.step_epochs)
    if settings.schedule == "milestones":
        return warm * settings.gamma ** sum(
            step // steps_per_epoch >= epoch for epoch in settings.milestones
        )
    return warm


def choose_device(device: str = "auto") -> torch.device:
    """ "auto" takes a CUDA GPU (this process's, under torchrun), then Apple's, then the CPU.

    Raises:
        ValueError: the device is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device '{device}' is not to be had here ({str(error).splitlines()[0]}): use 'auto' or 'cpu'"
        ) from error
    return chosen


def choose_precision(precision: str, device: torch.device, method: nn.Module) -> str:
    """ "auto": bf16 where the hardware multiplies in it (on CPUs not for depthwise networks, which it slows down), else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        native = cpu_has_bf16()
        return "bf16" if native and not has_depthwise(method) else "fp32"
    return "fp32"


def cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class LossWatch:
    """Running means of loss terms, and the first step at which one is not a number or out of bounds.

    Values are read from the device a step late, so that the check does not make a GPU wait.
    """

    def __init__(self, count: int = 0, sums: dict | None = None, first: float | None = None):
        self.count, self.sums, self.first, self.pending = count, dict(sums or {}), first, None

    def state(self) -> dict:
        return {"count": self.count, "sums": self.sums, "first": self.first}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        if not terms:
            raise ValueError("the method gave no loss terms")
        self.check()
        self.pending = (
            step,
            list(terms),
            torch.stack([term.detach().float() for term in terms.values()]),
        )

    def check(self) -> None:
        if self.pending is None:
            return
        step, names, values = self.pending
        self.pending = None
        values = values.tolist()
        total = sum(values)
        self.first = total if self.first is None else self.first
        if not math.isfinite(total) or abs(total) > DIVERGED * max(1.0, abs(self.first)):
            shown = ", ".join(f"{name} = {value:.4g}" for name, value in zip(names, values))
            raise Diverged(
                f"training diverged at step {step}: {shown}; lower the learning rate, or set clip_norm or warmup_steps"
            )
        self.count += 1
        for name, value in zip(names, values):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Means over the steps so far and over all processes."""
        return {name: mean_over_processes(value / self.count) for name, value in self.sums.items()}
