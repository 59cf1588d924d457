import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fieldlab.cards.card import load_card
from fieldlab.cards.finished import find_card, find_results
from fieldlab.cards.setting import compare
from fieldlab.cli import main
from fieldlab.report import page as report_page
from fieldlab.report.report import gather, write_report
from fieldlab.report.tables import arrange, row_of
from fieldlab.report.wording import Cell, bounds, cells, cells_not_run, other_cells, percent, points
from fieldmarks.experiments.result import read_result, write_result
from helpers.full_disk import FULL_DISKS
from helpers.runs import bare, make_run


@pytest.fixture
def runs_of(lab):
    """A folder for runs, below which the lab's card is found."""
    lab.write()
    return lab.folder / "out"


def tables(lab, *runs):
    return arrange(runs, {"paper-table1": load_card(lab.write())})


def shown(table) -> dict[str, list[str]]:
    """The text of each row's cells, by its name."""
    return {name.text: [cell.text for cell in others] for name, *others in cells(table)[1]}


# ---- which runs stand in which row of which table


def test_a_run_belongs_to_the_row_whose_parameters_it_has_and_to_the_closest_of_several(lab):
    lab.card["grid"] = {
        "plain": {"steps": 1},
        "flagged": {"steps": 1, "flag": False},
        "other": {"steps": 3},
    }
    lab.card["published"], lab.card["claims"] = {}, []
    card = load_card(lab.write())
    assert [
        row_of(card, bare(steps=steps, flag=flag))
        for steps, flag in ((1, True), (1, False), (3, False), (2, True))
    ] == ["plain", "flagged", "other", None]


def test_rows_stand_in_the_cards_order_with_those_of_the_paper_that_were_not_run(lab):
    lab.card["grid"]["three"] = {"steps": 3}
    lab.card["published"] |= {"three": {"cub": {"recall@1": 0.75}, "cars": {"recall@1": 0.9}}}
    (table,) = tables(lab, bare("one + two", dataset="cub"), bare("one", dataset="cub"))
    assert [(row.name, len(row.runs)) for row in table.rows] == [
        ("one", 1),
        ("one + two", 1),
        ("three", 0),
    ]
    assert table.rows[2].published == {"cub": {"recall@1": 0.75}}
    heads, rows = cells(table)
    assert heads == [
        Cell("row"),
        Cell("recall@1", "published"),
        Cell("recall@1", "measured"),
        Cell("recall@1", "difference"),
        Cell("interval over"),
    ]
    assert rows == [
        [
            Cell("one"),
            Cell("69.5", printed=True),
            Cell("50.0", "[40.0, 60.0]"),
            Cell("−19.5"),
            Cell("queries, seed 0"),
        ],
        [
            Cell("one + two"),
            Cell("–", printed=True),
            Cell("50.0", "[40.0, 60.0]"),
            Cell("–"),
            Cell("queries, seed 0"),
        ],
        [
            Cell("three", printed=True),
            Cell("75.0", printed=True),
            Cell("–"),
            Cell("–"),
            Cell("not run"),
        ],
    ]
    assert cells_not_run(table)[1] == []


def rows_of_others(lab) -> None:
    """Give the card a method that only the paper has, and numbers that no run gives."""
    published = lab.card["published"]
    published["one"]["cub"]["recall@1 ±"] = 0.002
    published["other"] = {"cub": {"recall@1": 0.7, "ms_per_image": 21.12}}
    published["one + two"] = {"cub": {"recall@1": 0.75}}
    lab.card["not_run"] = ["other"]


def test_rows_that_only_the_paper_has_stand_in_their_place_and_say_so(lab):
    rows_of_others(lab)
    runs = [bare(row, dataset="cub", seed=seed) for row in ("one", "one + two") for seed in (0, 1)]
    for run, value in zip(runs, (3.0, 5.0, 4.0, 4.0), strict=True):
        run.result["timing"] = {"train_seconds": 9.0, "ms_per_image": value}
    (table,) = tables(lab, *runs)
    heads, (one, other, both) = cells(table)
    assert [tuple(head)[:2] for head in heads] == [
        ("row", ""),
        ("recall@1", "published"),
        ("recall@1", "measured"),
        ("recall@1", "difference"),
        ("ms_per_image", "published"),
        ("ms_per_image", "measured"),  # of another machine: no difference
        ("recall@1 ±", "published"),
        ("interval over", ""),
    ]
    assert [cell.text for cell in one[1:]] == "69.5 50.0 −19.5 – 4.0 0.2".split() + ["seeds 0, 1"]
    assert one[5].under == "[−8.7, 16.7]"
    assert other[0] == Cell("other", printed=True)
    assert [cell.text for cell in other[1:]] == "70.0 – – 21.1 – –".split() + ["published only"]
    assert [cell.text for cell in both[1:5]] == "75.0 50.0 −25.0 –".split()


