"""A sweep whose processes are killed (-9) at random moments and which is started again until it is
done; then what it wrote is held against a sweep that nothing interrupted. For Linux: who writes a
file is read from /proc."""

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import load_file

from fieldlab.cards.card import load_card
from fieldlab.sweep.runner import LOG, MARK

KINDS = ("training", "papermill", "runner", "drawing", "pixels", "features", "report")
LONGEST_PAUSE = 3.0  # seconds before a kill of the others
OF_DASK = ("purge.lock", "global.lock")  # one each in the temporary folder, held by nobody
LOCKS = (".lock", ".runner")  # files that stay, held by nobody
# Of a result: what tells of time and place, and what depends on which runs were finished before.
OF_THE_SITTING = ("timing", "environment", "finished", "above")


@dataclass
class Sweep:
    """Cards at smoke size through the real command line, below a folder of its own: `out` has the
    results, `home` the cache, the temporary folder and Jupyter's."""

    cards: Sequence[Path]
    folder: Path
    settings: Sequence[str] = ()
    seeds: list[int] = field(default_factory=lambda: [0])

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        """Each further seed begins with an empty one."""
        return self.home / f"cache{len(self.seeds)}"

    def start(self, *words: str) -> subprocess.Popen:
        own = {"TMPDIR": self.home / "tmp", "JUPYTER_RUNTIME_DIR": self.home / "jupyter"}
        for each in own.values():
            each.mkdir(parents=True, exist_ok=True)
        own |= {"FIELDMARKS_CACHE": self.cache, "OMP_NUM_THREADS": 1}
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "fieldlab", *words],
                env=os.environ | {name: str(value) for name, value in own.items()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self) -> subprocess.Popen:
        settings = [f"--set={text}" for text in (*self.settings, f"seed={self.seeds}")]
        options = ["--profile=smoke", "--workers=2", f"--out={self.out}", *settings]
        return self.start("run", *map(str, self.cards), *options)

    def report(self) -> subprocess.Popen:
        return self.start("report", str(self.out))

    def results(self) -> dict[Path, int]:
        """The results that are there, and when each was written."""
        return {file: file.stat().st_mtime_ns for file in self.out.glob("*/*/result.json")}

    def processes(self) -> list[psutil.Process]:
        """All that this sweep started, whoever is their parent by now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                alive = process.status() != psutil.STATUS_ZOMBIE
                cache = process.environ().get("FIELDMARKS_CACHE", "")
                if alive and cache.startswith(f"{self.home}{os.sep}"):
                    found.append(process)
        return found


class Killer:
    """Kills processes of a sweep until each kind has had its share of `kills`.

    Attributes:
        killed: how many of each kind.  starts: of the sweep's command.
        writing: how many of the kills fell while a file or a data set was half written.
        faults: what should not have happened on the way.
    """

    def __init__(self, sweep: Sweep, kills: int, seed: int):
        self.sweep, self.chance = sweep, random.Random(seed)
        self.left = Counter(KINDS[number % len(KINDS)] for number in range(kills))
        self.killed, self.writing, self.starts = Counter(), Counter(), 0
        self.faults: list[str] = []
        self.seen: set[str] = set()
        self.finished: dict[Path, int] = {}
        self.members: list[psutil.Process] = []
        self.looked = self.next = 0.0

    def run(self) -> None:
        """Until all runs are finished and all kills are done."""
        while True:
            driver = self.sweep.run()
            self.starts += 1
            self._pause()
            while driver.poll() is None:
                self._watch(driver)
                time.sleep(0.002)
            self._note_results()
            if driver.returncode == 0:
                if not +self.left:
                    break
                if set(+self.left) == {"report"}:
                    self._kill_report()
                else:
                    self.sweep.seeds.append(len(self.sweep.seeds))
            elif driver.returncode not in (1, -signal.SIGKILL):
                raise RuntimeError(f"exit code {driver.returncode}: {self.sweep.folder / 'log'}")
        report = self.sweep.report()
        if report.wait():
            raise RuntimeError(f"the report failed: {self.sweep.folder / 'log'}")

    def _pause(self) -> None:
        self.next = time.monotonic() + self.chance.uniform(0, LONGEST_PAUSE)

    def _watch(self, driver: subprocess.Popen) -> None:
        now = time.monotonic()
        if now - self.looked > 0.25:
            self.looked, self.members = now, self.sweep.processes()
            self._note_results()
        for kind, place in self._brief():
            if self.left[kind] and str(place) not in self.seen:
                self.seen.add(str(place))
                if process := self._writer(place):
                    time.sleep(self.chance.uniform(0, 0.02))
                    self._kill(kind, process, place)
                    return
        if now < self.next:
            return
        chosen = {kind: who for kind, who in self._lasting(driver).items() if self.left[kind]}
        if chosen:
            kind = self.chance.choice(sorted(chosen))
            if kind == "report":
                self._kill_report()
            else:
                self._kill(kind, chosen[kind])
            if kind == "runner":
                driver.wait()
            self._pause()

    def _brief(self):
        """(kind, what is being written) of what lasts less than a second."""
        for kind, places in (
            ("drawing", self.sweep.cache.glob(".*.partial-*")),
            ("pixels", self.sweep.cache.glob("pixels/.*.npy")),
            ("features", self.sweep.cache.glob("features/.*.safetensors")),
        ):
            for place in places:
                yield kind, place

    def _lasting(self, driver: subprocess.Popen) -> dict[str, psutil.Process]:
        """A process of each kind that may be killed now."""
        found = {"runner": psutil.Process(driver.pid)} if driver.poll() is None else {}
        if self.finished:
            found["report"] = found.get("runner")
        self.chance.shuffle(self.members)
        for process in self.members:
            with suppress(psutil.Error):
                words, folder = " ".join(process.cmdline()), process.environ().get(MARK)
                if "-m papermill" in words:
                    found["papermill"] = process
                if "ipykernel_launcher" in words and folder:
                    if stage := _stage(Path(folder)):
                        found[stage] = process
        return found

    def _writer(self, place: Path) -> psutil.Process | None:
        """Who has a file or a folder open."""
        for process in self.members:
            with suppress(OSError):
                for opened in os.scandir(f"/proc/{process.pid}/fd"):
                    with suppress(OSError):
                        if os.readlink(opened.path) == str(place):
                            return process
        return None

    def _kill(self, kind: str, process: psutil.Process, place: Path | None = None) -> None:
        with suppress(psutil.Error):
            process.kill()
            self.killed[kind] += 1
            self.left[kind] -= 1
            if kind != "runner":  # whose exit code is for `subprocess` to take
                process.wait(10)
            half = [place] if place else self.sweep.folder.glob("out/*/*/.*.*.pt")
            self.writing[kind] += any(each.exists() for each in half)

    def _kill_report(self) -> None:
        """At any moment, every second time once its page is being written."""
        report, page = self.sweep.report(), self.sweep.out / "report.html"
        at = time.monotonic() + self.chance.uniform(0.5, 10)
        only_writing = self.chance.random() < 0.5
        while report.poll() is None and (only_writing or time.monotonic() < at):
            if only_writing and any(self.sweep.out.glob(".report.*")):
                break
            time.sleep(0.001)
        if report.poll() is None:
            report.kill()
            self.killed["report"] += 1
            self.left["report"] -= 1
            self.writing["report"] += any(self.sweep.out.glob(".report.*"))
        report.wait()
        if page.exists() and not page.read_text().rstrip().endswith("</html>"):
            self.faults.append("the report is cut off")

    def _note_results(self) -> None:
        """A result that is written again was made twice."""
        now = self.sweep.results()
        for file, written in self.finished.items():
            if now.get(file) != written:
                self.faults.append(f"made twice or lost: {file}")
        self.finished = now


def _stage(folder: Path) -> str | None:
    """Whether a run's kernel is training or computing features, by what its log says."""
    try:
        text = (folder / LOG).read_text(errors="replace")
    except OSError:
        return None
    if (folder / "result.json").exists():
        return None
    if epochs := re.findall(r"^epoch +(\d+)/(\d+)", text, re.MULTILINE):
        return "training" if epochs[-1][0] != epochs[-1][1] else None
    counted = re.findall(r"^images (drawn|decoded|embedded)", text, re.MULTILINE)
    return "features" if counted and counted[-1] == "decoded" and "/pan-" in str(folder) else None


