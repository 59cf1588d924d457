"""The training loop.

All randomness of a step follows from (seed, step), so that a run that was stopped, killed or
resumed ends where a straight run ends, bit for bit on the same machine. `torchrun` runs the same
function: each process takes its rows of every batch."""

import copy
import inspect
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fieldmarks.backbones import has_depthwise
from fieldmarks.checkpoints import load_checkpoint, plain, resume, save_checkpoint
from fieldmarks.checks import at_least, choices, positive
from fieldmarks.data.batches import read_ahead
from fieldmarks.memory import keep_freed_memory
from fieldmarks.methods.method import Method
from fieldmarks.processes import is_main, mean_over_processes, rank, stop_requests, synchronise
from fieldmarks.progress import Progress
from fieldmarks.random import seeded

DIVERGED = 1e3  # a loss this many times the first (or one, if that is more) does not come back
SAVE_SECONDS = 20  # between checkpoints where no evaluation asks for one


@dataclass(frozen=True)
class Settings:
    """How a method is trained."""

    epochs: int = 10  # passes over the training images
    lr: float = 0.01  # at its peak
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9  # this and nesterov: of sgd
    nesterov: bool = True
    weight_decay: float = 1e-4  # not of one-dimensional parameters
    schedule: Literal["constant", "cosine", "step", "milestones"] = "cosine"
    step_epochs: int = 5  # "step": times lr_decay after each so many
    lr_decay: float = 0.9
    milestones: tuple[int, ...] = ()  # "milestones": times lr_decay after each of these epochs
    warmup_steps: int = 0  # over which the learning rate rises linearly
    clip_norm: float = 0.0  # gradients are scaled down to this norm; 0 leaves them
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    evaluate_every: int = 1  # epochs between evaluations; 0: only after the last
    restore_best: bool = False  # end with the weights of the best evaluation
    seed: int = 0

    def __post_init__(self):
        choices(self)
        positive(lr=self.lr, lr_decay=self.lr_decay, step_epochs=self.step_epochs)
        at_least(0, epochs=self.epochs, momentum=self.momentum, weight_decay=self.weight_decay)
        at_least(0, warmup_steps=self.warmup_steps, clip_norm=self.clip_norm)
        at_least(0, evaluate_every=self.evaluate_every)


@dataclass
class History:
    """`epochs` holds a row for each epoch (loss terms averaged over its steps, learning rate,
    images/s), `evaluations` a row for each evaluation; `seconds` is training time without
    evaluations, over all sittings."""

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


def saved_history(folder: Path | str) -> History:
    """What the run in a folder has done so far, as its last.pt has it: also while it trains, from
    another process. ValueError: nothing is saved there yet, or it is damaged."""
    last = Path(folder).expanduser() / "last.pt"
    if not last.exists():
        raise ValueError(f"there is no '{last}': the run saves after its first evaluation")
    return History(**load_checkpoint(last)["history"])


class Diverged(RuntimeError):
    """The loss is no longer a number, or grew out of all bounds; names the step and the terms."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did so after saving. A notebook stops here too."""

    def _render_traceback_(self):
        # JupyterLab asks an exception for this instead of printing a traceback.
        return [str(self)]