def test_claims_and_counts_know_nothing_of_rows_that_only_the_paper_has(lab, runs_of):
    rows_of_others(lab)
    lab.write()
    make_run(runs_of / "a", noise=3.0)
    make_run(runs_of / "b", "one + two", noise=0.1)
    part = gather(runs_of).parts[0]
    assert [verdict.word for verdict in part.verdicts] == ["supported"]
    assert part.setting.differences.keys() == {"Data", "Parameters"}  # "Rows" are those of no card
    assert cells_not_run(part.table)[1][0][0] == Cell("other", "published only", printed=True)
    text, plain = (file.read_text() for file in write_report(gather(runs_of)))
    assert "| *other* <small>published only</small> |" in plain
    assert '<th scope="row"><em>other</em> <small>published only</small></th>' in text


def test_on_other_data_published_numbers_stand_apart_and_nothing_is_subtracted(lab):
    lab.card["published"] |= {"one + two": {"cub": {"recall@1": 0.75}}}
    (table,) = tables(lab, bare("one"))
    heads, rows = cells(table)
    assert heads == [
        Cell("row"),
        Cell("recall@1"),
        Cell("interval over"),
        Cell("recall@1", "published on cub", True),
    ]
    assert rows == [
        [
            Cell("one"),
            Cell("50.0", "[40.0, 60.0]"),
            Cell("queries, seed 0"),
            Cell("69.5", printed=True),
        ]
    ]
    assert cells_not_run(table) == (
        [Cell("row"), Cell("recall@1", "published on cub", True)],
        [[Cell("one + two", printed=True), Cell("75.0", printed=True)]],
    )


def test_seeds_make_one_row_with_students_interval(lab):
    (table,) = tables(
        lab,
        *(
            bare("one", {"recall@1": value, "map": 0.5}, seed)
            for seed, value in enumerate((0.5, 0.56, 0.53))
        ),
    )
    found = table.rows[0].measured("recall@1")
    half = 4.302652729911275 * 0.03 / 3**0.5
    assert (found.mean, *found.interval) == pytest.approx(
        (0.53, 0.53 - half, 0.53 + half)
    ) and found.over == "seeds"
    assert shown(table)["one"] == ["53.0", "seeds 0, 1, 2", "69.5"]
    heads, rows = other_cells(table)  # the card's paper says nothing of map
    assert [head.text for head in heads] == ["row", "map"] and [
        [cell.text for cell in row] for row in rows
    ] == [["one", "50.0"]]
    assert (
        table.rows[0].measured("map").over == ""
    )  # no interval was written for it, and all seeds agree
    assert table.rows[0].measured("absent") is None


def test_numbers_from_different_data_settings_or_cards_never_stand_in_one_table(lab):
    other = bare(seed=1)
    other.result["data_fingerprint"] = "other"
    found = tables(
        lab,
        bare(),
        bare(seed=1, name="b"),
        other,
        bare(dataset="cub"),
        bare(lr=0.4),
        bare(seed=2, name="c"),
    )
    assert [[run.seed for run in table.runs] for table in found] == [[0, 1, 2], [1], [0], [0]]


def test_the_same_seed_twice_is_not_two_seeds(lab):
    (table,) = tables(
        lab,
        bare(metrics={"recall@1": 0.1}, name="early"),
        bare(metrics={"recall@1": 0.2}, name="late"),
    )
    assert [run.folder.name for run in table.runs] == ["late"] and [
        run.folder.name for run in table.superseded
    ] == ["early"]
    assert table.rows[0].measured("recall@1").over == "queries"


def test_rows_of_one_name_tell_what_they_differ_in(lab):
    lab.card["profiles"]["demo"]["grid"] = {"one": {"lr": 0.2, "grids": [2]}}
    (table,) = tables(lab, bare(lr=0.2), bare(lr=0.3, grids=[2, 8]), bare(steps=9))
    assert [row.title for row in table.rows] == [
        "one (lr 0.2, grids [2, 4])",
        "one (lr 0.3, grids [2, 8])",
        "method one",
    ]
    assert [row.of_card for row in table.rows] == [True, True, False]


