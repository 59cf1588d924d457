import pytest
import torch

from fieldmarks import load_run
from fieldmarks.evaluation.explanations import pointing
from fieldmarks.experiments.explanations import Explanations, Parameters, Target, resized
from fieldmarks.experiments.parameters import parse
from fieldmarks.experiments.result import read_result
from helpers.experiments import measured_again

SMALL = {
    "generated": {"classes": 12, "images": 8, "size": 64},
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "looked_at": (64, 48),
    "pictures": 4,
    "exchanges": 4,
    "explainers": ("channel_mean", "place_map", "occlusion"),
    "sane": 3,
    "progress": "none",
    "device": "cpu",
}
TRAINED = {
    "VAPNet": ("open_set", {"views": 1, "grids": [2], "batch_size": 8, "epochs": 1}),
    "FCAENet": ("hashing", {"regions": 9, "region_size": 8, "passes": 1, "epochs": 1}),
    "PAN": (
        "fewshot",
        {"epochs": 2, "evaluate_every": 2, "hidden": [16], "ways": 3, "shots": 2, "queries": 5}
        | {"episodes": 4, "validation_episodes": 4},
    ),
}


def made(out, **changes):
    return Explanations(parse(Parameters, {**SMALL, "out": str(out), **changes}))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    experiment = made(tmp_path_factory.mktemp("frozen"))
    history, scores = experiment.train(), experiment.evaluate()
    experiment.finish(history, scores)
    return experiment, scores


@pytest.fixture(scope="module", params=TRAINED)
def trained(request, tmp_path_factory):
    network, settings = TRAINED[request.param]
    experiment = made(tmp_path_factory.mktemp("run"), network=network, settings=settings)
    history, scores = experiment.train(), experiment.evaluate()
    experiment.finish(history, scores)
    return request.param, experiment, scores


def test_pictures_are_of_species_that_nobody_has_learnt(frozen):
    experiment, _ = frozen
    assert experiment.species.tolist() == [7, 9, 11]  # of the second half, and no base class


def test_exactly_one_part_changes(frozen):
    drawn, exchanges = frozen[0].drawn
    assert len(exchanges) == len(drawn.queries) == 4
    for match, others, row in zip(drawn.matches, drawn.others, exchanges, strict=True):
        assert len({each.mark for each in row}) == len(row) == len(others) >= 3
        for other, each in zip(others, row, strict=True):
            changed = torch.from_numpy(each.changed)
            assert torch.equal((other != match).any(0), changed) and changed.any()


def test_falls_are_cosines_of_the_network(frozen):
    experiment, _ = frozen
    drawn, exchanges = experiment.drawn
    falls = experiment.falls(drawn)
    for n, row in enumerate(exchanges):
        q, x, *others = (
            experiment.method(experiment.views(image[None]))[0].double()
            for image in (drawn.queries[n], drawn.matches[n], *drawn.others[n])
        )
        wanted = torch.stack([q @ x - q @ other for other in others])
        torch.testing.assert_close(falls[n, : len(row)], wanted, atol=1e-6, rtol=0)
        assert falls[n, len(row) :].isnan().all()


def test_a_score_is_that_of_the_part_that_costs_most(frozen):
    experiment, scores = frozen
    small = resized(experiment.drawn[0], 48)
    falls = experiment.falls(small)
    heat = experiment.explainers()["place_map"](
        experiment.representation,
        experiment.backbone,
        experiment.views(small.queries),
        experiment.views(small.matches),
    )
    for n, row in enumerate(falls):
        most = max(range(len(small.others[n])), key=lambda part: row[part].item())
        changed = (small.others[n][most] != small.matches[n]).any(0)[None]
        wanted = pointing(heat[n : n + 1], changed)
        assert scores.values["pointing: place_map, 48 px"][n] == wanted[0]


def test_floors_and_ceilings(frozen):
    metrics = frozen[1].metrics
    assert metrics["pointing: changed, 64 px"] == 1
    assert metrics["mass: outline, 64 px"] == pytest.approx(1, abs=1e-6)
    assert metrics["correctness: uniform, 64 px"] == 0
    assert metrics["correctness: painted, 64 px"] > 0.8  # parts overlap where one lies on another
    assert metrics["contrast: channel_mean"] == 0  # it does not ask what it explains
    assert metrics["contrast: place_map"] > 0


