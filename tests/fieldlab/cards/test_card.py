from pathlib import Path

import pytest

from fieldlab.cards.card import load_card, read_value
from fieldlab.cards.notebook import fingerprint, parameters_cell
from fieldlab.sweep.plan import plan

CARDS = sorted((Path(__file__).parents[3] / "labs").rglob("*.yaml"))
NEAR = {"text": "As good", "metric": "recall@1", "row": "one + two", "within": 0.003, "of": "one"}


def complaint(lab, text: str | None = None) -> str:
    """The message about the lab's card, one line, without the card's name, which comes first."""
    file = lab.write(text)
    with pytest.raises(ValueError) as error:
        load_card(file)
    message = str(error.value)
    assert message.startswith(f"{file}:") and "\n" not in message
    return message.removeprefix(f"{file}:").strip()


def put(tree: dict, path: str, value) -> None:
    *above, last = path.split("/")
    for key in above:
        tree = tree[int(key)] if isinstance(tree, list) else tree.setdefault(key, {})
    tree[last] = value


# ---- the shipped cards


@pytest.mark.parametrize("file", CARDS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_shipped_cards_are_sound(file, tmp_path):
    card = load_card(file)
    assert {"paper", "demo", "smoke"} <= set(card.profiles) and (
        card.claims or file.stem.startswith("figure")
    )
    for profile in card.profiles:
        roots = [f"root.{name}={tmp_path}" for name in card.profiles[profile].datasets]
        runs = plan(card, profile, tmp_path / "out", roots)
        assert len({run.folder for run in runs}) == len(runs) and not (tmp_path / "out").exists()


def test_table_1_of_vapnet():  # its numbers: tests/papers
    card = load_card(next(file for file in CARDS if file.match("vapnet/table1.yaml")))
    assert (
        card.profiles["paper"].parameters["lr"] == 1e-5
        and card.profiles["recipe"].parameters["views"] == 4
    )


# ---- reading


def test_a_card_as_it_is_read(lab):
    card = load_card(lab.write())
    assert (
        card.name == "paper-table1"
        and card.metric == "recall@1"
        and card.datasets == ["cub", "cars", "fieldguide"]
    )
    assert card.notebook_file == lab.notebook and card.seeds == [0]
    assert (
        card.defaults["steps"] == -1
        and card.defaults["flag"] is True
        and card.defaults["grids"] == (2, 4)
    )
    with pytest.raises(Exception, match="frozen"):
        card.title = "another"


def test_rows_that_are_not_run_stand_where_the_paper_has_them_and_are_never_planned(lab):
    printed = {"cub": {"recall@1": 0.5}}
    lab.card["published"] = {"first": printed, "one": printed, "a": printed, "b": printed}
    lab.card["not_run"] = ["b", "a", "first"]
    card = load_card(lab.write())
    assert card.rows == ["first", "one", "a", "b", "one + two"]
    runs = plan(card, "demo", lab.folder / "out")
    assert {run.row for run in runs} == {"one", "one + two"}


def test_a_published_time_is_no_fraction(lab):
    lab.card["published"]["one"]["cub"]["ms_per_image"] = 21.1
    assert load_card(lab.write()).published["one"]["cub"]["ms_per_image"] == 21.1
    lab.card["published"]["one"]["cub"]["ms_per_image"] = -1.0
    assert complaint(lab).startswith("published.one.cub.ms_per_image: it must be")


def test_the_two_rows_of_a_claim(lab):
    lab.card["claims"].append(NEAR)
    more, near = load_card(lab.write()).claims
    assert (more.rows, more.within) == (("one + two", "one"), None) and (
        near.rows,
        near.within,
    ) == (("one + two", "one"), 0.003)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-5", 1e-5),
        ("-2.5E+3", -2500.0),
        ("1.0e-05", 1e-5),
        (".5e1", 5.0),
        ("3", 3),
        ("true", True),
        ("[1, 2e-1]", [1, 0.2]),
        ("none", "none"),
        ("1e", "1e"),
        ("e5", "e5"),
        ("", None),
    ],
)
def test_values_are_what_they_look_like(text, value):
    assert read_value(text) == value and type(read_value(text)) is type(value)


def test_a_value_that_is_no_yaml():
    with pytest.raises(ValueError, match=r"'\[1,' cannot be read as a number"):
        read_value("[1,")