def test_runs_without_a_card_stand_together_each_setting_in_a_row(lab):
    found = arrange([bare(lr=0.1), bare(lr=0.1, seed=1), bare(lr=0.2)], {})
    assert [[(row.title, row.seeds) for row in table.rows] for table in found] == [
        [("method one (lr 0.1)", [0, 1]), ("method one (lr 0.2)", [0])]
    ]


def test_before_training_where_all_runs_started_alike(lab):
    runs = [bare(), bare("one + two")]
    for run in runs:
        run.result["start"] = {"recall@1": 0.1}
    assert shown(tables(lab, *runs)[0])["before training"] == ["10.0", "", "–"]
    runs[1].result["start"] = {"recall@1": 0.2}
    assert "before training" not in shown(tables(lab, *runs)[0])


# ---- the paper's setting


def test_what_differs_from_the_paper_is_found_in_every_parameter(lab):
    setting = compare(tables(lab, bare(), bare("one + two"))[0])
    assert not setting.is_papers and setting.differences == {
        "Data": [("dataset", "fieldguide, drawn by this program", "cub, cars")],
        "Parameters": [("lr", "0.5", "0.1")],
    }


def test_headings_of_the_parameters_cell_order_the_differences(lab):
    source = (
        lab.notebook.read_text()
        .replace('dataset = \\"fieldguide\\"', '# Data\\ndataset = \\"fieldguide\\"')
        .replace("lr = 0.1", "\\n# Training\\nlr = 0.1")
    )
    lab.notebook.write_text(source)
    assert list(compare(tables(lab, bare())[0]).differences) == ["Data", "Training"]


def test_rows_are_held_against_the_same_row_of_the_paper(lab):
    lab.card["profiles"]["paper"] = {
        "datasets": {"cub": {"lr": 0.5}},
        "grid": {"one + two": {"grids": [1]}},
        "note": "As printed",
    }
    del lab.card["published"]["one"]["cub"]
    setting = compare(tables(lab, bare(dataset="cub"), bare("one + two", dataset="cub"))[0])
    assert (
        setting.differences["Parameters"] == [("grids", "[2, 4]", "[2, 4] or [1]")]
        and setting.note == "As printed"
    )


def cub_run(images, **changes):
    run = bare(dataset="cub", lr=0.1, split="open", **changes)
    run.result["counts"]["train"] = images
    return run


def test_the_papers_own_setting_says_so_but_not_on_a_part_of_the_data(lab):
    assert compare(tables(lab, cub_run(5_864))[0]).is_papers
    setting = compare(tables(lab, cub_run(1_402))[0])
    assert not setting.is_papers and setting.differences == {
        "Data": [("training images", "1,402, a part of cub", "5,864")]
    }


def test_a_run_like_no_row_is_not_in_the_papers_setting(lab):
    setting = compare(tables(lab, cub_run(5_864), cub_run(5_864, steps=9))[0])
    assert setting.differences == {"Rows": [("row", "method one", "has none like it")]}


def test_without_a_card_or_its_paper_there_is_nothing_to_compare_with(lab):
    assert not compare(arrange([bare()], {})[0]).known
    lab.card["profiles"] = {"demo": lab.card["profiles"]["demo"]}
    lab.card["published"] = {}
    assert not compare(tables(lab, bare())[0]).known


# ---- the files


def test_a_page_and_markdown_say_what_was_measured_on_what_and_what_it_means(runs_of):
    make_run(runs_of / "a", noise=3.0)
    make_run(runs_of / "b", "one + two", noise=0.1)
    page, markdown = write_report(gather(runs_of))
    assert (page, markdown) == (runs_of / "report.html", runs_of / "report.md")
    text, plain = page.read_text(), markdown.read_text()
    for words in (
        "2 finished runs below out",
        "None, Table 1, on fieldguide: A table",
        "<strong>lr</strong> 0.5 <em>(paper: 0.1)</em>",
        "Not the paper's setting",
        "1,000 images of 50 classes",
        "✓ supported",
        "More is better",
        "one + two &gt; one on recall@1: +",
        "one seed (0): the interval is over 20 queries, paired; p 0.001; not tuned",
        "published on cub",
        "69.5",
    ):
        assert words in text, words
    for words in (
        "- ✓ **supported**: More is better",
        "**lr** 0.5 *(paper: 0.1)*",
        "| one | ",
        "*69.5*",
        "(a/top_ten.jpg)",
        "**data**: abc",
    ):
        assert words in plain, words
    assert (
        not re.search(r'(src|href)="(?!data:|#)', text) and "<script" not in text
    )  # needs no network
    assert str(runs_of) not in text + plain


