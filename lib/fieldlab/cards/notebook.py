"""What a sweep needs to know of a notebook file: what it consists of, and how it ended.

Notebooks are read as the JSON that they are: importing nbformat or papermill takes longer than the
rest of a dry run.
"""

import hashlib
import json
import re
from pathlib import Path


def parameters_cell(notebook: Path) -> str:
    """The source of the cell tagged "parameters", after which papermill sets a run's. Raises
    ValueError where there is no notebook or no such cell."""
    for cell in _cells(notebook):
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return _source(cell)
    raise ValueError(f"'{notebook}' has no cell tagged \"parameters\"")


def parameter_sections(notebook: Path) -> dict[str, str]:
    """The heading of each parameter in the parameters cell, as {"epochs": "Training"}."""
    sections, heading = {}, ""
    for line in parameters_cell(notebook).splitlines():
        if line.startswith("# "):
            heading = line[2:]
        elif heading and (name := re.match(r"(\w+)\s*[:=]", line)):
            sections[name[1]] = heading
    return sections


def fingerprint(notebook: Path) -> str:
    """Hexadecimal digits that change with the notebook's code and text, not with its outputs."""
    content = [[cell["cell_type"], _source(cell)] for cell in _cells(notebook)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def how_it_ended(executed: Path) -> tuple[bool, str | None]:
    """Whether any cell was executed, and the error that ended it, as "ValueError: first line"."""
    try:
        cells = _cells(executed)
    except ValueError:  # none, or killed while it was written
        return False, None
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    for output in outputs:
        if output["output_type"] == "error":
            first_line = next(iter(output["evalue"].splitlines()), "")
            return True, f"{output['ename']}: {first_line}".removesuffix(": ")
    return bool(outputs) or any(cell.get("execution_count") for cell in cells), None


def _cells(notebook: Path) -> list[dict]:
    try:
        return json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{notebook}' is not a readable notebook ({error})") from None


def _source(cell: dict) -> str:
    return "".join(cell["source"])
