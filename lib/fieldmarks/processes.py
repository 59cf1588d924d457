"""Several processes under torchrun, and requests to stop that reach all at the same step."""

import os
import signal
import threading
from contextlib import contextmanager

import torch
import torch.distributed as dist


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


@contextmanager
def main_first():
    """The first process goes through the block alone, and the others after it: for work whose
    result they find on disk."""
    if not is_main():
        dist.barrier()
    yield
    if is_main() and dist.is_initialized():
        dist.barrier()


def mean_over_processes(value: float) -> float:
    if not dist.is_initialized():
        return value
    total = torch.tensor([value], dtype=torch.float64, device=_own_device())
    dist.all_reduce(total)
    return total.item() / dist.get_world_size()


def _own_device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def processes(device: torch.device):
    """Joins torchrun's processes (nccl on GPUs, gloo elsewhere), if any; yields (rank, world)."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1 or dist.is_initialized():
        yield rank(), dist.get_world_size() if dist.is_initialized() else 1
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), world
    finally:
        dist.destroy_process_group()


class StopRequests:
    def __init__(self):
        self.flag = False

    def request(self, signum, frame) -> None:
        if self.flag:
            raise KeyboardInterrupt("stopped at once, the last steps are not saved")
        self.flag = True

    def asked(self) -> bool:
        """Whether any process was asked to stop; all of them learn of it at the same step."""
        if not dist.is_initialized():
            return self.flag
        flag = torch.tensor([float(self.flag)], device=_own_device())
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())


@contextmanager
def stop_requests():
    """Turns the first Ctrl-C, stop button or SIGTERM into a request that the loop honours after the
    step; the second acts at once."""
    stop, previous = StopRequests(), {}
    if threading.current_thread() is threading.main_thread():
        numbers = signal.SIGINT, signal.SIGTERM
        previous = {number: signal.signal(number, stop.request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