def test_everything_a_number_comes_from_is_there(runs_of):
    folder = make_run(runs_of / "a", seed=3)
    (folder / "work.ipynb").touch()
    text = write_report(gather(runs_of))[0].read_text()
    environment = read_result(folder)["environment"]
    facts = {
        "folder": "a",
        "executed notebook": "work.ipynb, in the folder",
        "seed": "3",
        "commit": environment["commit"],
        "data": "abc",
    }
    for name, value in facts.items():
        assert f"<li><strong>{name}</strong>: {value}</li>" in text, name
    assert (
        "lr 0.5; grids [2, 4]; flag true; behaviour good; seed 3" in text
        and f"torch {environment['torch']}" in text
        and f"python {environment['python']}" in text
    )


def test_a_table_is_led_by_the_row_that_a_claim_calls_better(lab, runs_of):
    make_run(runs_of / "a")
    (part,) = gather(runs_of).parts
    assert part.method.name == "one" and part.leading == ["top_ten.jpg"]
    better, worse = lab.card["claims"][0]["higher"], lab.card["claims"][0]["lower"]
    make_run(runs_of / "b", ({"one", "one + two"} - {"one"}).pop())
    (part,) = gather(runs_of).parts
    assert {better, worse} == {"one", "one + two"} and part.method.name == better
    change_result(runs_of / "a", figures=["curves.png"])
    change_result(
        runs_of / "b", figures=["curves.png", "attention.jpg", "top_ten.jpg", "pairs.jpg"]
    )
    (part,) = gather(runs_of).parts
    assert part.leading in ([], ["pairs.jpg", "top_ten.jpg"])


def test_a_picture_comes_once_unfolded_and_only_of_a_rows_first_seed(runs_of):
    make_run(runs_of / "a")
    make_run(runs_of / "b", "one + two")
    last = make_run(runs_of / "c", "one + two", seed=1)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(last / "top_ten.jpg")
    text = write_report(gather(runs_of))[0].read_text()
    links = re.findall(r'href="#(figure-\w+)"', text)
    (link,) = set(links)
    assert len(links) == 2  # that of the other row, and among all figures of this one
    before, figure, _ = text.partition(f'<figure id="{link}">')
    assert figure and before.count("<details") == before.count("</details>")
    assert "<table" not in before
    assert text.count("src=") == 1
    assert "<strong>figures, in the folder</strong>: top_ten.jpg" in text


def test_pictures_are_as_large_as_they_were_and_charts_the_same_to_the_pixel(runs_of):
    folder = make_run(runs_of / "a")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "curves.png")
    change_result(folder, figures=["top_ten.jpg", "curves.png"])
    text = write_report(gather(runs_of))[0].read_text()
    photograph, chart = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        for data in re.findall(r'src="data:image/webp;base64,([^"]+)"', text)
    )
    assert photograph.shape == (20, 30, 3) and 'width="30" height="20"' in text
    np.testing.assert_array_equal(chart, noise)


def change_result(folder, **changes):
    file = folder / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_page_stays_a_sensible_size(runs_of, monkeypatch):
    make_run(runs_of / "a")
    monkeypatch.setattr(report_page, "PICTURES", 100)
    text = write_report(gather(runs_of))[0].read_text()
    assert "src=" not in text and "top_ten.jpg, in the folder; this page is full" in text


def test_a_figure_that_went_or_is_damaged_is_named(runs_of):
    figure = make_run(runs_of / "a") / "top_ten.jpg"
    figure.write_bytes(figure.read_bytes()[:50])
    assert "top_ten.jpg, in the folder<" in write_report(gather(runs_of))[0].read_text()
    figure.unlink()
    text = write_report(gather(runs_of))[0].read_text()
    assert "top_ten.jpg, which is no longer in the folder" in text


def test_text_from_outside_is_text(runs_of):
    make_run(
        runs_of / "a",
        method="<script>alert(1)</script> | *x* [y](z)",
        given={"steps": 9, "behaviour": "<b>"},
    )
    page, markdown = write_report(gather(runs_of))
    assert "<script>" not in page.read_text() and "behaviour &lt;b&gt;;" in page.read_text()
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; \\| \\*x\\* [y]\\(z) |" in markdown.read_text()


def test_another_place_for_the_page(runs_of, tmp_path):
    make_run(runs_of / "a")
    page, markdown = write_report(gather(runs_of), tmp_path / "elsewhere" / "page.html")
    assert page.parent == markdown.parent == tmp_path / "elsewhere" and markdown.name == "page.md"
    assert "(../lab/out/a/top_ten.jpg)" in markdown.read_text()
    with pytest.raises(ValueError, match="give a name that ends in .html"):
        write_report(gather(runs_of), tmp_path / "page.md")


