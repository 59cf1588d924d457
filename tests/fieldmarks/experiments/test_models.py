import json
import shutil

import numpy as np
import pytest
import torch
from fieldguide.birds.guide import make_fieldguide
from fieldguide.garments.wardrobe import make_wardrobe
from fieldmarks.experiments import (
    fewshot,
    fewshot_figures,
    hashing,
    inshop,
    inshop_figures,
    open_set,
)
from fieldmarks.experiments.models import load_model, load_pair_model
from PIL import Image

PAN = {
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": 8,
    "concepts": 3,
    "epochs": 2,
    "lr": 0.01,
    "evaluate_every": 1,
    "progress": "none",
    "device": "cpu",
    "precision": "fp32",
    "seed": 3,
}
FEWSHOT = {
    **PAN,
    "resize": 64,
    "size": 48,
    "ways": 2,
    "shots": 2,
    "queries": 2,
    "episodes": 4,
    "validation_episodes": 3,
}
INSHOP = {**PAN, "resize": 40, "size": 32, "validation": 0.3, "ks": (1, 3), "rerank": 4}
SINGLE = {
    "resize": 64,
    "size": 48,
    "backbone": "resnet10t",
    "weights": "none",
    "batch_size": 8,
    "epochs": 1,
    "progress": "none",
    "device": "cpu",
}


def go(kind, parameters):
    """Run an experiment from end to end; returns what it held and its folder."""
    experiment = kind.prepare(parameters)
    history, after = kind.train(experiment), kind.evaluate(experiment)
    kind.finish(
        experiment, *((history, None, after) if kind is open_set else (history, after)), [], ""
    )
    return experiment, after, parameters.folder()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("models")
        patch.setenv("FIELDMARKS_CACHE", str(folder / "cache"))
        make_fieldguide(folder / "birds", classes=8, images=4, size=64, seed=0)
        make_wardrobe(folder / "wardrobe", outfits=200, items=150, shots=2, size=40, seed=0)
        yield folder


@pytest.fixture(scope="module")
def runs(home):
    """Finished runs of PAN: method -> (experiment, what it found, folder)."""
    root = str(home / "birds")
    made = {
        f"fewshot {method}": go(
            fewshot,
            fewshot.Parameters(**FEWSHOT, **more, root=root, method=method, out=str(home / method)),
        )
        for method, more in (
            ("pan_supervised", {}),
            ("pan_hybrid", {"encoder": "none"}),
            ("pan_unsupervised", {}),
        )
    }
    of_embeddings = go(
        open_set, open_set.Parameters(**SINGLE, root=root, grids=(2,), out=str(home / "vapnet"))
    )[2]
    for name, more in (
        ("features", {}),
        ("embeddings", {"embedding": str(of_embeddings), "method": "pan_hybrid"}),
    ):
        made[f"inshop {name}"] = go(
            inshop,
            inshop.Parameters(
                **INSHOP, **more, root=str(home / "wardrobe"), out=str(home / f"inshop {name}")
            ),
        )
    return made


@pytest.mark.parametrize("method", ["pan_supervised", "pan_hybrid", "pan_unsupervised"])
def test_a_few_shot_run_compares_pictures_as_the_experiment_did(runs, method):
    e, found, folder = runs[f"fewshot {method}"]
    model = load_pair_model(folder, "cpu")
    encoded = model.encode(e.novel.pixels)
    with torch.no_grad():
        torch.testing.assert_close(
            encoded, e.network.encode(e.novel.features), atol=1e-5, rtol=1e-5
        )
        images = e.novel_images([0, 5])
        torch.testing.assert_close(
            model.describe(images),
            e.standardise(e.backbone.eval()(images).mean((-2, -1))),
            atol=1e-4,
            rtol=1e-4,
        )
    assert model.names == fewshot_figures.names_of(e) and model.resize == 64 and model.run == folder
    # Sec. 3: the score of a query with a class is its mean similarity with the supports.
    support, query = (part[1] for part in e.episodes)
    for row, picture in enumerate(query.flatten().tolist()):
        scores = (
            model.scores(encoded[picture], encoded[support.flatten()]).view(support.shape).mean(1)
        )
        torch.testing.assert_close(scores, found.class_scores[1, row].float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["features", "embeddings"])
