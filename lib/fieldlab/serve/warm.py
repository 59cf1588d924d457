"""What all kernels of a classroom have in common, in the process that they are forked from.

The fork server imports this module when it starts, and importing it opens the runs. A kernel is a
fork of that process: it has all of it at once, and shares the memory as long as neither side writes
to it. So what is opened here is only read afterwards; what has a state, such as widgets and their
connection to a browser, each kernel makes for itself.

Threads do not survive a fork, but the locks that they hold do, so there must be none here:
libraries are told to use one thread, and `check_threads` looks.
"""

import gc
import logging
import os
import shutil
import tempfile
import threading
import warnings
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import wait
from pathlib import Path

import ipywidgets
import matplotlib.pyplot  # noqa: F401  each kernel would
import nbformat
import torch
import tqdm
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config

import fieldlab.explorer.panels  # noqa: F401  what the notebook imports
from fieldlab.explorer import exploring, gallery
from fieldlab.serve import NOTEBOOK

SETTINGS = Config(
    {
        # It would be a thread and a database on disk, of what visitors cannot type anyway.
        "HistoryManager": {"enabled": False},
        # 1: it does not look after its parent, which `_end_with_others` does; no hints on stdout.
        "IPKernelApp": {"parent_handle": 1, "log_level": logging.ERROR},
    }
)


def open_first(notebook: Path) -> str:
    """Open the runs that a visitor of a notebook sees first, with the map of each, and keep them:
    in words, what is open. Where nothing can be opened, the notebook says so to each visitor."""
    values = parameters_of(notebook)
    own, device = values["own_pictures"], values["device"]
    os.chdir(notebook.parent)  # as the kernels, for what is relative
    try:
        runs, _ = gallery.explorable(values["runs"])
        chosen = gallery.first_choice(runs)
        opened = exploring.open_runs(chosen, own, device)
        for finder in (*opened.finders, opened.baseline):
            finder.find(0)
            with suppress(ValueError):  # fewer than four pictures: whoever asks for a map is told
                _ = finder.plane
    except (ValueError, OSError) as error:
        return f"nothing is open: {error}"
    exploring.keep(opened, chosen, own, device)
    return f"{len(opened.finders)} runs are open, with {opened.gallery.name}"


def parameters_of(notebook: Path) -> dict:
    """What the parameters cell of a notebook says."""
    values: dict = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            exec(cell.source, {}, values)  # each visitor's kernel does the same
    return values


def check_threads() -> None:
    """Raises RuntimeError where there is a thread that a fork would lose."""
    names = [thread.name for thread in threading.enumerate()[1:]]
    tasks = Path("/proc/self/task")  # only Linux tells of those that libraries have started
    count = len(list(tasks.iterdir())) - 1 if tasks.is_dir() else len(names)
    if count:
        which = ", ".join(names) or "of a library"
        raise RuntimeError(f"{count} threads would be lost in a fork: {which}")


def run_kernel(connection_file: str, folder: str, environment: dict[str, str]) -> None:
    """Be a kernel, in a process that has just been forked, until told to stop."""
    os.setsid()  # Ctrl-C in the terminal is for the server, which ends its kernels in order
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None  # it is not that of the process forked from
    threading.Thread(target=_end_with_others, args=(os.getppid(),), daemon=True).start()
    app = IPKernelApp.instance(connection_file=connection_file, config=SETTINGS)
    app.initialize([])
    ipywidgets.register_comm_target()  # it does so when imported, but then there was no kernel yet
    app.start()


def _end_with_others(forked_from: int) -> None:
    """End, and leave nothing behind, when the server or what this was forked from has ended."""
    server = parent_process().sentinel
    while not wait([server], timeout=1) and os.getppid() == forked_from:
        pass
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os._exit(1)


if NOTEBOOK in os.environ:
    torch.set_num_threads(1)
    tqdm.tqdm.monitor_interval = 0  # its monitor would be a thread
    with warnings.catch_warnings(action="ignore"):  # visitors get them too
        OPENED = open_first(Path(os.environ[NOTEBOOK]))
    check_threads()
    gc.collect()
    gc.freeze()  # a collection would write to what is shared, and so copy it