def test_costly_explainers_are_scored_at_the_first_size(frozen):
    names = {name for name in frozen[1].metrics if "occlusion" in name}
    assert names == {
        f"{s}: occlusion, 64 px" for s in ("pointing", "mass", "correctness", "spread")
    }


def test_sizes_show_the_same_pictures(frozen):
    drawn = frozen[0].drawn[0]
    small = resized(drawn, 48)
    assert small.queries.shape == (4, 3, 48, 48) and small.queries.dtype == torch.uint8
    assert small.parts.shape[2:] == (48, 48) and small.parts.any()
    means = [part.float().mean((1, 2, 3)) for part in (drawn.matches, small.matches)]
    torch.testing.assert_close(*means, atol=1.0, rtol=0)
    assert resized(drawn, 64) is drawn


def test_result_says_what_was_compared_and_is_measured_again(frozen):
    experiment, scores = frozen
    result = read_result(experiment.folder)
    assert result["method"] == "frozen resnet10t" and result["experiment"] == "explanations"
    first = {row["first"] for row in result["against_middle"]["correctness"]}
    assert first == {"channel_mean", "place_map", "occlusion"}
    assert {row["second"] for row in result["against_middle"]["pointing"]} == {"middle"}
    assert measured_again(Explanations, experiment.folder).metrics == scores.metrics


def test_networks_are_trained_explained_and_come_back(trained):
    name, experiment, scores = trained
    result = read_result(experiment.folder)
    assert read_result(experiment.folder / "network")["status"] == "complete"
    loaded = load_run(experiment.folder, "cpu")
    images = experiment.views(experiment.drawn[0].queries[:, :, :48, :48])
    with torch.no_grad():
        assert torch.equal(loaded.embed(images), experiment.method.embed(images))
    why = result["reasons"]
    assert set(why) == {"VAPNet": set(), "FCAENet": {"place_map"}}.get(
        name, {"place_map", "occlusion"}
    )
    own = {"VAPNet": {"shared_attribute"}, "PAN": {"shared_concept", "pan_score"}}
    metrics = scores.metrics
    for explainer in own.get(name, ()):
        assert f"correctness: {explainer}, 64 px" in metrics
    assert ("named@5" in metrics) == (name == "PAN")


def test_a_second_sitting_trains_nothing(trained, monkeypatch):
    name, experiment, scores = trained
    network, settings = TRAINED[name]
    again = made(experiment.folder.with_name("again"), network=network, settings=settings)
    again.trainer.folder = experiment.folder / "network"
    monkeypatch.setattr(again.trainer, "train", lambda: pytest.fail("trained again"))
    history = again.train()
    assert history.seconds == read_result(experiment.folder)["timing"]["train_seconds"]
    assert again.evaluate().metrics == pytest.approx(scores.metrics, rel=1e-3, abs=1e-6)


def test_a_finished_run_is_explained(trained, tmp_path):
    _, experiment, scores = trained
    other = made(tmp_path, run=str(experiment.folder / "network"))
    other.train()
    assert other.name == experiment.name
    assert other.evaluate().metrics == pytest.approx(scores.metrics, rel=1e-3, abs=1e-6)


def test_the_network_is_left_as_it_was(frozen):
    experiment, _ = frozen
    before = {name: value.clone() for name, value in experiment.method.state_dict().items()}
    experiment.evaluate()
    after = experiment.method.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_targets_of_a_batch(frozen):
    drawn = frozen[0].drawn[0]
    falls = frozen[0].falls(drawn)
    whole = Target.of(drawn, falls, torch.arange(4))
    halves = [Target.of(drawn, falls, rows) for rows in torch.arange(4).split(2)]
    for one, *parts in zip(whole, *halves, strict=True):
        torch.testing.assert_close(one, torch.cat(parts), equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "wardrobe", "generated": {}}, "dataset is 'wardrobe'"),
        ({"network": "open_sett"}, "did you mean 'open_set'|open_set"),
        ({"network": "open_set", "settings": {"epoch": 1}}, "settings: unknown parameter 'epoch'"),
        ({"network": "open_set", "settings": {"size": 64}}, "size belongs beside settings"),
        ({"explainers": ["gradcam"]}, "explainers"),
        ({"explainers": []}, "explainers is empty: name one or more"),
        ({"looked_at": [16]}, "at least 32 px"),
        ({"looked_at": []}, "give one or more sizes"),
        ({"exchanges": 2}, "exchanges is 2: it must be at least 3"),
        ({"run": "nowhere"}, "nowhere' is not a finished run"),
    ],
)
def test_bad_input(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        made(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()
