"""Checkpoints: written atomically, read without running code, refused from other parameters."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from fieldmarks.files import atomic


def save_checkpoint(path: Path, state: dict) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch's own, about what the stream raised
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file; OSError where it cannot be written."""
    # Not by `save_file`, which has a temporary file of its own that a kill leaves behind, makes
    # files that only their owner can read, and raises no OSError.
    content = save({name: value.cpu().contiguous() for name, value in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def resume(path: Path, method, optimizer, scaler, identity: dict) -> dict:
    """Load last.pt into method, optimiser and scaler.

    Returns:
        the whole state, for the step to go on from and the history so far.
    Raises:
        ValueError: it is damaged, or its run's parameters differ from `identity` (the first
            difference is named)."""
    state = load_checkpoint(path)
    if difference := first_difference(state["identity"], identity):
        raise ValueError(
            f"'{path}' comes from other parameters: {difference}; use the same parameters, or "
            "another output folder"
        )
    try:
        method.load_state_dict(state["method"])
    except RuntimeError as error:  # names and sizes, over many lines
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        problem = f"'{path}' holds another network ({first}): "
        raise ValueError(problem + "use another output folder") from error
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    return state


def load_checkpoint(path: Path) -> dict:
    """The state in a checkpoint of `fit`.

    Raises:
        ValueError: it is gone, damaged, or another program's."""
    if not Path(path).is_file():
        raise ValueError(f"there is no '{path}': delete the run's folder and run it again")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"checkpoint '{path}' is damaged ({reason}): delete the run's folder and run it again"
        ) from error
    if not isinstance(state, dict) or state.get("schema") != 1:
        raise ValueError(f"'{path}' is not a checkpoint of a run: give a last.pt or best.pt")
    return state


def first_difference(old, new, name: str = "") -> str | None:
    """Where two nested plain values first differ, in words; None if nowhere."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            place = f"{name}.{key}" if name else str(key)
            if found := first_difference(old.get(key), new.get(key), place):
                return found
        return None
    return None if old == new else f"{name} was {old!r} there and is {new!r} now"


def plain(value):
    """Tuples to lists, paths to strings: what a checkpoint gives back equals what was put in."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (int, float, bool, str, type(None))) else str(value)
