"""What the README shows runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(code.splitlines()) <= 25
    checks = """
assert heat.shape == (2, 96, 96) and 0 <= heat.min() and heat.max() <= 1
assert embeddings.shape == (64, 1280) and 0.2 < results.recall(1)[1] <= results.recall(4)[4] <= 1
low, high = results.interval("recall@1")
assert low <= results.recall(1)[1] <= high
assert len(results.show(birds_seen, [0, 9], k=5).cells) > 10
"""
    show = "birds_seen = fm.PixelCache.open(unseen.paths, 96)\n"
    environment = {**os.environ, "FIELDMARKS_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code + show + checks],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "epoch   5/5" in done.stdout


def test_it_is_short_and_its_links_lead_somewhere():
    root = Path(__file__).parents[1]
    assert len(README.splitlines()) <= 200
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in link or (root / link).exists(), link
