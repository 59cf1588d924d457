import re

import numpy as np
import pytest
from PIL import Image

from fieldmarks.labs.report import find_results, write_report
from fieldmarks.labs.results import read_result, write_result

RESULT = {
    "notebook": "notebooks/vapnet.ipynb", "card": "vapnet-table1", "method": "vapnet (L_a)", "dataset": "fieldguide",
    "parameters": {"seed": 3, "backbone": "resnet10t", "weights": "none", "size": 96, "epochs": 2, "lr": 0.01},
    "metrics": {"recall@1": 0.4321, "map@r": 0.2}, "intervals": {"recall@1": [0.4, 0.46], "map@r": [0.1, 0.3]},
    "counts": {"train": 1000, "query": 900, "gallery": 900, "classes": 45, "train_classes": 50}, "curves": {},
    "figures": ["top_ten.jpg"], "timing": {"train_seconds": 12.0, "images_per_second": 99.6}, "device": "cpu",
}


def make_run(folder, **changes):
    folder.mkdir(parents=True)
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(folder / "top_ten.jpg")
    write_result(folder, **{**RESULT, **changes})
    return folder


def test_a_page_says_what_was_measured_and_on_what(tmp_path):
    make_run(tmp_path / "a", start={"recall@1": 0.1, "map@r": 0.05})
    make_run(tmp_path / "b", method="vapnet (L_a + mean L_c)", metrics={"recall@1": 0.5, "map@r": 0.25})
    page = write_report(tmp_path)
    text = page.read_text()
    assert page == tmp_path / "report.html" and "2 finished runs" in text
    for words in ("43.2 <small>40.0–46.0</small>", "50.0", "before training</td><td>10.0", "1,000 images of 50 classes",
                  "900 queries of 45 classes", "generated birds: the numbers compare methods with each other", "vapnet-table1"):
        assert words in text, words
    assert len(re.findall(r'src="data:image/jpeg;base64,', text)) == 2
    assert not re.search(r'(src|href)="(?!data:)', text)  # needs no network


def test_numbers_from_different_data_never_stand_in_one_table(tmp_path):
    make_run(tmp_path / "a", data_fingerprint="one")
    make_run(tmp_path / "b", data_fingerprint="other")
    make_run(tmp_path / "c", data_fingerprint="one", parameters={**RESULT["parameters"], "seed": 4})
    text = write_report(tmp_path).read_text()
    assert text.count("<table>") == 2 and text.count("<h2>vapnet-table1: fieldguide</h2>") == 2


def test_only_complete_runs_count(tmp_path):
    good = make_run(tmp_path / "good")
    cut = make_run(tmp_path / "cut")
    (cut / "result.json").write_text((cut / "result.json").read_text()[:200])
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "result.json").write_text('{"schema": 1, "status": "failed"}')
    assert [where for where, _ in find_results(tmp_path)] == [good] and read_result(cut) is None


def test_text_from_outside_is_text(tmp_path):
    make_run(tmp_path / "a", dataset="<script>alert(1)</script>")
    assert "<script>" not in write_report(tmp_path).read_text()


def test_no_runs_is_one_line_that_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run below .*make one with fieldmarks run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_names_a_missing_figure_or_holds_nan_is_refused(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(ValueError, match="figures that are not in .*top_ten.jpg"):
        write_result(folder, **RESULT)
    with pytest.raises(ValueError):
        write_result(folder, **{**RESULT, "figures": [], "metrics": {"recall@1": float("nan")}})
    assert list(folder.iterdir()) == []
