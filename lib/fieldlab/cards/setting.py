"""In what a table's runs differ from the paper's: data, weights, schedule, down to single parameters."""

from dataclasses import dataclass

from fieldlab.cards.card import Card
from fieldlab.cards.finished import FinishedRun
from fieldlab.report.tables import Table, in_words
from fieldlab.sweep.notebook import parameter_sections
from fieldlab.sweep.plan import merged_parameters

PAPER = "paper"  # the profile that holds the paper's own setting
GENERATED = ("fieldguide", "wardrobe")  # data sets, and the parameters that say which to draw
NO_MATTER = ("evaluate_every", "ks")  # how often and at which K is measured changes no other number


@dataclass(frozen=True)
class Setting:
    """How a table's runs stand to the paper's.

    Attributes:
        facts: what was run, in sentences.
        differences: section of the parameters ("Data", "Training") -> (name, here, in the paper); values in words.
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
    """The setting of a table's runs beside the profile "paper" of their card, each row beside the same row."""
    card = table.card
    profile = card.profiles.get(PAPER) if card else None
    differences: dict[str, list[tuple[str, str, str]]] = {}
    if profile:
        sections = {
            "dataset": "Data",
            "training images": "Data",
            "row": "Rows",
        } | parameter_sections(card.notebook_file)
        others = [("row", row.title, "has none like it") for row in table.rows if not row.of_card]
        for name, here, paper in (
            _data(table, list(profile.datasets)) + _parameters(table, card) + others
        ):
            differences.setdefault(sections.get(name, "Parameters"), []).append((name, here, paper))
    return Setting(_facts(table), differences, bool(profile), profile.note if profile else "")


def _parameters(table: Table, card: Card) -> list[tuple[str, str, str]]:
    """Each parameter that differs in any row, with all its values."""
    values: dict[str, list[tuple]] = {}
    for row in table.rows:
        if not (row.runs and row.of_card):
            continue
        paper = card.defaults | merged_parameters(
            card, card.profiles[PAPER], row.name, table.dataset
        )
        here = row.runs[0].setting
        for name in paper:
            if name in here and name not in (*NO_MATTER, *GENERATED, "dataset"):
                values.setdefault(name, []).append((here[name], paper[name]))
    return [
        (name, _all_in_words(here for here, _ in pairs), _all_in_words(paper for _, paper in pairs))
        for name, pairs in values.items()
        if any(_plain(here) != _plain(paper) for here, paper in pairs)
    ]


def _all_in_words(values) -> str:
    return " or ".join(dict.fromkeys(map(in_words, values)))


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _data(table: Table, papers: list[str]) -> list[tuple[str, str, str]]:
    """What is to be said of the images themselves."""
    run = table.runs[0]
    if table.dataset not in papers:
        generated = ", drawn by this program" if table.dataset in GENERATED else ""
        return [("dataset", table.dataset + generated, ", ".join(papers))]
    found, official = run.result["counts"]["train"], _official_training_images(run)
    if official not in (None, found):
        return [("training images", f"{found:,}, a part of {table.dataset}", f"{official:,}")]
    return []


def _official_training_images(run: FinishedRun) -> int | None:
    """Of the whole data set, for the experiments that use one of its published splits."""
    from fieldmarks.data.catalog import OFFICIAL

    official, kind = OFFICIAL.get(run.dataset), run.result.get("experiment")
    if official is None or kind not in ("open_set", "hashing"):
        return None
    if kind == "open_set" and run.setting.get("split") == "open":
        return official.train[0]
    return official.closed and official.closed[0]


def _facts(table: Table) -> list[str]:
    facts = list(dict.fromkeys(_fact(run) for run in table.runs))
    commits = list(dict.fromkeys(run.result["environment"]["commit"] for run in table.runs))
    return facts + [f"These runs come from {len(commits)} versions of the program."] * (
        len(commits) > 1
    )


def _fact(run: FinishedRun) -> str:
    p, counts = run.setting, run.result["counts"]
    data = (
        f"{run.dataset}: trained on {counts['train']:,} images of {counts['train_classes']:,} classes; "
        f"{counts['query']:,} queries of {counts['classes']:,} classes, {counts['gallery']:,} images to find."
    )
    made = [
        p.get("backbone"),
        f"weights {p['weights']}" if "weights" in p else None,
        f"{p['size']} px" if "size" in p else None,
    ]
    if {"epochs", "lr"} <= set(p):
        made.append(f"{p['epochs']} epoch{'s' * (p['epochs'] != 1)} at learning rate {p['lr']:g}")
    return f"{data} {', '.join(filter(None, [*made, run.result['environment']['device']]))}."
