"""Forked kernels: what they share and what not, signals, their ends and those of others."""

import asyncio
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory
from tornado.web import HTTPError

from fieldlab.serve import NOTEBOOK, places, warm
from fieldlab.serve import __main__ as program
from fieldlab.serve.kernel import ONE_THREAD, warm_up
from fieldlab.serve.places import Places, fork_kernels

SERVER = """
import asyncio, os, sys, time
from pathlib import Path
from fieldlab.serve.kernel import Kernel, warm_up

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    warm_up(folder / "explore.ipynb")
    file = folder / "connection.json"
    kernel = Kernel(file, folder, dict(os.environ))
    kernel.start()
    while not file.exists() or b"}" not in file.read_bytes():  # the kernel is up
        time.sleep(0.1)
    print(kernel.pid, kernel.temporary, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> Path:
    """One whose runs are nowhere: that is quick to open."""
    file = tmp_path_factory.mktemp("notebooks") / "explore.ipynb"
    text = 'runs = "nothing"\nown_pictures = ""\ndevice = "cpu"'
    cell = nbformat.v4.new_code_cell(text, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), file)
    return file


@pytest.fixture(scope="module", autouse=True)
def forking(notebook):
    """Kernels of this process are forked, until the last test of this module."""
    before, factory = dict(os.environ), KernelProvisionerFactory.instance()
    default = factory.default_provisioner_name
    said = warm_up(notebook)
    fork_kernels()
    yield said
    multiprocessing.forkserver._forkserver._stop()
    multiprocessing.forkserver.set_forkserver_preload(["__main__"])
    factory.default_provisioner_name = default
    os.environ.clear()
    os.environ.update(before)


def test_a_notebook_without_runs_can_be_served(forking):
    assert forking.startswith("nothing is open: no finished run below")


async def started(folder: Path, **environment) -> tuple[AsyncKernelManager, object]:
    manager = AsyncKernelManager(kernel_name="python3", connection_file=str(folder / "kernel.json"))
    await manager.start_kernel(cwd=str(folder), env={**os.environ, **environment})
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    return manager, client


async def value(client, code: str) -> str:
    """What an expression is in a kernel."""
    reply = await client.execute_interactive("", user_expressions={"it": code}, timeout=60)
    it = reply["content"]["user_expressions"]["it"]
    return it["data"]["text/plain"] if it["status"] == "ok" else it["ename"]


def test_each_kernel_has_a_state_of_its_own(tmp_path):
    async def two():
        folders = tmp_path / "first", tmp_path / "second"
        for folder in folders:
            folder.mkdir()
        kernels = [await started(folder, NAME=folder.name) for folder in folders]
        (one, first), (other, second) = kernels
        assert first.session.key == one.session.key != other.session.key
        assert await value(first, "globals().setdefault('mine', 7)") == "7"
        assert await value(second, "mine") == "NameError"
        places = []
        for (_, client), folder in zip(kernels, folders, strict=True):
            at_hand = "'fieldlab.explorer.panels' in __import__('sys').modules"
            assert await value(client, at_hand) == "True"
            assert await value(client, "__import__('torch').get_num_threads()") == "1"
            assert await value(client, "__import__('os').environ['NAME']") == repr(folder.name)
            assert await value(client, "__import__('os').getcwd()") == repr(str(folder))
            targets = "sorted(__import__('comm').get_comm_manager().targets)"
            assert "jupyter.widget.control" in await value(client, targets)
            places.append(eval(await value(client, "__import__('tempfile').gettempdir()")))
            assert Path(places[-1]).parent == folder
        # what torch does in a kernel, backwards too, does not wait for a lost thread
        step = "(lambda x: (x.pow(2).sum().backward(), float(x.grad.sum()))[1])"
        ones = "__import__('torch').ones(64, 64, requires_grad=True)"
        assert await value(first, f"{step}({ones})") == "8192.0"
        for manager, client in kernels:
            client.stop_channels()
            process = manager.provisioner.process
            await manager.shutdown_kernel()
            assert process.exitcode == 0
        assert not any(Path(place).exists() for place in places)

    asyncio.run(two())


def test_interrupt_and_kill(tmp_path):
    async def stopped():
        manager, client = await started(tmp_path)
        process, temporary = manager.provisioner.process, manager.provisioner.process.temporary
        code = f"open({temporary + '/upload'!r}, 'w').close(); import time; time.sleep(100)"
        waiting = client.execute(code)
        while not (Path(temporary) / "upload").exists():
            await asyncio.sleep(0.05)
        assert await manager.is_alive() and process.poll() is None
        await manager.interrupt_kernel()
        reply = await client.get_shell_msg(timeout=30)
        while reply["parent_header"].get("msg_id") != waiting:
            reply = await client.get_shell_msg(timeout=30)
        assert reply["content"]["ename"] == "KeyboardInterrupt" and await manager.is_alive()
        client.stop_channels()
        os.kill(process.pid, signal.SIGKILL)
        while await manager.is_alive():
            await asyncio.sleep(0.05)
        assert process.poll() == -signal.SIGKILL
        assert not Path(temporary).exists()  # though nobody in the kernel could tidy up
        await manager.shutdown_kernel(now=True)

    asyncio.run(stopped())


@pytest.mark.parametrize("victim", ["server", "fork server"])
def test_nothing_outlives_the_server(notebook, tmp_path, victim):
    (tmp_path / "explore.ipynb").write_bytes(notebook.read_bytes())
    (tmp_path / "server.py").write_text(SERVER)
    words = [sys.executable, tmp_path / "server.py", tmp_path]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        pid, temporary = server.stdout.readline().split()
        kernel = psutil.Process(int(pid))
        fork_server = kernel.parent()
        assert fork_server.ppid() == server.pid and Path(temporary).is_dir()
        (server if victim == "server" else fork_server).kill()
        psutil.wait_procs([kernel, fork_server], timeout=20)
        assert gone(kernel) and gone(fork_server) and not Path(temporary).exists()
    finally:
        server.kill()
        server.wait()


def gone(process: psutil.Process) -> bool:
    """Ended, and perhaps not yet fetched by whose child it was."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_of_many_at_once_as_many_start_as_there_are_places(tmp_path):
    async def come():
        kernels = Places(places=3, connection_dir=str(tmp_path))
        coming = [kernels.start_kernel(kernel_name="python3") for _ in range(20)]
        done = await asyncio.gather(*coming, return_exceptions=True)
        inside = [one for one in done if isinstance(one, str)]
        outside = [one for one in done if isinstance(one, HTTPError)]
        assert len(inside) == 3 == len(kernels) and len(outside) == 17
        assert {error.status_code for error in outside} == {503}
        await kernels.shutdown_kernel(inside[0])
        inside[0] = await kernels.start_kernel(kernel_name="python3")
        with pytest.raises(HTTPError):
            await kernels.start_kernel(kernel_name="python3")
        await kernels.shutdown_all(now=True)

    asyncio.run(come())