def differences(sweep: Sweep, straight: Sweep) -> list[str]:
    """Every metric, interval, curve, saved tensor and weight of a sweep's cards that is not the
    same to the bit."""
    names = {load_card(card).name for card in sweep.cards}
    files = {file.relative_to(straight.out) for file in straight.results()}
    files, found = {file for file in files if file.parts[0] in names}, []
    for name in files ^ {file.relative_to(sweep.out) for file in sweep.results()}:
        found.append(f"{name}: only in one of the two")
    for name in sorted(files):
        one, other = (_comparable(each.out / name) for each in (sweep, straight))
        found += [f"{name}: {key}" for key in {*one, *other} if one.get(key) != other.get(key)]
        for saved in (straight.out / name).parent.glob("*.safetensors"):
            mine, theirs = load_file(sweep.out / name.parent / saved.name), load_file(saved)
            if not _same(mine, theirs):
                found.append(f"{name.parent / saved.name}")
        for saved in (straight.out / name).parent.glob("*.pt"):
            mine, theirs = (
                torch.load(each.out / name.parent / saved.name, weights_only=True)["method"]
                for each in (sweep, straight)
            )
            if not _same(mine, theirs):
                found.append(f"{name.parent / saved.name}")
    return found


def _same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].numpy().tobytes() == other[name].numpy().tobytes()
        for name in one
        if isinstance(one[name], torch.Tensor)
    )


