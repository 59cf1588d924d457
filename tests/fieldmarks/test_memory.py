"""Memory of a step is kept for the next: page faults of a process of its own, counted."""

import platform
import subprocess
import sys

import pytest

from fieldmarks.memory import keep_freed_memory

STEPS = """
import resource, sys, torch
from fieldmarks.memory import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
# Eight activations of 36 MB and more: those below 32 MB glibc gives back only at times.
step = lambda: [torch.ones((36 + n) * 2**18) for n in range(8)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_freed_memory_is_not_asked_for_again():
    faults = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", STEPS, way], capture_output=True, check=True
            ).stdout
        )
        for way in ("kept", "as it is")
    }
    # How many pages a fault brings is the kernel's affair, so the two are held against each other.
    assert faults["kept"] < 0.2 * faults["as it is"], faults


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory.__wrapped__() is False
