import re
from pathlib import Path

from fieldmarks.explain import EXPLAINERS
from fieldmarks.explain.trust import MEASURED, MIDDLE, trust

DOCS = Path(__file__).parents[3] / "docs" / "explanations.md"


def test_figures_are_those_of_the_document():
    text = DOCS.read_text(encoding="utf-8")
    for name, numbers in {**MEASURED, "middle": MIDDLE}.items():
        row = (
            r"ADSH, 24 bits \| `grad_cam` \| ([^|(]+) \("
            if name == "grad_cam"
            else rf"`{name}`[^|]*\| ([^|]+) \|"
        )
        (row,) = re.findall(rf"^\| {row}", text, re.MULTILINE)
        assert row == "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)
    assert set(MEASURED) <= set(EXPLAINERS)


def test_what_has_no_figures_is_not_vouched_for():
    assert "22% of pictures [12, 32]" in trust("place_map") and "32%" in trust("place_map")
    assert "10% of pictures [3, 18]" in trust("grad_cam") and "ADSH" in trust("grad_cam")
    assert "has not been measured" in trust("random_masks")
