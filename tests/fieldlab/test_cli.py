import inspect
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest

from fieldguide import make_fieldguide, make_wardrobe
from fieldlab import cli
from fieldlab.sweep import runner, sweep
from helpers.full_disk import grows_to
from helpers.runs import make_run

REPOSITORY = Path(__file__).parents[2]
GUIDE = "--classes 3 --images 2 --size 32 --seed 5".split()
TABLE_1 = str(REPOSITORY / "labs" / "vapnet" / "table1.yaml")


@pytest.fixture
def fieldmarks(capsys, monkeypatch, tmp_path):
    """Runs a command line in an empty folder; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*words) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def birds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("birds") / "guide"
    assert cli.main(["make", "fieldguide", str(folder), *GUIDE]) == 0
    return folder


# ---- help and usage


def test_help_names_every_command_and_loads_nothing_heavy():
    heavy = ("torch", "pandas", "papermill", "rich", "numpy", "distributed")
    code = (
        "import sys; from fieldlab.cli import main; code = main(sys.argv[1:]); "
        f"print([name for name in {heavy} if name in sys.modules], code)"
    )
    pages = {
        "": ["make", "check", "run", "report", "index", "search", "--version"],
        "run": [
            "--profile",
            "--set",
            "--out",
            "--workers",
            "--scheduler",
            "--retries",
            "--time-limit",
            "--dry-run",
        ],
        "make": ["fieldguide", "wardrobe"],
        "make fieldguide": ["--classes", "--images", "--size", "--seed", "--difficulty"],
        "make wardrobe": ["--items", "--outfits", "--shots", "--size", "--seed"],
        "check": ["--images"],
    }
    for words, expected in pages.items():
        command = [sys.executable, "-c", code, *words.split(), "--help"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        loaded = "['numpy']" if words.startswith("make") else "[]"  # the generators' options
        assert all(word in found for word in expected) and found.splitlines()[-1] == f"{loaded} 0"


def test_the_version(fieldmarks):
    assert fieldmarks("--version") == (0, f"fieldmarks {version('fieldmarks')}\n", "")


def test_options_of_generators_have_their_defaults(fieldmarks):
    for name, generator in (("fieldguide", make_fieldguide), ("wardrobe", make_wardrobe)):
        _, output, _ = fieldmarks("make", name, "--help")
        for option, parameter in inspect.signature(generator).parameters.items():
            if option not in ("folder", "progress"):
                line = output.split(f"--{option} ")[1].split("--")[0]
                assert f"[default: {parameter.default}]" in " ".join(line.split())


def test_python_m_fieldlab():
    found = subprocess.run(
        [sys.executable, "-m", "fieldlab", "chek"], capture_output=True, text=True
    )
    assert (
        found.returncode == 2
        and found.stderr == "fieldmarks: No such command 'chek'. Did you mean 'check'?\n"
    )


@pytest.mark.parametrize(
    "words, expected",
    [
        (["run"], "Missing argument 'CARD"),
        (["run", TABLE_1, "--profil", "demo"], "No such option: --profil"),
        (
            ["run", TABLE_1, "--profile", "papr"],
            "vapnet-table1 has no profile 'papr': did you mean 'paper'?",
        ),
        (
            ["run", TABLE_1, "--set", "epohs=3"],
            "--set epohs=3: unknown parameter 'epohs': did you mean 'epochs'?",
        ),
        (
            ["run", TABLE_1, "--set", "size=4000", "--profile", "smoke"],
            "profile smoke: row L_a: size is 4000 and resize is 64",
        ),
        (
            ["run", TABLE_1, "--set", "generated={clases: 6}"],
            "generated: fieldguide has no option 'clases': did you mean 'classes'?",
        ),
        (["run", TABLE_1, "--time-limit", "3"], "--time-limit is '3': write it as 90s, 30m or 12h"),
        (
            ["run", TABLE_1, "--time-limit", "0s"],
            "--time-limit is '0s': write it as 90s, 30m or 12h",
        ),
        (["run", TABLE_1, "--workers", "0"], "Invalid value for '--workers': "),
        (["run", TABLE_1, "--retries", "-1"], "Invalid value for '--retries': "),
        (
            ["run", TABLE_1, "--workers", "2", "--scheduler", "tcp://host:1"],
            "--workers is for this machine, a scheduler has its own: give one of both",
        ),
        (
            ["run", TABLE_1, "--scheduler", "nonsense://host"],
            "no Dask scheduler answers at 'nonsense://host'",
        ),
        (["run", TABLE_1[:-1]], "did you mean '" + TABLE_1),
        (["run", "table1.yaml"], "there is no card 'table1.yaml'"),
        (["run", TABLE_1, TABLE_1], "two cards with the name vapnet-table1"),
        (
            ["run", TABLE_1, "--out", "file"],
            "results can be written to 'file': File exists; give another folder by --out",
        ),
        (["report", "absent"], "no finished run below 'absent'"),
        (["make", "fieldguide", "x", "--classes", "many"], "Invalid value for '--classes': "),
        (
            ["make", "fieldguide", "x", "--difficulty", "easy"],
            "difficulty must be one of standard, hard, not 'easy'",
        ),
        (
            ["make", "fieldguide", "x", "--size", "8"],
            "size must be a whole number of at least 32, not 8",
        ),
        (["make", "fieldguide", "file"], "file is a file: give the name of a new or empty folder"),
        (["check", "cubb", "."], "there is no data set 'cubb': did you mean 'cub'?"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(fieldmarks, tmp_path, words, expected):
    (tmp_path / "file").touch()
    code, output, error = fieldmarks(*words)
    assert code == 2 and output == "" and expected in error
    assert error.startswith("fieldmarks: ") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_errors_of_the_system_are_words_too(fieldmarks, monkeypatch):
    monkeypatch.setattr("fieldlab.check.check", lambda *_: Path("absent").read_text())
    assert fieldmarks("check", "cub", ".") == (
        2,
        "",
        "fieldmarks: 'absent': No such file or directory\n",
    )
    monkeypatch.setattr("fieldlab.check.check", lambda *_: {}["a bug"])
    with pytest.raises(KeyError):  # a fault of the program keeps its traceback
        fieldmarks("check", "cub", ".")


# ---- make and check


def test_make_fieldguide(fieldmarks, birds):
    assert (birds / "images.txt").read_text().count("\n") == 6
    again = ["make", "fieldguide", birds, *GUIDE]
    assert fieldmarks(*again) == (0, f"3 species, 6 images of 32 x 32 px in {birds}\n", "")
    code, _, error = fieldmarks(*again[:-1], "6")
    assert code == 2 and "seed 5 instead of 6" in error


def test_check_of_a_whole_and_a_partial_copy(fieldmarks, birds):
    code, output, _ = fieldmarks("check", "fieldguide", birds, "--images")
    assert (
        code == 0
        and "differs" not in output
        and output.splitlines()[-1] == "all images can be read"
    )
    assert output.splitlines()[1].split() == ["images", "6"]
    code, output, _ = fieldmarks("check", "cub", birds)
    assert code == 1 and output.splitlines()[1].split() == ["images", "11,788", "6", "differs"]


def test_check_names_unreadable_images(fieldmarks, birds, tmp_path):
    copy = Path(shutil.copytree(birds, tmp_path / "copy"))
    broken = sorted(copy.glob("images/*/*.jpg"))[1]
    broken.write_bytes(b"no image")
    code, output, _ = fieldmarks("check", "fieldguide", copy, "--images")
    assert code == 1 and output.splitlines()[-2:] == [
        f"{broken}: not an image",
        "1 image cannot be read",
    ]


def test_check_of_nothing_shows_the_expected_tree(fieldmarks):
    code, output, error = fieldmarks("check", "cub", "absent")
    assert (
        code == 2
        and output == ""
        and "there is no folder" in error.splitlines()[0]
        and "images.txt" in error
    )


def test_warnings_are_one_line(fieldmarks, monkeypatch):
    def check(*_):
        warnings.warn("a partial copy", stacklevel=2)
        return []

    monkeypatch.setattr("fieldlab.check.check", check)
    assert fieldmarks("check", "cub", ".")[2] == "fieldmarks: warning: a partial copy\n"


# ---- run


def test_dry_run(fieldmarks, tmp_path):
    words = "--profile smoke --set lr=1e-3 --set seed=7 --dry-run"
    generated = "generated={classes: 6}"
    code, output, error = fieldmarks("run", TABLE_1, *words.split(), "--set", generated)
    lines = output.splitlines()
    assert code == 0 and error == "" and len(lines) == 10 and list(tmp_path.iterdir()) == []
    assert (
        lines[0]
        == "to run  vapnet-table1  L_a  fieldguide  seed 7  classification=True  constraint=none"
    )
    assert lines[1].startswith(f"        -> {tmp_path}/runs/vapnet-table1/L_a-fieldguide-7-")
    assert lines[-2].startswith("all: method=vapnet") and "lr=0.001" in lines[-2]
    assert "generated={'classes': 6, 'images': 20, 'size': 224, 'seed': 0" in lines[-2]
    assert (
        lines[-1] == "estimate: none, as no run of this card and profile has been done here before"
    )


@pytest.mark.parametrize(
    "states, code, summary",
    [
        (
            ["done", "earlier", "done", "done"],
            0,
            "4 runs: 3 done, 1 done earlier; results in there",
        ),
        (
            ["done", "failed", "earlier", "done"],
            1,
            "4 runs: 2 done, 1 done earlier, 1 failed; results in there",
        ),
        (
            ["done", "stopped", "stopped", "stopped"],
            130,
            "4 runs: 1 done, 3 left; the same command resumes from here; results in there",
        ),
    ],
)
def test_exit_codes(fieldmarks, monkeypatch, states, code, summary):
    def run_all(client, runs, limit, board, retries, after):
        assert (
            after is None
            and len(runs) == 4
            and limit == 1800
            and retries == 2
            and len(client.nthreads()) == 1
        )
        return [runner.Outcome(state) for state in states]

    monkeypatch.setattr(sweep, "run_all", run_all)
    found = fieldmarks(
        "run",
        TABLE_1,
        "--profile",
        "smoke",
        "--time-limit",
        "30m",
        "--out",
        "there",
        "--retries",
        "2",
    )
    assert found == (code, summary + "\n", "")


def test_the_report_is_written_while_runs_go_on(fieldmarks, monkeypatch, tmp_path):
    written = []

    def run_all(client, runs, limit, board, retries, after):
        after()  # none is finished
        for number in range(2):
            make_run(tmp_path / str(number), card="", seed=number)
            after()
            written.append((tmp_path / "report.html").read_text())
        return [runner.Outcome("done") for _ in runs]

    monkeypatch.setattr(sweep, "run_all", run_all)
    words = ("run", TABLE_1, "--profile", "smoke", "--out", tmp_path, "--report")
    code, out, _ = fieldmarks(*words)
    assert code == 0 and "1 finished run below" in written[0] and "2 finished runs" in written[1]
    lines = out.splitlines()
    assert lines[0].startswith("no report yet: ") and len(lines) == 3
    assert lines[1] == f"report  {tmp_path / 'report.html'}: reload it as runs end"


def test_ctrl_c_is_130(fieldmarks, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("fieldlab.check.check", interrupted)
    assert fieldmarks("check", "cub", ".")[0] == 130


def test_a_full_disk_while_drawing_is_one_line_and_exit_code_1(fieldmarks, tmp_path):
    with grows_to(500):
        code, out, error = fieldmarks("make", "fieldguide", "guide", *GUIDE)
    assert code == 1 and out == "" and len(error.splitlines()) == 1
    assert error.startswith("fieldmarks: cannot write guide: File too large; nothing was left")
    assert list(tmp_path.iterdir()) == []
    assert fieldmarks("make", "fieldguide", "guide", *GUIDE)[0] == 0
