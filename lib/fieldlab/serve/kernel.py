"""Kernels that are forked from one warm process: `multiprocessing`'s fork server.

Seen from the server. What happens in a kernel is in `warm`, which is imported there alone: it loads
torch, and opens the runs.
"""

import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

from fieldlab.serve import NOTEBOOK

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# pyarrow, which pandas imports where it is there, would start one for its memory.
ONE_THREAD |= {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
CONTEXT = multiprocessing.get_context("forkserver")


def warm_up(notebook: Path) -> str:
    """Start the process from which kernels are forked, and wait until it has opened the runs of a
    notebook: in words, what it has opened. Whoever starts kernels calls this first, once.

    Raises:
        RuntimeError: it has ended; what went wrong is on stderr.
    """
    os.environ |= {**ONE_THREAD, NOTEBOOK: str(notebook.absolute())}
    CONTEXT.set_forkserver_preload(["fieldlab.serve.warm"])
    receiver, sender = CONTEXT.Pipe(duplex=False)
    try:
        CONTEXT.Process(target=_say_what_is_open, args=(sender,), daemon=True).start()
        sender.close()
        return receiver.recv()
    except (EOFError, OSError):
        text = "the process that kernels are forked from has ended; the reason stands above"
        raise RuntimeError(text) from None


def _say_what_is_open(sender) -> None:
    from fieldlab.serve.warm import OPENED

    sender.send(OPENED)


class Kernel(CONTEXT.Process):  # type: ignore[name-defined, misc]
    """A kernel as a process, with what jupyter_client asks of a `subprocess.Popen`.

    Args:
        connection_file: ports and key of the kernel.
        folder: to run in.
        environment: all variables. TMPDIR becomes a folder of the kernel's own, beside the
            connection file, which is removed with what is in it when the kernel ends, however.
    """

    stdin = stdout = stderr = None

    def __init__(self, connection_file: Path, folder: Path, environment: dict[str, str]):
        super().__init__(daemon=True)
        self.connection_file, self.folder = str(connection_file), str(folder)
        self.temporary = tempfile.mkdtemp(prefix="visitor-", dir=Path(connection_file).parent)
        self.environment = {**environment, "TMPDIR": self.temporary}

    def run(self) -> None:
        from fieldlab.serve.warm import run_kernel

        run_kernel(self.connection_file, self.folder, self.environment)

    def poll(self) -> int | None:
        """The exit status once it has ended, negative for a signal."""
        if self.exitcode is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.poll()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)
