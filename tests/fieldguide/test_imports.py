"""The package imports only numpy, Pillow and OpenCV, and nothing before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fieldguide

ALLOWED = {*sys.stdlib_module_names, "numpy", "PIL", "cv2", "fieldguide"}
FILES = sorted(Path(fieldguide.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_imports_stay_within_numpy_pillow_and_opencv(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            modules = [node.module]
        else:
            continue
        assert {name.split(".")[0] for name in modules} <= ALLOWED, f"{file}: {modules}"


def test_names_load_when_first_used():
    code = (
        "import sys, fieldguide; heavy = {'numpy', 'cv2', 'PIL'}; print(heavy & set(sys.modules)); "
        "fieldguide.draw_window; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "['PIL', 'cv2', 'numpy']"]


def test_the_public_names():
    names = {"make_fieldguide", "make_twins", "make_wardrobe", "draw_plate", "draw_window", "twins"}
    assert names == set(fieldguide.__all__)
    for name in fieldguide.__all__:
        assert callable(getattr(fieldguide, name)) and name in dir(fieldguide)
    with pytest.raises(AttributeError, match="has no attribute 'make_fish'"):
        _ = fieldguide.make_fish