def test_an_in_shop_run_ranks_pictures_as_the_experiment_did(runs, name):
    e, found, folder = runs[f"inshop {name}"]
    model = load_pair_model(folder, "cpu")
    encoded = model.encode(e.test_pixels)
    ranking = found.rankings[e.parameters.method]
    for row in (0, 3):
        scores = model.scores(encoded[e.queries[row]], encoded[e.gallery])
        torch.testing.assert_close(
            scores.sort(descending=True).values[:3], ranking.scores[row, :3], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(
            scores[ranking.index[row, :3]], ranking.scores[row, :3], atol=1e-5, rtol=1e-5
        )
    assert model.names == inshop_figures.names_of(e)


@pytest.mark.parametrize("name", ["fewshot pan_hybrid", "inshop features"])
def test_concepts_add_up_to_the_similarity(runs, name):
    model = load_pair_model(runs[name][2], "cpu")
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, model.network.head.similarity.concept.in_features, generator=generator)
    concepts, relevance = model.concepts(a, b)
    assert concepts.shape == relevance.shape == (
        len(model.names),
    ) and relevance.sum().item() == pytest.approx(1, abs=1e-5)
    naive = sum(score * weight for score, weight in zip(concepts.tolist(), relevance.tolist()))
    assert model.scores(a, b[None]).item() == pytest.approx(naive, abs=1e-5)
    assert model.scores(a, a.new_empty(0, len(a))).shape == (0,)


def test_a_model_reads_pictures_that_the_run_never_saw(runs, tmp_path):
    from fieldmarks.data.pixels import PixelCache

    colours = [(200, 40, 40), (40, 90, 200), (200, 40, 40)]
    for number, colour in enumerate(colours):
        Image.fromarray(np.full((70 + number, 90, 3), colour, np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    model = load_pair_model(runs["fewshot pan_supervised"][2], "cpu")
    encoded = model.encode(
        PixelCache.open(
            [tmp_path / f"{number}.png" for number in range(3)],
            model.resize,
            folder=tmp_path / "pixels",
        )
    )
    torch.testing.assert_close(encoded[0], encoded[2], atol=1e-4, rtol=1e-4)
    assert (encoded[0] - encoded[1]).abs().max() > 1e-2


def test_what_is_no_finished_pan_run_is_refused_in_one_line(runs, home, tmp_path):
    birds = str(home / "birds")
    others = {
        "is a run of protonet, which has no concepts": go(
            fewshot,
            fewshot.Parameters(
                **FEWSHOT, root=birds, method="protonet", out=str(tmp_path / "protonet")
            ),
        )[2],
        "is a run of multitask, which has no concepts": go(
            fewshot,
            fewshot.Parameters(
                **FEWSHOT, root=birds, method="multitask", out=str(tmp_path / "multitask")
            ),
        )[2],
        "batches sorted by class": go(
            fewshot,
            fewshot.Parameters(
                **FEWSHOT, root=birds, batch_statistics=True, out=str(tmp_path / "statistics")
            ),
        )[2],
        "is a run of the experiment open_set, which does not compare pictures in pairs": home
        / "vapnet",
        "is not a finished run": tmp_path,
        "was made by an earlier version": tmp_path / "old",
    }
    shutil.copytree(runs["fewshot pan_hybrid"][2], tmp_path / "old")
    result = json.loads((tmp_path / "old" / "result.json").read_text())
    del result["attribute_names"]
    (tmp_path / "old" / "result.json").write_text(json.dumps(result))
    for message, folder in others.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_pair_model(folder, "cpu")
        assert "\n" not in str(caught.value)


def test_a_pair_of_experiments_is_not_taken_for_the_other(runs, home):
    with pytest.raises(
        ValueError,
        match="is a run of the experiment fewshot, which gives a picture no embedding of its own",
    ):
        load_model(runs["fewshot pan_supervised"][2], "cpu")
    experiment, after, folder = go(
        hashing,
        hashing.Parameters(
            **SINGLE,
            root=str(home / "birds"),
            bits=12,
            regions=5,
            region_size=8,
            out=str(home / "codes"),
        ),
    )
    assert torch.equal(
        load_model(folder, "cpu").describe(experiment.query_pixels), after.query_codes
    )
    with pytest.raises(ValueError, match="is a run of the experiment hashing"):
        load_pair_model(folder, "cpu")
