"""In what a table's runs differ from the paper's: data, weights, schedule, single parameters."""

from collections import defaultdict
from dataclasses import dataclass

from fieldlab.cards.card import GENERATED, Card
from fieldlab.cards.finished import FinishedRun
from fieldlab.cards.notebook import parameter_sections
from fieldlab.report.tables import Table, in_words

PAPER = "paper"  # the profile that holds the paper's own setting
# Reported in other places, or without effect on other numbers: how often and at which K they are.
LEFT_OUT = ("dataset", "generated", "evaluate_every", "ks")


@dataclass(frozen=True)
class Setting:
    """How a table's runs compare with the paper's.

    Attributes:
        facts: what was run, in sentences.
        differences: section of the parameters ("Data", "Training") -> (name, here, in the paper).
        known: whether there is a paper's setting to compare with.
        note: what the card says of that.
    """

    facts: list[str]
    differences: dict[str, list[tuple[str, str, str]]]
    known: bool
    note: str

    @property
    def is_papers(self) -> bool:
        return self.known and not self.differences


def compare(table: Table) -> Setting:
    """The setting of a table's runs beside the card's profile "paper", each row beside the same."""
    card = table.card
    profile = card.profiles.get(PAPER) if card else None
    differences = defaultdict(list)
    if profile:
        sections = {"dataset": "Data", "training images": "Data", "row": "Rows"}
        sections |= parameter_sections(card.notebook_file)
        rows = [("row", row.title, "has none like it") for row in table.rows if not row.of_card]
        for each in _data(table, list(profile.datasets)) + _parameters(table, card) + rows:
            differences[sections.get(each[0], "Parameters")].append(each)
    note = profile.note if profile else ""
    return Setting(_facts(table), dict(differences), bool(profile), note)


def _parameters(table: Table, card: Card) -> list[tuple[str, str, str]]:
    """Each parameter that differs in any row, with all its values."""
    values, defaults = defaultdict(list), card.defaults
    for row in table.rows:
        if row.runs and row.of_card:
            paper, here = card.merged(PAPER, row.name, table.dataset), row.runs[0].setting
            for name, value in (defaults | paper).items():
                if name in here and name not in LEFT_OUT:
                    values[name].append((here[name], value))
    return [
        (name, *(" or ".join(dict.fromkeys(map(in_words, s))) for s in zip(*pairs, strict=True)))
        for name, pairs in values.items()
        if any(in_words(here) != in_words(paper) for here, paper in pairs)
    ]


def _data(table: Table, papers: list[str]) -> list[tuple[str, str, str]]:
    """How the images themselves differ."""
    run = table.runs[0]
    if table.dataset not in papers:
        generated = ", drawn by this program" if table.dataset in GENERATED else ""
        return [("dataset", table.dataset + generated, ", ".join(papers))]
    count, official = run.result["counts"]["train"], _official_training_images(run)
    if official not in (None, count):
        return [("training images", f"{count:,}, a part of {table.dataset}", f"{official:,}")]
    return []


def _official_training_images(run: FinishedRun) -> int | None:
    """Of the complete data set, for the experiments that use one of its published splits."""
    from fieldmarks.data.catalog import OFFICIAL

    official, kind = OFFICIAL.get(run.dataset), run.result.get("experiment")
    if official is None or kind not in ("open_set", "hashing"):
        return None
    if kind == "open_set" and run.setting.get("split") == "open":
        return official.train[0]
    return official.closed


def _facts(table: Table) -> list[str]:
    commits = {run.result["environment"]["commit"] for run in table.runs}
    several = f"These runs come from {len(commits)} versions of the program."
    return list(dict.fromkeys(map(_fact, table.runs))) + [several] * (len(commits) > 1)


def _fact(run: FinishedRun) -> str:
    p, c = run.setting, run.result["counts"]
    data = (
        f"{run.dataset}: trained on {c['train']:,} images of {c['train_classes']:,} classes; "
        f"{c['query']:,} queries of {c['classes']:,} classes, {c['gallery']:,} images to find."
    )
    if left_out := run.result.get("left_out"):
        named = ", ".join(f"{count:,} of {each}" for each, count in left_out.items() if count)
        data += f" Left out, for images cannot be read: {named}."
    made = [p.get("backbone"), f"weights {p['weights']}" if "weights" in p else None]
    made.append(f"{p['size']} px" if "size" in p else None)
    if {"epochs", "lr"} <= set(p):
        made.append(f"{p['epochs']} epoch{'s' * (p['epochs'] != 1)} at learning rate {p['lr']:g}")
    return f"{data} {', '.join(filter(None, [*made, run.result['environment']['device']]))}."
