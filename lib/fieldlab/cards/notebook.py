"""What a sweep needs to know of a notebook file: what it consists of, and how it ended.

Notebooks are read as the JSON that they are: importing nbformat or papermill takes longer than the
rest of a dry run.
"""

import hashlib
import json
import re
from pathlib import Path


def parameters_cell(notebook: Path) -> str:
    """The source of the cell tagged "parameters", after which papermill sets a run's.

    Raises:
        ValueError: no notebook, or no such cell.
    """
    for cell in _cells(notebook):
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return _source(cell)
    raise ValueError(f"'{notebook}' has no cell tagged \"parameters\"")


def parameter_sections(notebook: Path) -> dict[str, str]:
    """The heading of each parameter in the parameters cell: {"epochs": "Training"}, of "# Training"."""
    sections, heading = {}, ""
    for line in parameters_cell(notebook).splitlines():
        if line.startswith("# "):
            heading = line[2:]
        elif heading and (name := re.match(r"(\w+)\s*[:=]", line)):
            sections[name[1]] = heading
    return sections


def fingerprint(notebook: Path) -> str:
    """Hexadecimal digits that change with the notebook's code and text, but not with its outputs."""
    content = [[cell["cell_type"], _source(cell)] for cell in _cells(notebook)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def error_of(executed: Path) -> str | None:
    """The error that ended an executed notebook, as "ValueError: first line"; None: there is none."""
    for cell in _executed_cells(executed):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                first_line = next(iter(output["evalue"].splitlines()), "")
                return f"{output['ename']}: {first_line}".removesuffix(": ")
    return None


def was_started(executed: Path) -> bool:
    """Whether any cell of it was executed."""
    cells = _executed_cells(executed)
    return any(cell.get("execution_count") or cell.get("outputs") for cell in cells)


def _executed_cells(executed: Path) -> list[dict]:
    try:
        return _cells(executed)
    except ValueError:  # killed while it was written
        return []


def _cells(notebook: Path) -> list[dict]:
    try:
        return json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{notebook}' is not a readable notebook ({error})") from None


def _source(cell: dict) -> str:
    return "".join(cell["source"])
