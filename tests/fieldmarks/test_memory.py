"""Memory of a step is kept for the next: page faults of a process of its own, counted."""

import platform
import resource
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
step = lambda: [torch.ones(2**18) for _ in range(50)]  # 50 activations of 1 MB
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
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
    pages = 5 * 50 * 2**20 // resource.getpagesize()
    assert faults["kept"] < 0.2 * pages, faults
    assert faults["as it is"] > 0.5 * pages, faults


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory.__wrapped__() is False
