"""Data sets by name, official and generated."""

import inspect

import pytest

from fieldguide.birds.guide import make_fieldguide
from fieldguide.garments.wardrobe import make_wardrobe
from fieldmarks.data import catalog
from fieldmarks.data.layouts import aircraft, cars, cub, folder, inshop
from helpers.layout_trees import load


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="no data set 'aircrafts': did you mean 'aircraft'[?]$"):
        catalog.load("aircrafts", tmp_path)
    with pytest.raises(ValueError, match="no data set 'zzzz': there are fieldguide, cub, cars"):
        catalog.load("zzzz", tmp_path)
    with pytest.raises(ValueError, match="no data set 'zzzz'"):
        catalog.load("zzzz")


def test_no_root():
    with pytest.raises(ValueError) as raised:
        catalog.load("cub")
    assert str(raised.value) == (
        "root is empty: give the folder of cub "
        "(only the generated fieldguide and wardrobe need none)"
    )


# ---- generated


TINY = {"classes": 2, "images": 2, "size": 32}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDMARKS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    "name, make", [("fieldguide", make_fieldguide), ("wardrobe", make_wardrobe)]
)
def test_defaults_are_the_generators_own(name, make):
    defaults = {n: p.default for n, p in inspect.signature(make).parameters.items()}
    assert catalog.generated_parameters(name).items() <= defaults.items()
    assert catalog.generated_parameters(name, {}) == catalog.GENERATED[name]


def test_generated_parameters_are_complete():
    assert catalog.generated_parameters("fieldguide", {"seed": 3, "classes": 5}) == {
        "classes": 5,
        "images": 20,
        "size": 224,
        "seed": 3,
        "difficulty": "standard",
    }
    assert catalog.generated_parameters("wardrobe", {"size": 64}) == {
        "items": 600,
        "outfits": 1000,
        "size": 64,
        "seed": 0,
    }
    assert catalog.GENERATED["fieldguide"]["classes"] == 100


@pytest.mark.parametrize(
    "name, generated, message",
    [
        ("fieldguide", {"clases": 6}, "fieldguide has no option 'clases': did you mean 'classes'?"),
        ("wardrobe", {"zzz": 6}, "has no option 'zzz': there are items, outfits, size, seed"),
        ("fieldguide", {"classes": "6"}, "classes is '6': it must be a whole number"),
        ("fieldguide", {"classes": 6.0}, "classes is 6.0: it must be a whole number"),
        ("wardrobe", {"seed": True}, "seed is True: it must be a whole number"),
        ("fieldguide", {"difficulty": 1}, "difficulty is 1: it must be text"),
        ("fieldguide", "6 classes", "generated is '6 classes': it must be options with values"),
        ("cub", {}, "root is empty: give the folder of cub"),
    ],
)
def test_generated_parameters_that_cannot_be(cache, name, generated, message):
    for function in (catalog.generated_parameters, catalog.generate):
        with pytest.raises(ValueError) as raised:
            function(name, generated)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not cache.exists()


def test_generate_draws_once_into_the_cache(cache):
    calls = []
    folder = catalog.generate("fieldguide", TINY, progress=lambda *at: calls.append(at))
    assert folder == cache / "fieldguide-2x2-32px-0-standard-v2" and calls[-1] == (4, 4)
    assert catalog.generate("fieldguide", TINY, progress=pytest.fail) == folder
    images = catalog.load("fieldguide", generated=TINY, progress=pytest.fail)
    assert len(images) == 4 and images.name == "fieldguide" and images.root == folder
    assert images.fingerprint == catalog.load("fieldguide", folder).fingerprint
    other = catalog.generate("fieldguide", TINY | {"seed": 1, "difficulty": "hard"})
    assert other == cache / "fieldguide-2x2-32px-1-hard-v2"


def test_values_out_of_range_are_the_generators_to_refuse(cache):
    with pytest.raises(ValueError, match="classes"):
        catalog.generate("fieldguide", TINY | {"classes": 0})
    with pytest.raises(ValueError, match="difficulty"):
        catalog.generate("fieldguide", TINY | {"difficulty": "easy"})
    assert not cache.exists()


def test_the_wardrobe_has_a_folder_of_its_own(cache, monkeypatch):
    given = []
    monkeypatch.setattr(
        "fieldguide.garments.wardrobe.make_wardrobe",
        lambda folder, **options: given.append(options) or folder,
    )
    options = {"items": 150, "outfits": 200, "size": 32, "seed": 7}
    assert catalog.generate("wardrobe", options) == cache / "wardrobe-150x200-32px-7-v2"
    assert given == [options | {"progress": None}]


# ---- official


def test_a_partial_copy_says_how_much_there_is(cub_root):
    with pytest.warns(UserWarning) as said:
        catalog.load("cub", cub_root)
    assert [str(warning.message) for warning in said] == [
        "cub: a partial copy, 3 of 200 classes, 5 of 11,788 images"
    ]
    assert said[0].filename == __file__


def test_layouts_take_text_and_relative_folders(cub_root, monkeypatch):
    monkeypatch.chdir(cub_root.parent)
    assert load("cub", "CUB_200_2011").paths[0].is_absolute()
    assert {
        layout.load.__module__.rsplit(".", 1)[1] for layout in (cub, cars, aircraft, inshop, folder)
    } == {"cub", "cars", "aircraft", "inshop", "folder"}
