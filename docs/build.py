"""`make docs`: runs each notebook of the site once, and builds the site from what came out.

A notebook that has run already, with the same cells and parameters, is not run again: it is looked
for in the folder of runs, where `fieldmarks run` puts those of cards, too.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
from sphinx.cmd.build import main as sphinx

from fieldlab.cards.card import load_card
from fieldlab.sweep.plan import plan
from fieldlab.sweep.runner import execute

HERE = Path(__file__).parent
ROOT = HERE.parent
CARDS = {  # the cards whose notebooks are shown: the first row whose name begins so
    "vapnet/table1": "L_a + mean L_c",
    "fcaenet/table1": "FCAENet",
    "pan/table1": "PAN-Supervised",
    "pan/table2": "PAN-Supervised",
    "pan/table3": "ProxyNCA++ & PAN-Supervised",
    "explanations/twins": "frozen",
}
SIZES = {  # profiles of the cards; the tour has one size
    "demo": "On this page: generated data and a small network, as `make demo` has them.",
    "smoke": "On this page: a run of seconds, to see that all works. Its numbers mean nothing.",
}
REFERENCE = [
    "fieldmarks",
    *(
        f"fieldmarks.{name}"
        for name in ("methods", "experiments", "data", "evaluation", "explain", "show", "search")
    ),
    "fieldguide",
]
TOUR = ROOT / "notebooks" / "tour.ipynb"
LIMIT = 3600.0  # seconds for a notebook
WIDGET = "application/vnd.jupyter.widget-view+json"


def run_card(name: str, row: str, size: str, runs: Path) -> Path:
    """The executed notebook of a row of a card."""
    with warnings.catch_warnings(action="ignore"):  # of rows whose epochs others determine
        planned = plan(load_card(ROOT / "labs" / f"{name}.yaml"), size, runs)
    run = next(run for run in planned if run.row.startswith(row))
    print(f"{run.name}: {run.notebook.name}", flush=True)
    outcome = execute(run, LIMIT)
    if outcome.state not in ("done", "earlier"):
        raise SystemExit(f"{run.name}: {outcome.error or outcome.state}")
    return run.folder / run.notebook.name


def run_tour(runs: Path) -> Path:
    """The executed tour. It belongs to no card and leaves no result."""
    executed, half_done = runs / TOUR.name, runs / "tour-running.ipynb"
    if executed.exists() and executed.stat().st_mtime > TOUR.stat().st_mtime:
        return executed
    print(f"tour: {TOUR.name}", flush=True)
    runs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", str(TOUR), str(half_done), "--no-progress-bar"]
    options = {"JUPYTER_PREFER_ENV_PATH": "1"}  # this environment's kernel
    subprocess.run(command, check=True, timeout=LIMIT, cwd=runs, env=os.environ | options)
    return half_done.replace(executed)


def page(file: Path, runs: Path, note: str, pages: set[str]) -> nbformat.NotebookNode:
    """An executed notebook without what means nothing on a page: in place of each control, which
    moves nothing where there is no kernel, stands what it is; links lead to `pages` alone."""
    notebook = nbformat.reads(file.read_text().replace(str(runs), "runs"), 4)
    stored = notebook.metadata.pop("widgets", {})
    models = {key: model for kind in stored.values() for key, model in kind["state"].items()}
    for cell in notebook.cells:
        cell.source = cell.source.removeprefix("# NBVAL_CHECK_OUTPUT\n")
        for text, name in re.findall(r"\[([^]]*)\]\(([^)]*\.ipynb)\)", cell.source):
            if name not in pages:
                cell.source = cell.source.replace(f"[{text}]({name})", text)
        for output in cell.get("outputs", []):
            if view := output.get("data", {}).get(WIDGET):
                name = models[view["model_id"]]["state"].get("description", "")
                output.data = {"text/markdown": f"*A control, in JupyterLab: {name}*"}
    if file.name != TOUR.name:
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"*{note}*"))
    return notebook


def gather(notebooks: list[Path], runs: Path, size: str, folder: Path) -> None:
    """The site's sources in one folder, from which Sphinx reads."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for file in folder.glob("*.md"):
        file.write_text(file.read_text().replace("](../notebooks/", "](notebooks/"))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text().replace("](docs/", "](")  # all lie in one folder here
        (folder / name.lower()).write_text(text)
    (folder / "notebooks").mkdir()
    reference(folder / "api")
    for file in notebooks:
        shown = page(file, runs, SIZES[size], {other.name for other in notebooks})
        nbformat.write(shown, folder / "notebooks" / file.name)


def reference(folder: Path) -> None:
    """A page for each package with the docstrings of its modules, and of those packages below it
    that have no page of their own."""
    folder.mkdir()
    for package in REFERENCE:
        top = ROOT / "lib" / package.replace(".", "/")
        files = [f for f in sorted(top.rglob("*.py")) if f.parent == top or f.stat().st_size]
        modules = [".".join(f.relative_to(ROOT / "lib").with_suffix("").parts) for f in files]
        text = ""
        for module in sorted(name.removesuffix(".__init__") for name in modules):
            longest = max((own for own in REFERENCE if f"{module}.".startswith(f"{own}.")), key=len)
            if longest == package and not module.rpartition(".")[2].startswith("_"):
                title, line = module.removeprefix(f"{package}."), "-" if text else "="
                text += f"{title}\n{line * len(title)}\n\n.. automodule:: {module}\n"
                text += "\n" if module == package else "   :members:\n\n"
        (folder / f"{package}.rst").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="demo", help="of the notebooks' runs")
    parser.add_argument("--runs", type=Path, help="where runs are, and go")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    asked = parser.parse_args()
    runs = (asked.runs or ROOT / "build" / "runs" / asked.size).absolute()
    notebooks = [run_tour(runs)]
    notebooks += [run_card(name, row, asked.size, runs) for name, row in CARDS.items()]
    source, site = asked.out / "source", asked.out / "html"
    gather(notebooks, runs, asked.size, source)
    shutil.rmtree(site, ignore_errors=True)
    strict = ["--fail-on-warning", "--keep-going"]
    code = sphinx(["-c", str(HERE), "-q", *strict, str(source), str(site)])
    print(site / "index.html" if code == 0 else "the site has faults, as said above")
    return code


if __name__ == "__main__":
    sys.exit(main())
