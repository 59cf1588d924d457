"""`pytest --nbval-lax notebooks`: every notebook runs whole, in seconds, with the parameters of its
first card's smoke profile.

The committed outputs of cells marked NBVAL_CHECK_OUTPUT are compared with what comes out; they
depend on no parameter.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fieldlab.cards.card import load_card

HERE = Path(__file__).parent
OF_FINISHED_RUNS = {
    "explore": "runs",
    "report": "folder",
}  # notebook -> its parameter that names the folder of runs


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    cells = [item for item in items if item.path.parent == HERE and item.path.suffix == ".ipynb"]
    if not cells:
        return
    temporary = TemporaryDirectory(prefix="fieldmarks-notebooks-")
    config.add_cleanup(temporary.cleanup)
    folder = Path(temporary.name)
    cards = [load_card(file) for file in sorted((HERE.parent / "labs").rglob("*.yaml"))]
    for item in cells:
        if "parameters" in item.cell.metadata.get("tags", []):
            values = small_parameters(item.path.stem, cards, folder / "runs")
            setting = f"%env FIELDMARKS_CACHE={folder / 'cache'}"
            lines = [setting, *(f"{name} = {value!r}" for name, value in values.items())]
            item.cell.source += "\n" + "\n".join(lines)
    late = [item for item in cells if item.path.stem in OF_FINISHED_RUNS]
    items[:] = [item for item in items if item not in late] + late


def small_parameters(notebook: str, cards: list, runs: Path) -> dict:
    """What a notebook's parameters are in its test."""
    if notebook in OF_FINISHED_RUNS:
        return {OF_FINISHED_RUNS[notebook]: str(runs)}
    if notebook == "tour":
        return {}
    card = next(card for card in cards if Path(card.notebook).stem == notebook)
    profile = card.profiles["smoke"]
    row = (profile.only or list(card.grid))[-1]
    return {
        **card.parameters,
        **profile.parameters,
        **card.grid[row],
        **profile.grid.get(row, {}),
        "out": str(runs / notebook),
    }
