"""The house has one direction: no import goes upward, and nothing goes in a circle."""

import ast
import subprocess
import sys
from pathlib import Path

LIB = Path(__file__).parents[1] / "lib"
GROUND_FLOOR = ("data", "backbones", "methods", "evaluation", "explain", "search")
FLOORS = [  # of fieldmarks, from the bottom; what stands on one floor may import what is below
    {
        "checks",
        "random",
        "files",
        "codes",
        "resampling",
        "processes",
        "progress",
        "checkpoints",
        "memory",
        "busy_kernel",
        "convolutions",
    },
    {"labels", "picture_kinds"},
    {"decoding"},
    set(GROUND_FLOOR),
    {"show", "training"},
    {"experiments"},
]
DRAWING = ("fieldmarks.data.catalog", "fieldmarks.experiments.explanations")  # what has no root
LAZY = {("fieldmarks.evaluation.results", "fieldmarks.show")}  # results.show() draws when called


def module_of(file):
    return ".".join(file.relative_to(LIB).with_suffix("").parts).removesuffix(".__init__")


def imports(file):
    """Every module of the three packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 or file.suffix == ".pyi", f"{file}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {module_of(file): file for file in LIB.rglob("*.py") if "egg-info" not in str(file)}


def arrows():
    for module, file in MODULES.items():
        for name in imports(file):
            target = next((n for n in (name, name.rpartition(".")[0]) if n in MODULES), None)
            if target and target != module:
                yield module, target


def test_packages_import_in_one_direction():
    allowed = {("fieldlab", "fieldmarks"), ("fieldlab", "fieldguide")}
    for module, target in arrows():
        pair = module.split(".")[0], target.split(".")[0]
        drawing = module in DRAWING and pair[1] == "fieldguide"
        assert pair[0] == pair[1] or pair in allowed or drawing, f"{module} imports {target}"


def floor_of(module):
    name = module.split(".")[1]
    return next(number for number, floor in enumerate(FLOORS) if name in floor), name


def test_floors_of_the_library():
    for module, target in arrows():
        inside = module.startswith("fieldmarks.") and target.startswith("fieldmarks.")
        if not inside or any(module == a and target.startswith(b) for a, b in LAZY):
            continue
        (floor, name), (below, other) = floor_of(module), floor_of(target)
        assert name == other or below < floor or floor == below == 0, f"{module} imports {target}"


def test_no_circles():
    graph = {}
    for module, target in arrows():
        if not any(module == a and target.startswith(b) for a, b in LAZY):
            graph.setdefault(module, set()).add(target)
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for target in graph.get(module, ()):
                visit(target, (*path, module))
            done.add(module)

    for module in list(graph):
        visit(module, ())


def test_importing_the_library_loads_no_torch():
    code = "import fieldmarks, sys; assert fieldmarks.__version__; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_public_name_loads():
    import fieldmarks

    assert {"VAPNet", "FCAENet", "PAN", "fit", "load", "load_run", "retrieve"} <= set(
        fieldmarks.__all__
    )
    for name in fieldmarks.__all__:
        assert getattr(fieldmarks, name) is not None
