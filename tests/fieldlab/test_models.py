import numpy as np
import pytest
import torch
from PIL import Image

from fieldguide.birds.guide import make_fieldguide
from fieldguide.garments.wardrobe import make_wardrobe
from fieldlab.models import load_model, load_pair_model
from fieldmarks.data.pixels import PixelCache
from fieldmarks.experiments.fewshot import FewShot
from fieldmarks.experiments.hashing import Hashing
from fieldmarks.experiments.inshop import InShop
from fieldmarks.experiments.open_set import OpenSet
from fieldmarks.experiments.outfits import OutfitMatching
from fieldmarks.show.names import readable_attribute
from helpers.experiments import run

PAN = {
    "backbone": "resnet10t",
    "weights": "none",
    "hidden": (8,),
    "free": 3,
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


def go(cls, **parameters):
    """Run an experiment from end to end; returns it, its scores and its folder."""
    experiment, history, scores = run(cls(cls.Parameters(**parameters)))
    experiment.finish(history, scores)
    return experiment, scores, experiment.folder


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARKS_CACHE", str(folder / "cache"))
        make_fieldguide(folder / "birds", classes=8, images=4, size=64, seed=0)
        make_wardrobe(folder / "wardrobe", outfits=200, items=150, shots=2, size=40, seed=0)
        yield folder


@pytest.fixture(scope="module")
def runs(home):
    """Finished runs of PAN: title -> (experiment, scores, folder)."""
    birds, garments = str(home / "birds"), str(home / "wardrobe")
    made = {
        f"fewshot {method}": go(
            FewShot, **FEWSHOT, **more, root=birds, method=method, out=str(home / method)
        )
        for method, more in (
            ("pan_supervised", {}),
            ("pan_hybrid", {"encoder": "none"}),
            ("pan_unsupervised", {}),
        )
    }
    vapnet = go(OpenSet, **SINGLE, root=birds, grids=(2,), out=str(home / "vapnet"))[2]
    for name, more in (
        ("features", {}),
        ("embeddings", {"embedding": str(vapnet), "method": "pan_hybrid"}),
    ):
        title = f"inshop {name}"
        made[title] = go(InShop, **INSHOP, **more, root=garments, out=str(home / title))
    return made


@pytest.mark.parametrize("method", ["pan_supervised", "pan_hybrid", "pan_unsupervised"])
def test_a_few_shot_run_compares_pictures_as_the_experiment_did(runs, method):
    e, result, folder = runs[f"fewshot {method}"]
    model = load_pair_model(folder, "cpu")
    encoded = model.encode(e.novel.pixels)
    with torch.no_grad():
        expected = e.method.encode(e.novel.features)
        torch.testing.assert_close(encoded, expected, atol=1e-5, rtol=1e-5)
        images = e.novel_images([0, 5])
        pooled = e.backbone.eval()(images).mean((-2, -1))
        found_features, expected = model.representation(images), e.method.standardise(pooled)
        torch.testing.assert_close(found_features, expected, atol=1e-4, rtol=1e-4)
    attributes = [] if method == "pan_unsupervised" else e.novel.images.attribute_names
    attributes = [readable_attribute(name) for name in attributes]
    free = [] if method == "pan_supervised" else ["concept 1", "concept 2", "concept 3"]
    assert model.names == [*attributes, *free]
    assert model.resize == 64 and model.run == folder
    # Sec. 3: the score of a query with a class is its mean similarity with the supports.
    support, query = (part[1] for part in e.episodes)
    for row, picture in enumerate(query.flatten().tolist()):
        scores = model.scores(encoded[picture], encoded[support.flatten()])
        scores = scores.view(support.shape).mean(1)
        expected = result.saved["class_scores"][1, row].float()
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["features", "embeddings"])
def test_an_in_shop_run_ranks_pictures_as_the_experiment_did(runs, name):
    e, result, folder = runs[f"inshop {name}"]
    model = load_pair_model(folder, "cpu")
    encoded = model.encode(e.test_pixels)
    for row in (0, 3):
        scores = model.scores(encoded[e.queries[row]], encoded[e.gallery])
        expected, best = result.results.scores[row, :3], result.results.index[row, :3]
        ranked = scores.sort(descending=True).values[:3]
        torch.testing.assert_close(ranked, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scores[best], expected, atol=1e-5, rtol=1e-5)
    free = ["concept 1", "concept 2", "concept 3"] if name == "embeddings" else []
    assert model.names == [*map(readable_attribute, e.test_set.attribute_names), *free]


