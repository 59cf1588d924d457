"""What a real sweep withstands; `tests/benchmarks/interruptions.py` does the same at length."""

import sys
from pathlib import Path

import pytest

from helpers.full_disk import grows_to
from helpers.interruptions import KINDS, Killer, Sweep, differences, left_behind

LABS = Path(__file__).parents[3] / "labs"
CARDS = [LABS / "vapnet" / "figure4.yaml", LABS / "pan" / "table2.yaml"]
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Three runs that nothing interrupts."""
    sweep = Sweep(CARDS, tmp_path_factory.mktemp("straight"), ["epochs=4"])
    assert sweep.run().wait() == 0
    return sweep


def test_killed_at_random_a_sweep_ends_as_one_that_was_not(straight, tmp_path):
    sweep = Sweep(CARDS, tmp_path, straight.settings)
    killer = Killer(sweep, kills=5, seed=1)
    killer.run()
    assert sum(killer.killed.values()) == 5 and set(killer.killed) == set(KINDS[:5])
    assert len(sweep.results()) == 3 * len(sweep.seeds) and killer.faults == []
    if sweep.seeds != straight.seeds:  # one kind of process was over too soon, and more was run
        straight.seeds = sweep.seeds
        assert straight.run().wait() == 0
    assert left_behind(sweep) == [] and differences(sweep, straight) == []


def test_a_full_disk_fails_runs_in_words_and_the_same_command_goes_on(straight, tmp_path):
    sweep = Sweep(CARDS[:1], tmp_path, straight.settings)
    with grows_to(10_000_000):  # less than a checkpoint of the network
        assert sweep.run().wait() == 1
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said and said.splitlines()[-1].startswith("1 run: 1 failed")
    assert ".pt': File too large; nothing was left behind: raise the limit on the size of" in said
    assert left_behind(sweep) == [] and sweep.results() == {}
    assert sweep.run().wait() == 0
    assert left_behind(sweep) == [] and differences(sweep, straight) == []
