import json
from pathlib import Path

import pytest
import torch
from fieldlab import cli
from fieldlab.report.saved import NothingSaved, measure_again
from fieldlab.report.verify import differences, verify
from helpers.runs import LABELS, finished, make_run, naive_hits  # noqa: E402
from safetensors.torch import load_file, save_file


def change(folder, **changes):
    file = folder / "result.json"
    result = json.loads(file.read_text())
    for name, value in changes.items():
        result[name] = result[name] | value if isinstance(value, dict) else value
    file.write_text(json.dumps(result))


# ---- measured again, against loops


def test_recall_of_each_query_from_embeddings(tmp_path):
    run = finished(
        make_run(tmp_path / "run", metrics={"recall@1": 0.5, "recall@3": 0.5, "map@r": 0.5})
    )
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
    folder = make_run(
        tmp_path / "run",
        counts={"train": 9, "query": 2, "gallery": 3, "classes": 2, "train_classes": 2},
    )
    tensors = {"embeddings": torch.eye(5)[[0, 1, 0, 1, 1]], "labels": torch.tensor([7, 8, 8, 8, 7])}
    save_file(tensors, folder / "embeddings.safetensors")
    with pytest.raises(
        ValueError, match="does not say which images are queries and which the gallery"
    ):
        measure_again(*finished(folder))
    save_file(
        tensors | {"query": torch.tensor([0, 1]), "gallery": torch.tensor([2, 3, 4])},
        folder / "embeddings.safetensors",
    )
    found = measure_again(*finished(folder))
    assert found.values["recall@1"].tolist() == [0.0, 1.0] and found.asked.tolist() == [7, 8]


def test_codes(tmp_path):
    from fieldmarks.experiments.hashing import measure

    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(2, (50, 8), generator=generator) * 2.0 - 1
    labels = torch.randint(4, (50,), generator=generator)
    expected = measure(codes[:20], labels[:20], codes[20:], labels[20:], top=7, resamples=2000)
    folder = make_run(
        tmp_path / "run",
        experiment="hashing",
        given={"top": 7},
        metrics=expected.metrics,
        intervals=expected.intervals,
    )
    save_file(
        {
            "query_codes": codes[:20].char(),
            "query_labels": labels[:20],
            "database_codes": codes[20:].char(),
            "database_labels": labels[20:],
        },
        folder / "codes.safetensors",
    )
    assert differences(finished(folder)) == []
    assert (
        measure_again(*finished(folder)).values["map"].tolist()
        == expected.average_precision.tolist()
    )
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
    "experiment, words", [("unheard", "unheard saves no"), ("", "a run of unknown kind saves no")]
)
def test_kinds_that_save_nothing_are_named_and_are_no_faults(tmp_path, experiment, words):
    run = finished(make_run(tmp_path / "one", experiment=experiment))
    with pytest.raises(NothingSaved, match=words):
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