def fit(
    method: nn.Module,
    stream,
    settings: Settings | None = None,
    *,
    folder: Path | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    monitor: str = "recall@1",
    identity: dict | None = None,
    device: str | torch.device | None = None,
    progress: str = "auto",
    tensorboard: bool = False,
) -> History:
    """Train `method` in place.

    Args:
        stream: a `TrainingStream`, or any iterable with a length, such as a DataLoader, whose items
            are arguments of `method.losses`: a tuple in their order or a dict by name.
        folder: for `last.pt` and `best.pt`; training resumes from a `last.pt` that is there.
        evaluate: called in evaluation mode without gradients; what it returns is recorded.
        monitor: the metric, a larger-is-better one, by which best.pt is chosen.
        identity: what else a checkpoint must agree on (method and data parameters, plain values).
        device: default: the stream's, or the CPU.
        progress: "bar", "lines", "none", or "auto": a bar in JupyterLab, lines elsewhere.
        tensorboard: write what is recorded of each epoch into `folder`/tensorboard, as event files.
    Returns:
        the history, earlier sittings included.
    Raises:
        Diverged, Interrupted; ValueError when last.pt is damaged or comes from other parameters;
        OSError when it cannot be written."""
    settings = settings or Settings()
    if not hasattr(stream, "steps_per_epoch"):
        stream = _Loader(stream, device or "cpu", settings.seed)
    device, steps = torch.device(device or stream.device), stream.steps_per_epoch
    if settings.epochs and not steps:
        raise ValueError("the stream has no batch: a DataLoader with drop_last needs a whole one")
    keep_freed_memory()
    events = event_writer(folder) if tensorboard and is_main() else None
    method.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(method, settings)
    precision = choose_precision(settings.precision, device, method)
    autocast = {"dtype": DTYPES[precision], "enabled": precision != "fp32"}
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    loop = {"settings": asdict(settings), "batch_size": stream.batch_size}
    identity = plain({**(identity or {}), **loop})
    base_lr = [group["lr"] for group in optimizer.param_groups]
    history, step, watch, best = History(), 0, LossWatch(), None
    last, best_file = (Path(folder or ".") / name for name in ("last.pt", "best.pt"))
    if folder is not None and last.exists():
        state = resume(last, method, optimizer, scaler, identity)
        history, step = History(**state["history"]), state["step"]
        watch = LossWatch(**state["watch"])
    losses = _Losses(method)
    if dist.is_initialized():
        losses = nn.parallel.DistributedDataParallel(losses)
    show = Progress(progress, settings.epochs, steps, step, stream.batch_size)
    saved_at = time.monotonic()

    def save(*files: Path) -> None:
        nonlocal saved_at
        saved_at = time.monotonic()
        if folder is None or not is_main():
            return
        parts: dict[str, Any] = {"method": method, "optimizer": optimizer, "scaler": scaler}
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"schema": 1, "identity": identity, "step": step}
        state |= {"history": asdict(history), "watch": watch.state()}
        state |= {n: list(getattr(method.backbone, n, ())) for n in ("mean", "std")}
        for file in files:
            save_checkpoint(file, state)

    with stop_requests() as stop, show:
        show.resumed(history.epochs)
        for epoch in range(step // steps if steps else 0, settings.epochs):
            method.train()
            started, images = time.perf_counter(), 0
            for batch in stream.epoch(epoch, start=step - epoch * steps):
                generator = seeded(settings.seed, 2, step, rank())
                torch.manual_seed(generator.initial_seed())  # dropout and the like
                factor = lr_factor(step, steps, settings)
                for group, lr in zip(optimizer.param_groups, base_lr, strict=True):
                    group["lr"] = lr * factor
                with torch.autocast(device.type, **autocast):
                    terms = losses(batch)
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
                images += _size(batch)
                if step % steps == 0:
                    method.after_epoch()
                show.step()
                if stop.asked() and step % steps:
                    break
            watch.check()
            synchronise(device)
            seconds = time.perf_counter() - started
            images *= dist.get_world_size() if dist.is_initialized() else 1
            history.seconds += seconds
            history.images += images
            if step % steps:
                save(last)
                raise Interrupted(
                    f"stopped at step {step} of {settings.epochs * steps}; saved, run again to "
                    "resume"
                )
            row = {"epoch": epoch + 1, **watch.means(), "lr": base_lr[0] * factor}
            row["images_per_second"] = images / seconds
            history.epochs.append(row)
            watch = LossWatch(first=watch.first)
            final = epoch + 1 == settings.epochs
            due = settings.evaluate_every and (epoch + 1) % settings.evaluate_every == 0
            improved = False
            if evaluate is not None and (due or final):
                before = history.best(monitor)
                measured = run_evaluation(method, evaluate)
                history.evaluations.append({"epoch": epoch + 1, **measured})
                improved = before is None or measured[monitor] > before[monitor]
                row = row | measured
            if due or final or stop.asked() or time.monotonic() - saved_at > SAVE_SECONDS:
                # The best first: whoever is killed in between goes on from before it.
                save(*([best_file, last] if improved else [last]))
            if improved and settings.restore_best and folder is None:
                best = copy.deepcopy(method.state_dict())
            show.epoch(row, evaluated=bool(due or final))
            if events:
                for name in row.keys() - {"epoch"}:
                    events.add_scalar(name, row[name], epoch + 1)
                events.flush()
            if stop.asked() and not final:
                raise Interrupted(
                    f"stopped after epoch {epoch + 1} of {settings.epochs}; saved, run again to "
                    "resume"
                )
    if settings.restore_best and history.evaluations:
        if dist.is_initialized():
            dist.barrier()  # the first process writes best.pt
        method.load_state_dict(best or load_checkpoint(best_file)["method"])
    return history


def event_writer(folder: Path | None):
    """What writes TensorBoard's event files. ValueError: there is no folder, or no TensorBoard."""
    if folder is None:
        raise ValueError("tensorboard needs a folder to write its event files into")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        wanted = "install the package tensorboard, or leave it false"
        raise ValueError(
            f"tensorboard is true, but TensorBoard is not installed: {wanted}"
        ) from None
    return SummaryWriter(str(Path(folder) / "tensorboard"))


class _Losses(nn.Module):
    """DistributedDataParallel averages the gradients of what goes through a forward()."""

    def __init__(self, method: nn.Module):
        super().__init__()
        self.method = method
        self.names = set(inspect.signature(method.losses).parameters)

    def forward(self, batch) -> dict[str, Tensor]:
        if not isinstance(batch, dict):
            return self.method.losses(*batch)
        return self.method.losses(**{k: v for k, v in batch.items() if k in self.names})


class _Loader:
    """Any iterable with a length as a stream; its shuffling follows from (seed, epoch)."""

    def __init__(self, batches, device: str | torch.device, seed: int):
        self.batches, self.device, self.seed = batches, torch.device(device), seed
        self.steps_per_epoch, self.batch_size = len(batches), getattr(batches, "batch_size", 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator:
        torch.manual_seed(seeded(self.seed, 5, epoch).initial_seed())
        for batch in islice(self.batches, start, None):
            if isinstance(batch, dict):
                yield {name: value.to(self.device) for name, value in batch.items()}
            else:
                yield [value.to(self.device) for value in batch]


def _size(batch) -> int:
    return len(next(iter(batch.values() if isinstance(batch, dict) else batch)))


def run_evaluation(method: nn.Module, evaluate: Callable[[], Any]) -> Any:
    """Call `evaluate` in evaluation mode and without gradients; the mode is restored after."""
    training = method.training
    method.eval()
    try:
        with torch.no_grad():
            return evaluate()
    finally:
        method.train(training)


def embed_all(
    method: Method, pixels, views: Callable, *, batch_size=64, device="cpu", precision="fp32"
) -> Tensor:
    """Embeddings of every image of a pixel cache, in order, on the CPU: (N, D) float32.

    In a distributed run each process embeds every world-th image; all of them return all rows.

    Args:
        pixels: has `batch(index)` and a length.  views: as `augment.TestViews`."""
    device = torch.device(device)
    keep_freed_memory()
    method.to(device, memory_format=torch.channels_last)
    world = dist.get_world_size() if dist.is_initialized() else 1
    own = torch.arange(rank(), len(pixels), world)
    autocast = {"dtype": DTYPES[precision], "enabled": precision != "fp32"}

    def embed() -> Tensor:
        rows = []
        for _, _, (canvas, sizes) in read_ahead(pixels, list(own.split(batch_size))):
            images = views(canvas.to(device, non_blocking=True), sizes)
            with torch.autocast(device.type, **autocast):
                rows.append(method.embed(images).float().cpu())
        return torch.cat(rows)

    embeddings = run_evaluation(method, embed)
    if world == 1:
        return embeddings
    shares: list = [None] * world
    dist.all_gather_object(shares, (own, embeddings))
    full = embeddings.new_full((len(pixels), embeddings.shape[1]), math.nan)
    for index, part in shares:
        full[index] = part
    if full.isnan().any():
        raise RuntimeError("an image was embedded by no process, or its embedding is not a number")
    return full


# Optimiser, schedule, precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_optimizer(method: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    groups = method.parameter_groups(settings.lr, settings.weight_decay)
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        nesterov = settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=nesterov)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer](groups)


