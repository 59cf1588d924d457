"""A real browser, JupyterLab on a copy of the notebooks, Voila as `make serve` starts it, and a few tiny finished runs.

Screenshots are kept where FIELDMARKS_SCREENSHOTS says, else in pytest's own folder.
"""

import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).parents[3]
BIRDS = "24 classes, 8 images, 128 px, seed 0, standard"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 800, "height": 1000}


@pytest.fixture(scope="module")
def chromium():
    path = next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )
    if path is None:
        word = "needs a browser: there is no chromium, chromium-browser or google-chrome on the PATH (Debian: apt-get install chromium)"
        if os.environ.get("CI"):  # there a skipped test would look like a passed one
            pytest.fail(word)
        pytest.skip(word)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport=WIDE)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    folder = Path(
        os.environ.get("FIELDMARKS_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")
    )
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """For the programs that are started: a cache of their own, one thread each, and no settings of whoever runs the tests."""
    home = tmp_path_factory.mktemp("home")
    settings = (
        home
        / "config"
        / "lab"
        / "user-settings"
        / "@jupyterlab"
        / "apputils-extension"
        / "notification.jupyterlab-settings"
    )
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return {
        **os.environ,
        "FIELDMARKS_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, environment) -> Path:
    """A folder with `notebooks`, copied, and `runs`: VAPNet, FCAENet with 12 and 24 bits and PAN on birds, and SCDA on other birds."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(
        REPOSITORY / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*")
    )
    fcaenet = [
        "hashing",
        "method=fcaenet",
        "max_classes=6",
        "passes=1",
        "epochs=1",
        f"fieldguide={BIRDS}",
    ]
    runs = {
        "scda": [
            "open_set",
            "method=scda",
            "resize=64",
            "size=48",
            "fieldguide=6 classes, 4 images, 64 px, seed 0, standard",
        ],
        "fcaenet-12": [*fcaenet, "bits=12"],
        "fcaenet-24": [*fcaenet, "bits=24"],
        "pan": [
            "fewshot",
            "ways=3",
            "shots=2",
            "queries=6",
            "episodes=20",
            "validation_episodes=10",
            "epochs=20",
            f"fieldguide={BIRDS}",
        ],
        "vapnet": ["open_set", "epochs=1", f"fieldguide={BIRDS}"],
    }
    calls = [
        [kind, *words, "progress=none", "device=cpu", f"out={folder / 'runs' / name}"]
        for name, (kind, *words) in runs.items()
    ]
    program = (
        "import importlib, json, sys\nfor kind, *words in json.loads(sys.argv[1]):\n"
        "    assert importlib.import_module('fieldmarks.experiments.' + kind).main(words) == 0, words"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(calls)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def lab(workplace, environment):
    """JupyterLab on the copied notebooks: `url(notebook)` opens one by itself."""
    port, token = free_port(), secrets.token_hex(8)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--port-retries=0",
        f"--IdentityProvider.token={token}",
        f"--notebook-dir={workplace / 'notebooks'}",
    ]
    with serving(command, f"http://127.0.0.1:{port}/api", environment, workplace):
        yield SimpleNamespace(
            url=lambda notebook: f"http://127.0.0.1:{port}/doc/tree/{notebook}?token={token}"
        )


@pytest.fixture(scope="module")
def voila(workplace, environment):
    """Voila as `make serve` starts it, on the copied notebook: `url` with its token, `bare` without."""
    port = free_port()
    recipe = subprocess.run(
        ["make", "--dry-run", "serve", f"PORT={port}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in recipe.replace("\\\n", " ").splitlines() if "/voila " in line]
    command = [sys.executable, "-m", *shlex.split(line)]
    command[2] = "voila"
    with serving(command, f"http://127.0.0.1:{port}/login", environment, workplace) as log:
        token = next(
            word.split("token=")[1] for word in log.read_text().split() if "token=" in word
        )
        yield SimpleNamespace(
            bare=f"http://127.0.0.1:{port}",
            url=f"http://127.0.0.1:{port}/?token={token}",
            port=port,
        )


@contextmanager
def serving(command: list[str], address: str, environment: dict[str, str], folder: Path):
    """A server, once it answers: its log. On the way out it is ended, and with it its kernels."""
    log = folder / f"{command[2]}.log"
    with open(log, "w") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 60
        while not answers(address):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{address} does not answer:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except urllib.error.HTTPError:
        return True  # it asks for the token
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