def test_combinations_are_checked_in_the_rows_and_profiles_that_are_run(lab):
    lab.card["grid"] = {"one": {"steps": 1}, "many": {"steps": 2000}}
    lab.card |= {"published": {}, "claims": [], "parameters": {"flag": False}}
    assert complaint(lab).startswith("profile paper: row many: steps is 2000")
    for profile in lab.card["profiles"].values():
        profile["only"] = ["one"]
    card = load_card(lab.write())
    with pytest.raises(ValueError, match="^profile demo: row one: steps is 2000: it must be"):
        card.check_run("demo", "one", {"steps": 2000, "flag": False})


def test_the_fingerprint_is_that_of_code_and_text_not_of_outputs(lab):
    before = fingerprint(lab.notebook)
    text = lab.notebook.read_text()
    lab.notebook.write_text(
        text.replace('"outputs": []', '"outputs": [{"output_type": "stream", "text": "x"}]')
    )
    assert fingerprint(lab.notebook) == before
    lab.notebook.write_text(text.replace("lr = 0.1", "lr = 0.2"))
    assert fingerprint(lab.notebook) != before


# ---- mistakes


@pytest.mark.parametrize(
    "path, value, expected",
    [
        ("titel", "x", "unknown key 'titel': did you mean 'title'?"),
        ("file", "x", "unknown key 'file': did you mean 'title'?"),
        ("profiles/demo/sed", [1], "unknown key 'profiles.demo.sed': did you mean 'seeds'?"),
        ("claims/0/hihger", "one", "unknown key 'claims.0.hihger': did you mean 'higher'?"),
        ("paper", 3, "paper: it must be text (in quotes where it looks like a number), not 3"),
        ("seeds", ["a"], "seeds.0: it must be a whole number, not 'a'"),
        ("seeds", [], "seeds: it must not be empty, not []"),
        ("seeds", [0, 1, 0], "seeds: 0 is there twice"),
        ("grid", {}, "grid: it must not be empty, not {}"),
        ("tune", {}, "'tune.space' is missing"),
        (
            "tune",
            {"space": {"lr": {"low": 1, "high": 2}}, "metrc": "recall@1"},
            "unknown key 'tune.metrc': did you mean 'metric'?",
        ),
        ("tune/space", {}, "tune.space: it must not be empty, not {}"),
        (
            "tune/space/lr",
            {"low": 1, "hihg": 2},
            "unknown key 'tune.space.lr.hihg': did you mean 'high'?",
        ),
        (
            "tune/space/lrr",
            {"low": 1, "high": 2},
            "tune.space.lrr: unknown parameter 'lrr': did you mean 'lr'?",
        ),
        (
            "tune/space/seed",
            {"low": 1, "high": 2},
            "tune.space.seed: it cannot be searched: give seeds",
        ),
        (
            "tune/space/lr",
            {"low": 0.1, "high": 0.1},
            "tune.space.lr: low is 0.1 and high is 0.1: low must be below high",
        ),
        (
            "tune/space/lr",
            {"low": 0.2, "high": 0.1},
            "tune.space.lr: low is 0.2 and high is 0.1: low must be below high",
        ),
        (
            "tune/space/lr",
            {"low": "a", "high": 1},
            "tune.space.lr: low and high must be numbers, not 'a'",
        ),
        (
            "tune/space/lr",
            {"low": 0, "high": 1, "log": True},
            "tune.space.lr: low is 0: with log it must be above 0",
        ),
        (
            "tune/space/lr",
            {"low": 1},
            "tune.space.lr: it has low: give either low and high, or choices",
        ),
        (
            "tune/space/lr",
            {"low": 1, "high": 2, "choices": [1, 2]},
            "tune.space.lr: it has low, high, choices: give either low and high, or choices",
        ),
        (
            "tune/space/lr",
            {"choices": [0.1]},
            "tune.space.lr: choices is [0.1]: give two or more different values",
        ),
        (
            "tune/space/lr",
            {"choices": [0.1, "x"]},
            "tune.space.lr: parameter 'lr' is 'x': it must be a number",
        ),
        (
            "tune/space/flag",
            {"low": 0, "high": 1},
            "tune.space.flag: parameter 'flag' is 0: it must be true or false",
        ),
        (
            "tune/space/steps",
            {"low": 1, "high": 9},
            "tune.space.steps: every row fixes it: leave it out here, or there",
        ),
        ("grid/one", 3, "grid.one: it must be a mapping (name: value), not 3"),
        ("grid/one", {"stesp": 3}, "grid.one: unknown parameter 'stesp': did you mean 'steps'?"),
        (
            "grid/one",
            {"steps": 1.5},
            "grid.one: parameter 'steps' is 1.5: it must be a whole number",
        ),
        (
            "grid/one",
            {"steps": True},
            "grid.one: parameter 'steps' is True: it must be a whole number",
        ),
        ("grid/one", {"lr": "fast"}, "grid.one: parameter 'lr' is 'fast': it must be a number"),
        ("grid/one", {"lr": float("nan")}, "grid.one: parameter 'lr' is nan: it must be a number"),
        ("grid/one", {"flag": 1}, "grid.one: parameter 'flag' is 1: it must be true or false"),
        ("grid/one", {"behaviour": 1}, "grid.one: parameter 'behaviour' is 1: it must be text"),
        (
            "grid/one",
            {"grids": 2},
            "grid.one: parameter 'grids' is 2: it must be a list of numbers",
        ),
        (
            "grid/one",
            {"grids": [2, 0.5]},
            "grid.one: parameter 'grids' is [2, 0.5]: it must be a list of numbers",
        ),
        ("grid/one", {"out": "x"}, "grid.one: 'out' cannot be given here: the runner sets it"),
        ("parameters", {"seed": 3}, "parameters: 'seed' cannot be given here: give seeds"),
        (
            "parameters",
            {"dataset": "cub"},
            "parameters: 'dataset' cannot be given here: give datasets",
        ),
        (
            "profiles/demo/parameters",
            {"lrr": 1},
            "profiles.demo.parameters: unknown parameter 'lrr': did you mean 'lr'?",
        ),
        (
            "profiles/demo/datasets",
            {"cub": {"lr": "x"}},
            "profiles.demo.datasets.cub: parameter 'lr' is 'x': it must be a number",
        ),
        (
            "profiles/demo/datasets",
            "cub",
            "profiles.demo.datasets: it must be a mapping (name: value), not 'cub'",
        ),
        (
            "profiles/demo/grid",
            {"one": {"lr": "x"}},
            "profiles.demo.grid.one: parameter 'lr' is 'x': it must be a number",
        ),
        (
            "profiles/demo/grid",
            {"won": {}},
            "profiles.demo.grid: there is no row 'won': did you mean 'one'?",
        ),
        (
            "profiles/demo/only",
            ["on"],
            "profiles.demo.only: there is no row 'on': did you mean 'one'?",
        ),
        ("profiles/demo/only", ["one", "one"], "profiles.demo.only: 'one' is there twice"),
        (
            "published/three",
            {"cub": {"recall@1": 0.5}},
            "published: there is no row 'three': there are one, one + two",
        ),
        (
            "published/one",
            {"cub": {"recall@1": 69.5}},
            "published.one.cub.recall@1: it must be a fraction, as 0.695 for 69.5 %, not 69.5",
        ),
        (
            "published/one",
            {"cab": {"recall@1": 0.5}},
            "published.one: there is no data set 'cab': did you mean 'cub'?",
        ),
        ("not_run", ["tree"], "not_run: there is no published row 'tree': there are one"),
        ("not_run", ["one"], "not_run: the grid has a row 'one'"),
        ("claims/0/higher", "two", "claims.0: there is no row 'two': did you mean 'one + two'?"),
        (
            "claims/0/metric",
            "recall",
            "claims.0.metric: there is no published metric 'recall': did you mean 'recall@1'?",
        ),
        (
            "claims/0/datasets",
            ["cubs"],
            "claims.0.datasets: there is no data set 'cubs': did you mean 'cub'?",
        ),
        ("claims/0/lower", "one + two", "claims.0: higher and lower are the same row"),
        (
            "claims/0/lower",
            None,
            "claims.0: it has higher: give either higher and lower, or row, within and of",
        ),
        (
            "claims/0/of",
            "one",
            "claims.0: it has higher, lower, of: "
            "give either higher and lower, or row, within and of",
        ),
        (
            "claims",
            [{"text": "x", "metric": "recall@1"}],
            "claims.0: it has no rows: give either higher and lower, or row, within and of",
        ),
        (
            "claims",
            [NEAR | {"of": "onne"}],
            "claims.0: there is no row 'onne': did you mean 'one'?",
        ),
        ("claims", [NEAR | {"row": "one"}], "claims.0: row and of are the same row"),
        (
            "claims",
            [NEAR | {"metric": "mAP"}],
            "claims.0.metric: there is no published metric 'mAP': there are recall@1",
        ),
        (
            "claims",
            [NEAR | {"within": 3}],
            "claims.0.within: it must be a fraction, as 0.695 for 69.5 %, not 3",
        ),
        ("claims", [NEAR | {"within": -0.1}], "claims.0.within: it must be above 0, not -0.1"),
        ("claims", [NEAR | {"within": 0}], "claims.0.within: it must be above 0, not 0"),
        (
            "claims",
            [NEAR | {"within": "little"}],
            "claims.0.within: it must be a number, not 'little'",
        ),
        (
            "experiment",
            "open_sett",
            "experiment: there is no experiment 'open_sett': "
            "No module named 'fieldmarks.experiments.open_sett'",
        ),
        (
            "experiment",
            "helpers.sweeping",
            "experiment: the module 'helpers.sweeping' holds no experiment "
            "(a subclass of Experiment)",
        ),
        ("grid/one", {"generated": 3}, "grid.one: parameter 'generated' is 3: it must be dict"),
        (
            "profiles/demo/grid",
            {"one": {"flag": False, "steps": 2000}},
            "profile demo: row one: steps is 2000: it must be at most 1000 without flag",
        ),
        (
            "notebook",
            "notebooks/wrok.ipynb",
            "notebook: there is no 'notebooks/wrok.ipynb': did you mean 'notebooks/work.ipynb'?",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(lab, path, value, expected):
    put(lab.card, path, value)
    assert complaint(lab) == expected


@pytest.mark.parametrize(
    "key", ["title", "paper", "table", "notebook", "experiment", "grid", "profiles"]
)
def test_a_missing_key(lab, key):
    del lab.card[key]
    assert complaint(lab) == f"'{key}' is missing"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("title: x\ngrid: {a: 1\n", "3: expected ',' or '}', but got '<stream end>'"),
        ("title: x\ntitle: y\n", "2: 'title' is there twice"),
        ("grid:\n  a: {}\n  b: {}\n  a: {}\n", "4: 'a' is there twice"),
        ("a: !!python/object:os.system {}\n", "1: could not determine a constructor for the tag"),
        ("- a\n", "a card is a mapping with the keys title, paper, table, notebook"),
        ("", "a card is a mapping"),
    ],
)
def test_yaml_that_is_no_card(lab, text, expected):
    assert complaint(lab, text).startswith(expected)


def test_a_card_that_is_not_there(lab):
    file = lab.write()
    with pytest.raises(
        ValueError, match="there is no card '.*/tabel1.yaml': did you mean '.*/table1.yaml'"
    ):
        load_card(file.with_name("tabel1.yaml"))
    with pytest.raises(ValueError, match="the card .* cannot be read"):
        load_card(file.parent)


def test_a_notebook_that_will_not_do(lab):
    lab.write_notebook(lab.notebook, "lr = 1", tags=())
    assert 'has no cell tagged "parameters"' in complaint(lab)
    lab.notebook.write_text("{")
    assert "is not a readable notebook" in complaint(lab)
    with pytest.raises(ValueError, match="is not a readable notebook"):
        parameters_cell(lab.folder / "absent.ipynb")


def test_a_row_or_its_profile_takes_a_parameter_out_of_the_search(lab):
    lab.card["grid"]["one"]["lr"] = 0.1
    lab.card["profiles"]["demo"]["grid"] = {"one + two": {"flag": False}}
    choice, low = {"choices": [True, False]}, {"low": 0.1, "high": 1}
    lab.card["tune"] = {"space": {"lr": low, "flag": choice}}
    card = load_card(lab.write())
    assert list(card.searched("demo", "one")) == ["flag"]
    assert list(card.searched("demo", "one + two")) == ["lr"]
    assert list(card.searched("paper", "one + two")) == ["lr", "flag"]


def test_searched_values_must_go_with_each_row(lab):
    lab.card["profiles"]["demo"]["parameters"]["steps"] = 1
    lab.card["grid"] = {"one": {"steps": 2000}, "one + two": {"flag": True}}
    lab.card["tune"] = {"space": {"flag": {"choices": [True, False]}}}
    assert complaint(lab).endswith("steps is 2000: it must be at most 1000 without flag")
