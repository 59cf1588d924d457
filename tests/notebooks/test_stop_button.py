"""The notebook's stop button, which interrupts the kernel, during training."""

import os
import time
from pathlib import Path

from jupyter_client.manager import start_new_kernel

from fieldmarks.checkpoints import load_checkpoint

TESTS = Path(__file__).parent.parent


def test_stopping_a_cell_saves_and_leaves_the_kernel_usable(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    manager, client = start_new_kernel(kernel_name="python3", env=environment)
    try:
        code = f"""
            from pathlib import Path
            from helpers import training_run
            training_run.run(Path({str(tmp_path)!r}), epochs=100_000, evaluate_every=9)
        """
        client.execute(code, stop_on_error=False)  # else what is asked too soon after is "aborted"
        deadline = time.monotonic() + 120
        while not (tmp_path / "last.pt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)["content"]
        assert reply["status"] == "error" and reply["ename"] == "Interrupted"
        assert "saved, run again to resume" in reply["evalue"]
        assert len(reply["traceback"]) == 1  # a line, no traceback
        assert load_checkpoint(tmp_path / "last.pt")["step"] > 0
        assert client.execute_interactive("print(6 * 7)", timeout=60)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
