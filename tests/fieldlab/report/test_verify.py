import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fieldlab import cli
from fieldlab.report.saved import NothingSaved, measure_again
from fieldlab.report.verify import differences, verify
from fieldmarks.evaluation.hamming import mean_average_precision
from fieldmarks.experiments.hashing import Hashing
from helpers.runs import LABELS, finished, make_run, naive_hits


def change(folder, **changes):
    file = folder / "result.json"
    result = json.loads(file.read_text())
    for name, value in changes.items():
        result[name] = result[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(result))


# ---- measured again, against loops


def test_recall_of_each_query_from_embeddings(tmp_path):
    change(make_run(tmp_path / "run"), parameters={"ks": [1, 3]})
    run = finished(tmp_path / "run")
    embeddings = load_file(run.folder / "embeddings.safetensors")["embeddings"]
    found = measure_again(*run)
    for k in (1, 3):
        assert found.values[f"recall@{k}"].tolist() == [
            float(hit) for hit in naive_hits(embeddings, LABELS, k)
        ]
    assert found.asked.tolist() == LABELS.tolist() and set(found.metrics) == {
        "recall@1",
        "recall@3",
        "map@r",
    }


def test_queries_and_gallery_apart(tmp_path):
    counts = {"train": 9, "query": 2, "gallery": 3, "classes": 2, "train_classes": 2}
    folder = make_run(tmp_path / "run", counts=counts)
    tensors = {"embeddings": torch.eye(5)[[0, 1, 0, 1, 1]], "labels": torch.tensor([7, 8, 8, 8, 7])}
    save_file(tensors, folder / "embeddings.safetensors")
    assert "queries: 2 are written, 5 are saved" in differences(finished(folder))
    parts = {"query": torch.tensor([0, 1]), "gallery": torch.tensor([2, 3, 4])}
    save_file(tensors | parts, folder / "embeddings.safetensors")
    scores = measure_again(*finished(folder))
    assert scores.values["recall@1"].tolist() == [0.0, 1.0] and scores.asked.tolist() == [7, 8]


def test_codes(tmp_path):
    generator = torch.Generator().manual_seed(3)
    codes = (torch.randint(2, (50, 8), generator=generator) * 2 - 1).char()
    labels = torch.randint(4, (50,), generator=generator)
    saved = {
        "query_codes": codes[:20],
        "query_labels": labels[:20],
        "database_codes": codes[20:],
        "database_labels": labels[20:],
    }
    kind = {"experiment": "hashing", "module": "fieldmarks.experiments.hashing"}
    scores = Hashing.measure(saved, {"top": 7, "seed": 0})
    outcome = {"metrics": scores.metrics, "intervals": scores.intervals}
    folder = make_run(tmp_path / "run", given={"top": 7}, **kind, **outcome)
    save_file(saved, folder / "codes.safetensors")
    assert differences(finished(folder)) == []
    again = measure_again(*finished(folder))
    naive = mean_average_precision(
        *(part.float() if part.dtype == torch.int8 else part for part in saved.values()), top=7
    )
    assert again.metrics["map"] == pytest.approx(naive)
    change(folder, metrics={"class_codes": 0.125}, parameters={"top": 6})
    lines = differences(finished(folder))
    assert {line.split(":")[0] for line in lines} == {"map", "map_stable", "class_codes"}


# ---- written against saved


def test_every_number_that_differs_is_a_line(tmp_path):
    folder = make_run(tmp_path / "run")
    assert differences(finished(folder)) == []
    truth = finished(folder).result["metrics"]["recall@1"]
    change(
        folder,
        metrics={"recall@1": truth + 0.001, "area": 0.5},
        intervals={"recall@1": [0.0, 1.0]},
        counts={"query": 21},
    )
    save_file(
        load_file(folder / "embeddings.safetensors")
        | {"query": torch.arange(20), "gallery": torch.arange(20)},
        folder / "embeddings.safetensors",
    )
    change(folder, metrics={"recall@1": 0.001})
    first, second, third, fourth = differences(finished(folder))
    assert first == "queries: 21 are written, 20 are saved"
    assert (
        second == "recall@1: 0.0010 is written, 1.0000 is what was saved"
    )  # a gallery that holds the queries themselves
    assert third == "area: 0.5000 is written, and nothing saved gives it"
    assert (
        fourth
        == "recall@1: the interval [0.0000, 1.0000] is written, [1.0000, 1.0000] is what was saved"
    )


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda file: file.unlink(), "cannot be verified: embeddings.safetensors is not there"),
        (
            lambda file: file.write_bytes(file.read_bytes()[:100]),
            "cannot be verified: embeddings.safetensors cannot be read: ",
        ),
        (
            lambda file: save_file({"labels": LABELS}, file),
            "cannot be verified: embeddings.safetensors lacks 'embeddings'",
        ),
    ],
)
def test_missing_and_damaged_files_are_faults(tmp_path, damage, expected):
    folder = make_run(tmp_path / "runs" / "one")
    damage(folder / "embeddings.safetensors")
    found = verify([finished(folder)], tmp_path / "runs")
    assert (found.equal, found.faulty, found.beyond) == (0, 1, [])
    assert len(found.faults) == 1 and found.faults[0].startswith(f"one: {expected}")


@pytest.mark.parametrize(
    "kind, message",
    [
        ({"experiment": "unheard", "module": "unheard.of"}, "unheard saves no"),
        ({"experiment": "", "module": ""}, "a run of unknown kind saves no"),
    ],
)
def test_kinds_that_save_nothing_are_named_and_are_no_faults(tmp_path, kind, message):
    run = finished(make_run(tmp_path / "one", **kind))
    with pytest.raises(NothingSaved, match=message):
        measure_again(*run)
    found = verify([run], tmp_path)
    assert not found.faults and len(found.beyond) == 1


def test_the_command(tmp_path, capsys):
    good = make_run(tmp_path / "runs" / "good")
    assert cli.main(["report", str(tmp_path / "runs"), "--verify"]) == 0
    page, markdown, summary = capsys.readouterr().out.splitlines()
    assert (
        Path(page).is_file()
        and Path(markdown).is_file()
        and summary == "1 run: 1 verified, 0 with differences, 0 that cannot be verified"
    )
    change(make_run(tmp_path / "runs" / "bad", seed=1), metrics={"recall@1": 0.123})
    assert cli.main(["report", str(tmp_path / "runs"), "--verify"]) == 1
    line, summary = capsys.readouterr().out.splitlines()[2:]
    assert line.startswith("bad: recall@1: 0.1230 is written, ") and summary.startswith(
        "2 runs: 1 verified, 1 with differences"
    )
    assert cli.main(["report", str(tmp_path / "runs")]) == 0 and good.is_dir()
