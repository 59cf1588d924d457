"""The cards' published numbers against the papers' tables, cell by cell and in both directions."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from fieldlab.cards.card import TIME, load_card

LABS = Path(__file__).parents[2] / "labs"
PRINTED = yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))
DATASETS = {
    "CUB": "cub",
    "CUB-200-2011": "cub",
    "CUB2011": "cub",
    "CAR": "cars",
    "Stanford Cars 196": "cars",
    "Aircraft": "aircraft",
    "FGVC Aircraft": "aircraft",
    "NABirds": "nabirds",
    "VegFru": "vegfru",
    "Food101": "food101",
}
OUTFITS = {"Original FITB": "fitb", "Original AUC": "auc"}
OUTFITS |= {"Resampled FITB": "fitb_resampled", "Resampled AUC": "auc_resampled"}
OWN = {"Our VAPNet": "VAPNet", "Baseline(ours)": "Baseline"}  # row in print -> in the card


def of_loss_terms(row, column):
    dataset, _, metric = column.partition(" ")
    if not metric:  # the time, which is of no data set
        return [(row, "cub", TIME), (row, "cars", TIME)]
    return [(row, DATASETS[dataset], "recall@1")]


def of_recalls(row, column):
    dataset, _, k = column.rpartition(" ")
    return [(row, DATASETS[dataset], f"recall@{k}")]


def of_bits(method, data_and_bits):
    dataset, bits = data_and_bits.split()
    return [(f"{method}, {bits.removesuffix('bits')} bits", DATASETS[dataset], "map")]


# Table -> (row, column), as printed -> where the card has the number: row, data set, metric.
PLACES = {
    "VAPNet Table 1": of_loss_terms,
    "VAPNet Table 2": of_recalls,
    "VAPNet Table 3": lambda row, k: [(row, "inshop", f"recall@{k}")],
    "VAPNet Table 4": lambda _, value: [(f"M = {value}", "cub", "recall@1")],
    "VAPNet Table 5": lambda _, value: [(f"k = {value}", "cub", "recall@1")],
    "VAPNet Table 6": lambda _, value: [(f"alpha = {value}", "cub", "recall@1")],
    "VAPNet Table 7": lambda _, value: [(f"lambda = {value}", "cub", "recall@1")],
    "FCAENet Table 1": lambda data_and_bits, method: of_bits(method, data_and_bits),
    "FCAENet Table 2": lambda method, bits: of_bits(method, f"Food101 {bits}"),
    "FCAENet Table 3": lambda _, number: [(f"{number} regions", "food101", "map")],
    "FCAENet Table 4": lambda _, size: [(f"{size} px", "food101", "map")],
    "FCAENet Table 5": of_bits,
    "PAN Table 1": lambda row, column: [(row, "polyvore", OUTFITS[column])],
    "PAN Table 2": lambda row, column: [
        (row, "cub", "accuracy ±" if column == "±" else "accuracy")
    ],
    "PAN Table 3": lambda row, _: [(row, "inshop", "recall@1")],
}


def as_in_cards(table: str) -> dict[tuple[str, str, str], float]:
    """The numbers of a printed table by their place in its card; AUC and times are no per cent."""
    numbers, (columns, rows) = {}, PRINTED[table].values()
    for row, values in rows.items():
        for column, value in zip(columns, values, strict=True):
            for place in PLACES[table](OWN.get(row, row), column) if value is not None else []:
                plain = place[-1] == TIME or place[-1].startswith("auc")
                assert place not in numbers
                numbers[place] = round(value if plain else value / 100, 6)
    return numbers


def card_of(table: str):
    paper, _, number = table.split()
    return load_card(LABS / paper.lower() / f"table{number}.yaml")


@pytest.mark.parametrize("table", PRINTED)
def test_a_card_has_every_number_of_its_table_and_no_other(table):
    card = card_of(table)
    assert as_in_cards(table) == {
        (row, dataset, metric): value
        for row, columns in card.published.items()
        for dataset, cells in columns.items()
        for metric, value in cells.items()
    }
    assert f"{card.paper} {card.table}" == table


def test_each_card_of_a_table_has_its_numbers_here():
    cards = [load_card(file) for file in LABS.rglob("table*.yaml")]
    there = {f"{card.paper} {card.table}" for card in cards}
    assert there == PRINTED.keys() == PLACES.keys()


@pytest.mark.parametrize(
    "table",
    [f"VAPNet Table {n}" for n in (2, 3)]
    + [f"FCAENet Table {n}" for n in (1, 5)]
    + [f"PAN Table {n}" for n in (1, 2, 3)],
)
def test_rows_that_are_only_published_stand_where_the_paper_has_them(table):
    card, in_print = card_of(table), list(dict.fromkeys(row for row, _, _ in as_in_cards(table)))
    if table.startswith("FCAENet"):  # code lengths are columns there, or groups of rows
        in_print.sort(key=lambda row: int(row.split()[-2]))
    assert card.not_run and [row for row in card.rows if row in in_print] == in_print


# ---- the transcription against what the papers say elsewhere


@pytest.mark.parametrize("table", ["VAPNet Table 2", "VAPNet Table 3"])
def test_recall_rises_with_k(table):
    numbers = as_in_cards(table)
    for (row, dataset, metric), (row2, dataset2, metric2) in pairwise(numbers):
        if (row, dataset) == (row2, dataset2):
            assert numbers[row, dataset, metric] < numbers[row, dataset, metric2]


@pytest.mark.parametrize(
    "one, other",
    [("FCAENet Table 1", f"FCAENet Table {n}") for n in (2, 5)]
    + [("VAPNet Table 3", "PAN Table 3")],
)
def test_tables_that_repeat_numbers_agree(one, other):
    one, other = as_in_cards(one), as_in_cards(other)
    assert (shared := one.keys() & other.keys()) and all(one[k] == other[k] for k in shared)


@pytest.mark.parametrize(
    "table, best", [(4, "M = 4"), (5, "k = 256"), (6, "alpha = 0.2"), (7, "lambda = 10")]
)
def test_vapnets_default_has_the_same_number_in_every_table(table, best):
    whole = as_in_cards("VAPNet Table 2")["VAPNet", "cub", "recall@1"]
    assert as_in_cards(f"VAPNet Table {table}")[best, "cub", "recall@1"] == whole
    assert as_in_cards("VAPNet Table 1")["L_a + mean L_c", "cub", "recall@1"] == whole


@pytest.mark.parametrize(
    "dataset, gains",  # of FCAENet over ExchNet at 12, 24, 32 and 48 bits, as section 4.3 has them
    [
        ("cub", (9.62, 8.69, 6.11, 9.09)),
        ("aircraft", (10.65, 29.63, 29.78, 22.29)),
        ("nabirds", (7.34, 8.21, 9.64, 14.93)),
        ("vegfru", (None, 14.43, 19.19, 10.46)),  # the text: 10.47
        ("food101", (None, 21.08, 24.98, 18.95)),  # the text: 14.98, against both tables
    ],
)
def test_the_gains_that_the_text_tells_follow_from_the_table(dataset, gains):
    numbers = as_in_cards("FCAENet Table 1")
    for bits, gain in zip((12, 24, 32, 48), gains, strict=True):
        own, others = (numbers[f"{m}, {bits} bits", dataset, "map"] for m in ("FCAENet", "ExchNet"))
        assert gain is None or 100 * (own - others) == pytest.approx(gain, abs=1e-6)