def test_a_page_that_is_gone_frees_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "LEFT", 0.5)
    monkeypatch.setattr(places, "NEVER_CAME", 0.5)

    async def leave():
        kernels = Places(places=2, connection_dir=str(tmp_path))
        never, stays = [await kernels.start_kernel(kernel_name="python3") for _ in range(2)]
        kernels.notify_connect(stays)
        await until(lambda: kernels.list_kernel_ids() == [stays])
        await asyncio.sleep(1)
        kernels.notify_disconnect(stays)  # the network is away, but not for long
        kernels.notify_connect(stays)
        await asyncio.sleep(1)
        assert kernels.list_kernel_ids() == [stays]
        kernels.notify_disconnect(stays)
        await until(lambda: len(kernels) == 0)

    asyncio.run(leave())


async def until(true, seconds: float = 30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_a_thread_before_the_fork_is_an_error():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-over")
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="would be lost in a fork: .*left-over"):
            warm.check_threads()
    finally:
        stop.set()
        thread.join()


def test_a_warm_process_that_fails_is_said(tmp_path):
    """In another process: this one has its own."""
    code = (
        "import sys; from pathlib import Path; from fieldlab.serve.server import serve\n"
        "if __name__ == '__main__': serve(Path(sys.argv[1]), '127.0.0.1', 1, 1, 1)"
    )
    (tmp_path / "start.py").write_text(code)
    (tmp_path / "explore.ipynb").write_text("no notebook")
    words = [sys.executable, tmp_path / "start.py", tmp_path / "explore.ipynb"]
    environment = {k: v for k, v in os.environ.items() if k not in (*ONE_THREAD, NOTEBOOK)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1 and "NotJSONError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"cannot serve '{tmp_path / 'explore.ipynb'}'")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.ipynb"], "there is no notebook 'nowhere.ipynb'"),
        (["{notebook}", "--visitors", "0"], "--visitors and --idle must be at least 1"),
        (["{notebook}"], "serving needs Linux or macOS"),
    ],
)
def test_wrong_input(notebook, monkeypatch, capsys, words, says):
    words = [word.format(notebook=notebook) for word in words]
    monkeypatch.setattr(sys, "argv", ["serve", *words])
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert stopped.value.code == 2 and says in capsys.readouterr().err
