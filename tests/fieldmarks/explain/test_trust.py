import re
from pathlib import Path

from fieldmarks.explain import EXPLAINERS
from fieldmarks.explain.trust import MEASURED, MIDDLE, MIDDLE_OF_PAN, trust

DOCS = Path(__file__).parents[3] / "docs" / "explanations.md"


def test_figures_are_those_of_the_document():
    text = DOCS.read_text(encoding="utf-8")
    networks = {"grad_cam": "ADSH, 24 bits", "pan_score": "PAN"}
    for name, numbers in {**MEASURED, "middle": MIDDLE}.items():
        row = (
            rf"{networks[name]} \| `{name}` \| ([^|(]+) \("
            if name in networks
            else rf"`{name}`[^|]*\| ([^|]+) \|"
        )
        (row,) = re.findall(rf"^\| {row}", text, re.MULTILINE)
        assert row == "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)
    assert set(MEASURED) <= {*EXPLAINERS, "pan_score"}
    assert f"| `pan_score` | 0.08 [0.02, 0.17] ({MIDDLE_OF_PAN:.2f}) |" in text


def test_what_has_no_figures_is_not_vouched_for():
    assert "22% of pictures [12, 32]" in trust("place_map") and "32%" in trust("place_map")
    assert "10% of pictures [3, 18]" in trust("grad_cam") and "ADSH" in trust("grad_cam")
    assert "8% of pictures [2, 17]" in trust("pan_score") and "15% (drawn" in trust("pan_score")
    assert "has not been measured" in trust("random_masks")
