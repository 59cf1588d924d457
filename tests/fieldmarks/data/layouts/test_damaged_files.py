"""Every annotation file of every layout, damaged at random: it is read, or refused by name."""

import pytest

from helpers.damage import LAYOUTS, fuzz


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_annotations_are_read_or_refused_by_name(layout):
    count = 100 if layout.startswith("cars") else 250  # .mat files are read in another process
    counts, failures = fuzz(layout, count, seed=0)
    assert not failures, "\n".join(failures[:5])
    outcomes = {outcome for _, outcome in counts}
    assert {"read", "refused"} <= outcomes and sum(counts.values()) >= count
