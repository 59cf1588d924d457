"""A real browser, JupyterLab on a copy of the notebooks, `make serve`, tiny runs. What is costly
to make, a test asks for by name: `runs` takes longest.

Screenshots are kept where FIELDMARKS_SCREENSHOTS says, else in pytest's own folder.
"""

import json
import os
import secrets
import shutil
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.pages import WIDE
from helpers.serving import (
    REPOSITORY,
    copy_notebooks,
    free_port,
    make_runs,
    serve_command,
    serving,
    token_of,
)

SETTINGS = {  # of JupyterLab
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are on the page
}


@pytest.fixture
def visitor(chromium):
    """Called, it gives a page in a browser of its own, as far as sites can tell."""
    contexts = []

    def come():
        contexts.append(chromium.new_context(viewport=WIDE))
        contexts[-1].set_default_timeout(30_000)
        return contexts[-1].new_page()

    yield come
    for context in contexts:
        context.close()


@pytest.fixture
def page(visitor):
    return visitor()


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
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab"
    for name, values in SETTINGS.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    startup = home / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "helpers" / "smallest_text.py", startup)
    return {
        **os.environ,
        "FIELDMARKS_CACHE": str(home / "cache"),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_CONFIG_PATH": str(REPOSITORY / "jupyter"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder with `notebooks`, copied."""
    folder = tmp_path_factory.mktemp("workplace")
    copy_notebooks(folder)
    return folder


@pytest.fixture(scope="session")
def runs(workplace, environment) -> Path:
    """Finished runs beside the notebooks, where these look for them."""
    drawn = {"classes": 24, "images": 8, "size": 128}
    make_runs(workplace, environment, generated=drawn, resize=112, size=96)
    return workplace / "runs"


@pytest.fixture(scope="session")
def lab(workplace, environment):
    """JupyterLab on the copied notebooks: `url(notebook)` opens one by itself; how many
    `code_cells(notebook)` it has; `end_kernels()`, which hold up to 5 GB each."""
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

    def code_cells(notebook):
        cells = json.loads((workplace / "notebooks" / notebook).read_text())["cells"]
        return sum(cell["cell_type"] == "code" for cell in cells)

    def end_kernels():
        api, key = f"http://127.0.0.1:{port}/api/sessions", f"?token={token}"
        with urllib.request.urlopen(api + key) as answer:
            sessions = json.load(answer)
        for each in sessions:
            gone = urllib.request.Request(f"{api}/{each['id']}{key}", method="DELETE")
            urllib.request.urlopen(gone).close()

    with serving(command, f"http://127.0.0.1:{port}/api", environment, workplace):
        yield SimpleNamespace(
            address=f"http://127.0.0.1:{port}",
            token=token,
            end_kernels=end_kernels,
            url=lambda notebook: f"http://127.0.0.1:{port}/doc/tree/{notebook}?token={token}",
            code_cells=code_cells,
        )


@pytest.fixture(scope="module")
def voila(workplace, runs, environment, tmp_path_factory):
    """What `make serve` starts, for two visitors, on the copied notebook: `url` with its token or
    `bare`; `kept` are the folders that it could leave something in."""
    port, temporary = free_port(), tmp_path_factory.mktemp("tmp")
    environment = {**environment, "TMPDIR": str(temporary)}
    command = serve_command(port, VISITORS=2)
    with serving(command, f"http://127.0.0.1:{port}/login", environment, workplace) as server:
        yield SimpleNamespace(
            bare=f"http://127.0.0.1:{port}",
            url=f"http://127.0.0.1:{port}/?token={token_of(server[0])}",
            port=port,
            kept=[temporary, workplace, Path(environment["FIELDMARKS_CACHE"]).parent],
        )
