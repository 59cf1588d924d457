"""A real browser, JupyterLab on a copy of the notebooks, Voila as `make serve` has it, tiny runs.

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

from helpers.experiments import arguments
from helpers.pages import WIDE

REPOSITORY = Path(__file__).parents[3]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FCAENET = {"method": "fcaenet", "max_classes": 6, "passes": 1, "epochs": 1}
PAN = {"ways": 3, "shots": 2, "queries": 6, "episodes": 20, "validation_episodes": 10, "epochs": 20}
OTHER = {"method": "scda", "resize": 64, "size": 48}
RUNS = {
    "scda": ("open_set", {**OTHER, "generated": {"classes": 6, "images": 4, "size": 64}}),
    "fcaenet-12": ("hashing", {**FCAENET, "bits": 12}),
    "fcaenet-24": ("hashing", {**FCAENET, "bits": 24}),
    "pan": ("fewshot", PAN),
    "vapnet": ("open_set", {"epochs": 1}),
}
SHARED = {"generated": {"classes": 24, "images": 8}, "progress": "none", "device": "cpu"}
PROGRAM = """
import json, sys
from fieldmarks.experiments.experiment import experiment_class

for kind, words in json.loads(sys.argv[1]):
    assert experiment_class(kind).main(words) == 0, words
"""


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"none of {', '.join(BROWSERS)} is on the PATH (Debian: apt-get install chromium)"
        if os.environ.get("CI"):  # there a skipped test would look like a passed one
            pytest.fail(reason)
        pytest.skip(reason)
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
    """For the programs that are started: a cache and settings of their own, one thread each."""
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
    """A folder with `notebooks`, copied, and finished `runs`."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(
        REPOSITORY / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*")
    )
    calls = [
        (kind, arguments({**SHARED, **values, "out": str(folder / "runs" / name)}))
        for name, (kind, values) in RUNS.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(calls)],
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
    """Voila as `make serve` starts it, on the copied notebook: `url` with its token or `bare`."""
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
