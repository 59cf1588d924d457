"""python -m fieldguide: what it draws, what it prints, its exit codes."""

import subprocess
import sys

import pytest
from PIL import Image

from fieldguide import draw_window, make_fieldguide, make_wardrobe
from fieldguide.__main__ import main
from helpers.generated import digest

BIRDS = ["--classes", "3", "--images", "2", "--size", "32", "--seed", "5"]
GARMENTS = ["--items", "150", "--outfits", "200", "--shots", "2", "--size", "32"]


def test_birds(tmp_path, capsys):
    assert main(["birds", str(tmp_path / "a"), *BIRDS, "--difficulty", "hard"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"3 species, 6 images of 32 x 32 px in {tmp_path / 'a'}\n"
    assert printed.err.splitlines() == [f"drawing: {n} of 6 images" for n in (2, 4, 6)]
    other = make_fieldguide(tmp_path / "b", 3, 2, 32, seed=5, difficulty="hard")
    assert digest(tmp_path / "a") == digest(other)


def test_garments(tmp_path, capsys):
    assert main(["garments", str(tmp_path / "a"), *GARMENTS]) == 0
    printed = capsys.readouterr()
    summary = f"150 garments, 300 images of 32 x 32 px, 400 outfits in {tmp_path / 'a'}\n"
    assert printed.out == summary and len(printed.err.splitlines()) == 10
    other = make_wardrobe(tmp_path / "b", items=150, outfits=200, shots=2, size=32)
    assert digest(tmp_path / "a") == digest(other)
    assert main(["garments", str(tmp_path / "a"), *GARMENTS]) == 0  # it is there already
    assert capsys.readouterr() == (summary, "")


def test_a_terminal_has_one_line_rewritten(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["birds", str(tmp_path / "a"), *BIRDS]) == 0
    lines = "".join(f"\rdrawing: {n} of 6 images" for n in (2, 4, 6))
    assert capsys.readouterr().err == f"{lines}\n"


def test_plate_and_window(tmp_path, capsys):
    plate, window = tmp_path / "plate.png", tmp_path / "window.png"
    options = ["--families", "1", "--siblings", "2", "--photographs", "1", "--width", "400"]
    assert main(["plate", str(plate), *options]) == 0
    assert main(["window", str(window), "--columns", "2", "--shots", "1", "--width", "300"]) == 0
    sizes = [Image.open(file).size for file in (plate, window)]
    assert [width for width, _ in sizes] == [400, 300]
    assert (draw_window(columns=2, shots=1, width=300) == Image.open(window)).all()
    assert capsys.readouterr().out == "".join(
        f"{width} x {height} px in {file}\n"
        for (width, height), file in zip(sizes, (plate, window), strict=True)
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["birds", "new", "--classes", "1"], "classes must be a whole number of at least 2, not 1"),
        (["birds", "new", "--difficulty", "easy"], "difficulty must be one of standard, hard, not"),
        (["birds", "new", "--size", "big"], "argument --size: invalid int value: 'big'"),
        (["birds", "file"], "file is a file: give the name of a new or empty folder"),
        (["birds", "file/new"], "cannot write in file ("),
        (["birds", "."], ". is not empty and holds no fieldguide: give the name of a new or empty"),
        (["birds"], "the following arguments are required: DIR"),
        (["garments", "new", "--items", "3"], "items must be a whole number of at least 150, not"),
        (["garments", "new", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["plate", "new/plate.png", "--width", "300", "--families", "1"], "cannot write new/plate"),
        (["plate", "plate.xyz", "--width", "300", "--families", "1"], "unknown file extension:"),
        (["plate", "plate.png", "--width", "90"], "a plate 90 pixels wide has no room for 9 birds"),
        (["window", "window.png", "--columns", "0"], "columns must be a whole number of at least"),
        (["fish", "new"], "argument COMMAND: invalid choice: 'fish'"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_input_is_one_line_on_stderr(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    output, error = capsys.readouterr()
    assert code == 2 and output == "" and error.startswith(f"fieldguide: {message}")
    assert error.count("\n") == 1 and [path.name for path in tmp_path.iterdir()] == ["file"]


FULL = "cannot write new: No space left on device; nothing was left behind: free some space, "
FULL += "or give a folder elsewhere, and do the same again"


@pytest.mark.parametrize(
    "failure, code, message",
    [
        (OSError(28, "No space left on device"), 1, FULL),
        (KeyboardInterrupt(), 130, "stopped, nothing was written"),
    ],
)
def test_a_run_that_is_cut_short(tmp_path, monkeypatch, capsys, failure, code, message):
    def fail(*_, **__):
        raise failure

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fieldguide.birds.guide._write", fail)
    assert main(["birds", "new", *BIRDS]) == code
    assert capsys.readouterr() == ("", f"fieldguide: {message}\n") and not list(tmp_path.iterdir())


def test_as_a_program(tmp_path):
    run = [sys.executable, "-m", "fieldguide"]
    done = subprocess.run([*run, "birds", str(tmp_path), *BIRDS], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("3 species, 6 images")
    done = subprocess.run([*run, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "birds" in done.stdout and done.stderr == ""