@pytest.mark.parametrize("name", ["fewshot pan_hybrid", "inshop features"])
def test_concepts_add_up_to_the_similarity(runs, name):
    model = load_pair_model(runs[name][2], "cpu")
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, model.network.head.similarity.concept.in_features, generator=generator)
    concepts, relevance = model.concepts(a, b)
    assert concepts.shape == relevance.shape == (len(model.names),)
    assert relevance.sum().item() == pytest.approx(1, abs=1e-5)
    naive = sum(score * weight for score, weight in zip(concepts, relevance, strict=True)).item()
    assert model.scores(a, b[None]).item() == pytest.approx(naive, abs=1e-5)
    assert model.scores(a, a.new_empty(0, len(a))).shape == (0,)


def test_a_model_reads_pictures_that_the_run_never_saw(runs, tmp_path):
    colours = [(200, 40, 40), (40, 90, 200), (200, 40, 40)]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, (file, colour) in enumerate(zip(files, colours, strict=True)):
        Image.fromarray(np.full((70 + number, 90, 3), colour, np.uint8)).save(file)
    model = load_pair_model(runs["fewshot pan_supervised"][2], "cpu")
    encoded = model.encode(PixelCache.open(files, model.resize, folder=tmp_path / "pixels"))
    torch.testing.assert_close(encoded[0], encoded[2], atol=1e-4, rtol=1e-4)
    assert (encoded[0] - encoded[1]).abs().max() > 1e-2


def test_pairs_are_compared_in_full_precision_whatever_the_network_computes_in(home, tmp_path):
    """As the experiment does: bf16 is for the backbone alone."""
    given = {**FEWSHOT, "precision": "bf16", "root": str(home / "birds"), "out": str(tmp_path)}
    e, _, folder = go(FewShot, **given)
    model = load_pair_model(folder, "cpu")
    assert model.precision == "bf16"
    with torch.no_grad():
        expected = e.method.encode(e.novel.features)
    torch.testing.assert_close(model.encode(e.novel.pixels), expected, atol=1e-5, rtol=1e-5)


def test_what_is_no_finished_pan_run_is_refused_in_one_line(runs, home, tmp_path):
    def fewshot(name, **more):
        given = {**FEWSHOT, "root": str(home / "birds"), "out": str(tmp_path / name), **more}
        return go(FewShot, **given)[2]

    garments = {**PAN, "resize": 32, "size": 32, "root": str(home / "wardrobe")}
    others = {
        "is a run of protonet, which has no concepts": fewshot("protonet", method="protonet"),
        "is a run of multitask, which has no concepts": fewshot("multitask", method="multitask"),
        "batches sorted by class": fewshot("statistics", batch_statistics=True),
        "is a run of the experiment open_set, which does not compare pictures in pairs": home
        / "vapnet",
        "is a run of the experiment outfits, which does not compare pictures in pairs": go(
            OutfitMatching, **garments, out=str(tmp_path / "outfits")
        )[2],
        "is not a finished run": tmp_path,
    }
    for message, folder in others.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_pair_model(folder, "cpu")
        assert "\n" not in str(caught.value)


def test_a_pair_of_experiments_is_not_taken_for_the_other(runs, home):
    message = "is a run of the experiment fewshot, which gives a picture no embedding of its own"
    with pytest.raises(ValueError, match=message):
        load_model(runs["fewshot pan_supervised"][2], "cpu")
    options = {"bits": 12, "regions": 5, "region_size": 8, "out": str(home / "codes")}
    experiment, scores, folder = go(Hashing, **SINGLE, **options, root=str(home / "birds"))
    model = load_model(folder, "cpu")
    codes = model.embed(experiment.query_pixels)
    assert model.bits == 12 and torch.equal(codes, scores.saved["query_codes"].float())
    with pytest.raises(ValueError, match="is a run of the experiment hashing"):
        load_pair_model(folder, "cpu")
    vapnet = load_model(home / "vapnet", "cpu")
    assert vapnet.bits == 0 and vapnet.resize == 64 and vapnet.views.size == 48
    assert vapnet.identity.startswith("vapnet (L_a + mean L_c) ")
