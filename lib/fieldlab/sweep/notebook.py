"""What the runner needs to know of a notebook file: its parameters, what it consists of, and how it ended.

Notebooks are read as the JSON that they are: importing nbformat or papermill takes longer than the rest of a dry run.
"""

import ast
import hashlib
import json
import re
from pathlib import Path


def default_parameters(notebook: Path) -> dict:
    """Names and default values of the cell tagged "parameters".

    Raises:
        ValueError: no notebook, no such cell, or something in it that is not `name = literal`.
    """
    cell = next(
        (
            cell
            for cell in _cells(notebook)
            if "parameters" in cell.get("metadata", {}).get("tags", [])
        ),
        None,
    )
    if cell is None:
        raise ValueError(f"'{notebook}' has no cell tagged \"parameters\"")
    try:
        return dict(_assignment(statement) for statement in ast.parse(_source(cell)).body)
    except SyntaxError as error:
        raise ValueError(
            f"the parameters cell of '{notebook}' is not Python (line {error.lineno}: {error.msg})"
        ) from None
    except _NotLiteral as error:
        # Papermill sets parameters after this cell: what is computed in it would keep the values of the defaults.
        raise ValueError(
            f"the parameters cell of '{notebook}' may hold only name = literal, not '{error}'"
        ) from None


def parameter_sections(notebook: Path) -> dict[str, str]:
    """The heading under which each parameter stands in the parameters cell: {"epochs": "Training"}, of lines "# Training"."""
    cell = next(
        cell
        for cell in _cells(notebook)
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    )
    sections, heading = {}, ""
    for line in _source(cell).splitlines():
        if line.startswith("# "):
            heading = line[2:]
        elif heading and (name := re.match(r"(\w+)\s*[:=]", line)):
            sections[name[1]] = heading
    return sections


class _NotLiteral(Exception):
    pass


def _assignment(statement: ast.stmt) -> tuple[str, object]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target = statement.target
    else:
        raise _NotLiteral(ast.unparse(statement))
    try:
        return target.id, ast.literal_eval(statement.value)
    except (AttributeError, ValueError):
        raise _NotLiteral(ast.unparse(statement)) from None


def fingerprint(notebook: Path) -> str:
    """Hexadecimal digits that change with the notebook's code and text, but not with outputs, which come and go."""
    content = [[cell["cell_type"], _source(cell)] for cell in _cells(notebook)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def error_of(executed: Path) -> str | None:
    """The error that ended an executed notebook, as "ValueError: first line"; None if no cell raised one."""
    try:
        outputs = [output for cell in _cells(executed) for output in cell.get("outputs", [])]
    except ValueError:  # killed while it was written
        return None
    error = next((output for output in outputs if output["output_type"] == "error"), None)
    if error is None:
        return None
    first_line = next(iter(error["evalue"].splitlines()), "")
    return f"{error['ename']}: {first_line}" if first_line else error["ename"]


def was_started(executed: Path) -> bool:
    """Whether any cell of it was executed."""
    try:
        return any(cell.get("execution_count") or cell.get("outputs") for cell in _cells(executed))
    except ValueError:
        return False


def _cells(notebook: Path) -> list[dict]:
    try:
        return json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{notebook}' is not a readable notebook ({error})") from None


def _source(cell: dict) -> str:
    return "".join(cell["source"])