def lr_factor(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """The share of the peak learning rate that `step` (from 0) uses."""
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    epoch = step // steps_per_epoch
    if settings.schedule == "cosine":
        total = max(1, settings.epochs * steps_per_epoch - settings.warmup_steps)
        done = min(1.0, max(0, step - settings.warmup_steps) / total)
        return warm * 0.5 * (1 + math.cos(math.pi * done))
    if settings.schedule == "step":
        return warm * settings.lr_decay ** (epoch // settings.step_epochs)
    if settings.schedule == "milestones":
        return warm * settings.lr_decay ** sum(epoch >= m for m in settings.milestones)
    return warm


def choose_device(device: str = "auto") -> torch.device:
    """ "auto" takes a CUDA GPU (this process's, under torchrun), then Apple's, then the CPU.

    Raises:
        ValueError: the device is not available."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        message = f"device '{device}' is not available ({reason}): use 'auto' or 'cpu'"
        raise ValueError(message) from error


def choose_precision(precision: str, device: torch.device, method: nn.Module) -> str:
    """ "auto": bf16 where the hardware multiplies in it (on CPUs not for depthwise networks, which
    it slows down), else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return (
        "bf16" if device.type == "cpu" and cpu_has_bf16() and not has_depthwise(method) else "fp32"
    )


def cpu_has_bf16() -> bool:
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


class LossWatch:
    """Running means of loss terms, and the first step at which one is not a number or out of
    bounds.

    Values are read from the device a step late, so that the check does not make a GPU wait."""

    def __init__(self, count: int = 0, sums: dict | None = None, first: float | None = None):
        self.count, self.sums, self.first = count, dict(sums or {}), first
        self.pending = None

    def state(self) -> dict:
        return {"count": self.count, "sums": self.sums, "first": self.first}

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        if not terms:
            raise ValueError("the method gave no loss terms")
        self.check()
        values = torch.stack([term.detach().float() for term in terms.values()])
        self.pending = (step, list(terms), values)

    def check(self) -> None:
        if self.pending is None:
            return
        step, names, values = self.pending
        self.pending = None
        values = values.tolist()
        total = sum(values)
        self.first = total if self.first is None else self.first
        if not math.isfinite(total) or abs(total) > DIVERGED * max(1.0, abs(self.first)):
            shown = ", ".join(f"{n} = {v:.4g}" for n, v in zip(names, values, strict=True))
            problem = f"training diverged at step {step}: {shown}; "
            raise Diverged(problem + "lower the learning rate, or set clip_norm or warmup_steps")
        self.count += 1
        for name, value in zip(names, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Means over the steps so far and over all processes."""
        return {n: mean_over_processes(v / self.count) for n, v in self.sums.items()}