# ---- runs and cards that are there or not


@pytest.mark.parametrize("disk, told", FULL_DISKS)
def test_a_full_disk_leaves_the_report_as_it_was(runs_of, capsys, disk, told):
    make_run(runs_of / "a" / "one")
    assert main(["report", str(runs_of)]) == 0
    before = {name: (runs_of / name).read_bytes() for name in ("report.html", "report.md")}
    make_run(runs_of / "a" / "two", row="one + two")
    capsys.readouterr()
    with disk():
        assert main(["report", str(runs_of)]) == 1
    page, said = runs_of / "report.html", capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
    assert said.err.startswith(f"fieldmarks: cannot write '{page}': {told}; nothing was left behin")
    assert {name: (runs_of / name).read_bytes() for name in before} == before
    assert not list(runs_of.glob(".*")) and main(["report", str(runs_of)]) == 0
    assert page.read_bytes() != before["report.html"]


def test_only_complete_runs_count(tmp_path):
    good, cut = make_run(tmp_path / "good"), make_run(tmp_path / "cut")
    (cut / "result.json").write_text((cut / "result.json").read_text()[:200])
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "result.json").write_text('{"schema": 2, "status": "failed"}')
    assert [run.folder for run in find_results(tmp_path)] == [good] and read_result(cut) is None


def test_no_runs_is_one_line_that_says_how_to_make_one(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no finished run below .*make one with fieldmarks run"
    ):
        write_report(gather(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_lacks_what_every_run_writes_is_named(tmp_path):
    (tmp_path / "result.json").write_text(
        '{"schema": 2, "status": "complete", "card": "", "metrics": {}}'
    )
    with pytest.raises(
        ValueError,
        match="result.json' lacks notebook, method, .*: remove it, or run its notebook again",
    ):
        write_report(gather(tmp_path))


def test_cards_are_found_above_the_runs_and_in_the_repository(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        find_card("vapnet-table1", tmp_path).paper == "VAPNet"
        and find_card("paper-table1", tmp_path) is None
    )
    lab.write()
    assert find_card("paper-table1", lab.folder / "runs" / "deep").title == "A table"
    monkeypatch.chdir(lab.folder / "notebooks")
    assert find_card("paper-table1", tmp_path / "elsewhere").title == "A table"


def test_a_card_that_is_not_there_leaves_the_numbers_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a")
    report = gather(tmp_path)
    assert report.parts[0].verdicts == [] and [row.title for row in report.parts[0].table.rows] == [
        "method one"
    ]
    text = write_report(gather(tmp_path))[0].read_text()
    assert (
        "There is no card paper-table1 here: nothing published to compare with, and no claims."
        in text
    )


def test_a_broken_card_is_one_line(lab, runs_of):
    make_run(runs_of / "a")
    lab.write("title: [")
    with pytest.raises(ValueError, match="table1.yaml:1: "):
        write_report(gather(runs_of))


def test_a_result_that_names_a_missing_figure_or_holds_nan_is_refused(tmp_path):
    folder = make_run(tmp_path / "run")
    given = {
        name: value
        for name, value in read_result(folder).items()
        if name not in ("schema", "status", "seed", "environment", "finished")
    }
    (folder / "result.json").unlink()
    with pytest.raises(ValueError, match="figures that are not in .*absent.jpg"):
        write_result(folder, **{**given, "figures": ["absent.jpg"]}, device="cpu")
    with pytest.raises(ValueError):
        write_result(folder, **{**given, "metrics": {"recall@1": float("nan")}}, device="cpu")
    assert not (folder / "result.json").exists()


# ---- numbers in words


@pytest.mark.parametrize(
    "value, digits, text",
    [
        (0.4321, 1, "43.2"),
        (0.4321, 2, "43.21"),
        (None, 1, "–"),
        (-0.001, 1, "−0.1"),
        (0.0, 1, "0.0"),
        (1.0, 1, "100.0"),
    ],
)
def test_percent(value, digits, text):
    assert percent(value, digits) == text


@pytest.mark.parametrize(
    "value, text",
    [
        (0.011, "+1.1"),
        (-0.0125, "−1.2"),
        (0.0, "0.0"),
        (-0.0001, "0.0"),
        (0.00049, "0.0"),
        (0.0006, "+0.1"),
    ],
)
def test_points(value, text):
    assert points(value) == text


def test_bounds():
    assert bounds(-0.015, 0.035) == "[−1.5, 3.5]"