def _comparable(file: Path) -> dict:
    result = json.loads(file.read_text())
    for row in result["curves"]["epochs"]:
        row.pop("images_per_second")
    result["parameters"].pop("out")
    return {name: value for name, value in result.items() if name not in OF_THE_SITTING}


def left_behind(sweep: Sweep) -> list[str]:
    """Temporary files, held locks, files that cannot be read, processes that are still alive."""
    deadline = time.monotonic() + 10
    while (alive := sweep.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = [f"alive: {' '.join(process.cmdline())}" for process in alive]
    for place in ("jupyter", "tmp"):
        files = [file for file in (sweep.home / place).rglob("*") if file.is_file()]
        found += [f"temporary: {file}" for file in files if file.name not in OF_DASK]
    for top in (sweep.out, sweep.home):
        for file in sorted(top.rglob("*")):
            if file.name in LOCKS:
                with open(file, "rb+") as opened:
                    try:
                        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except OSError:
                        found.append(f"locked: {file}")
            elif file.name.startswith("."):
                found.append(f"temporary: {file}")
            elif file.is_file() and (fault := _fault(file)):
                found.append(f"half written: {file} ({fault})")
    return found


def _fault(file: Path) -> str:
    """Why a file cannot be read; "" where it can."""
    read = {
        ".json": lambda: json.loads(file.read_text()),
        ".ipynb": lambda: json.loads(file.read_text()),
        ".npy": lambda: np.load(file, mmap_mode="r"),
        ".safetensors": lambda: load_file(file),
        ".pt": lambda: torch.load(file, weights_only=True),
        ".html": lambda: file.read_text().rstrip().endswith("</html>") or 1 / 0,
        ".png": lambda: Image.open(file).load(),
        ".jpg": lambda: Image.open(file).load(),
    }.get(file.suffix)
    try:
        if read:
            read()
    except Exception as error:  # whatever readers raise
        return f"{type(error).__name__}: {error}"
    return ""
