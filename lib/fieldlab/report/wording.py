"""What a report consists of and says, whatever its format: numbers in per cent, claims in words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fieldlab.cards.card import TIME
from fieldlab.cards.claims import CONTRADICTED, NOT_TESTED, SUPPORTED, UNDECIDED, Verdict
from fieldlab.cards.finished import FinishedRun
from fieldlab.cards.setting import Setting
from fieldlab.report.saved import means_over
from fieldlab.report.tables import Row, Table, in_words

SIGNS = {SUPPORTED: "✓", CONTRADICTED: "✗", UNDECIDED: "?", NOT_TESTED: "–"}
NOTHING = "–"
ONLY_PUBLISHED = "published only"  # of rows that have no program here
CAPTIONS = {
    "classes_seen": "Classes to learn from",
    "classes_unseen": "Classes to retrieve",
    "curves": "Training",
    "top_ten": "The same queries under two methods",
    "local_views": "What local views look at",
    "against_baseline": "Against a baseline: what makes two images of a class similar",
    "map_by_length": "mAP by code length",
    "radius": "Lookup within a Hamming radius",
    "erased": "What SREM erases",
    "attention": "Where the network looks",
    "class_distances": "How far queries lie from their class's database codes",
    "attributes": "Patches that fire attribute dimensions most",
    "unseen_map": "A map of unseen classes",
    "against_others": "Against the other runs on the same questions",
    "what_the_graph_tells": "What neighbours in the graph tell",
    "k_agreement": "Scores with and without neighbours",
    "blanks": "Blanks, filled rightly and wrongly",
    "blanks_resampled": "Harder blanks, filled rightly and wrongly",
    "pairs": "What makes pairs similar",
    "concept_importance": "Which concepts matter",
    "episode_middling": "An episode of middling accuracy",
    "episode_hardest": "The hardest episode",
    "agreement": "Scoring all pairs, and the nearest by cosine only",
    "changed": "Queries whose first result changed",
}


LEADING = ("erased", "pairs", "top_ten", "attention", "episode_middling")  # as they lead a table


@dataclass(frozen=True)
class Part:
    """One table with what belongs to it."""

    table: Table
    setting: Setting
    verdicts: list[Verdict]

    @property
    def method(self) -> Row:
        """The row that the first claim on rows that were run says is better, else the last one that
        was run: what to show where there is room for one."""
        run = [row for row in self.table.rows if row.runs]
        claimed = [row for v in self.verdicts for row in run if row.name == v.claim.rows[0]]
        return (claimed or run[::-1])[0]

    @property
    def leading(self) -> list[str]:
        """Those two figures of the method's first run that show best what it does, if there are."""
        figures = {Path(name).stem: name for name in self.method.runs[0].result["figures"]}
        return [figures[name] for name in LEADING if name in figures][:2]


@dataclass(frozen=True)
class Report:
    """`folder` is where the runs are; `runs` are all of them."""

    folder: Path
    runs: list[FinishedRun]
    parts: list[Part]

    def shown(self, folder: Path) -> str:
        """A run's folder as a reader finds it from the report's."""
        return str(folder.relative_to(self.folder))


class Cell(NamedTuple):
    """A number or a heading, with what stands small beneath it. `printed`: the paper's."""

    text: str
    under: str = ""
    printed: bool = False


Grid = tuple[list[Cell], list[list[Cell]]]  # headings; rows, whose first cell is their name


def cells(table: Table) -> Grid:
    """What a table shows. Rows that were not run, whose name is `printed`, are only there on data
    that the paper has; on other data see `cells_not_run`."""
    digits = _digits(table)
    own = table.published_metrics(table.dataset) if table.in_paper else []
    metrics = table.headline + [metric for metric in own if metric not in table.headline]
    beside = {} if table.in_paper else _beside(table)
    columns = [(m, kind) for m in metrics for kind in (_kinds(m, table) if m in own else [""])]
    heads = [Cell("row"), *(Cell(*column) for column in columns)]
    heads += [Cell("interval over"), *_heads_beside(beside)]
    rows = []
    for row in table.lines:
        if not (any(map(row.measured, metrics)) if row.runs else table.in_paper):
            continue
        line = [_cell(row, metric, kind, table.dataset, digits) for metric, kind in columns]
        line = [
            Cell(row.title, printed=not row.runs),
            *line,
            Cell(_over(row)),
            *_cells_beside(row, beside, digits),
        ]
        rows.append(line)
    return heads, rows


def _kinds(metric: str, table: Table) -> list[str]:
    """The columns of a metric that the paper has on the table's data. Times of different machines
    are not subtracted."""
    kinds = ["published", "measured", "difference"]
    return kinds[: 1 if metric not in table.metrics else 2 if metric == TIME else 3]


def _cell(row: Row, metric: str, kind: str, dataset: str, digits: int) -> Cell:
    here, printed = row.measured(metric), row.published.get(dataset, {}).get(metric)
    if kind == "published":
        return Cell(_number(metric, printed, digits), printed=True)
    if kind == "difference":
        both = here is not None and printed is not None
        return Cell(points(here.mean - printed, digits) if both else NOTHING)
    return _measured(row, metric, digits)


def other_cells(table: Table) -> Grid:
    """What else was measured, which the paper neither prints nor makes claims on, if anything."""
    metrics = [metric for metric in table.metrics if metric not in table.headline]
    digits, heads = _digits(table), [Cell("row"), *map(Cell, metrics)]
    rows = [
        [Cell(row.title), *(_measured(row, metric, digits) for metric in metrics)]
        for row in table.lines
        if row.runs and metrics
    ]
    return heads, rows


def cells_not_run(table: Table) -> Grid:
    """What only the paper has, on data that these runs were not made on, if anything."""
    rows = [row for row in table.rows if not (row.runs or table.in_paper)]
    beside, digits = _beside(table) if rows else {}, _digits(table)
    names = [Cell(r.title, ONLY_PUBLISHED * r.only_published, printed=True) for r in rows]
    lines = [[n, *_cells_beside(r, beside, digits)] for n, r in zip(names, rows, strict=True)]
    return [Cell("row"), *_heads_beside(beside)], lines


def _beside(table: Table) -> dict[str, str]:
    """Of each data set that is not the table's, the one metric to show."""
    beside = {}
    for column in table.columns:
        metrics = table.published_metrics(column)
        beside[column] = table.card.metric if table.card.metric in metrics else metrics[0]
    return beside


def _heads_beside(beside: dict[str, str]) -> list[Cell]:
    return [Cell(metric, f"published on {column}", True) for column, metric in beside.items()]


def _cells_beside(row: Row, beside: dict[str, str], digits: int) -> list[Cell]:
    shown = ((m, row.published.get(column, {}).get(m)) for column, m in beside.items())
    return [Cell(_number(metric, value, digits), printed=True) for metric, value in shown]


def _measured(row: Row, metric: str, digits: int) -> Cell:
    value = row.measured(metric)
    if value is None:
        return Cell(NOTHING)
    ends = [_number(metric, end, digits) for end in value.interval or ()]
    interval = f"[{', '.join(ends)}]" if ends else ""
    odd = " queries" if value.over == "queries" and len(row.runs) > 1 else ""
    return Cell(_number(metric, value.mean, digits), interval + odd)


def _over(row: Row) -> str:
    seeds = ", ".join(map(str, row.seeds))
    if not row.runs:
        return ONLY_PUBLISHED if row.only_published else "not run"
    if row.seeds == [None]:
        return ""
    if len(row.runs) > 1:
        return f"seeds {seeds}"
    return f"{means_over(row.runs[0].result)}, seed {seeds}"


def _digits(table: Table) -> int:
    """After the point, in per cent: as many as the paper prints, one or two."""
    columns = [values for row in table.rows for values in row.published.values()]
    printed = [1000 * v for values in columns for name, v in values.items() if name != TIME]
    return 2 if any(abs(value - round(value)) > 1e-6 for value in printed) else 1


def _number(metric: str, value: float | None, digits: int) -> str:
    """A fraction in per cent, a time as it is."""
    if metric == TIME and value is not None:
        return percent(value / 100)
    return percent(value, digits)


def percent(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{100 * value:.{digits}f}".replace("-", "−")


def points(value: float, digits: int = 1) -> str:
    """A difference, with its sign."""
    text = f"{100 * value:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", "−")


def bounds(low: float, high: float, digits: int = 1) -> str:
    return f"[{percent(low, digits)}, {percent(high, digits)}]"


# ---- claims, runs


def basis(verdict: Verdict) -> str:
    """What a claim compares, and what that rests on, as "A > B on recall@1: +1.1 points ..."."""
    claim, (first, second) = verdict.claim, verdict.claim.rows
    sign = ">" if claim.within is None else f"within {100 * claim.within:g} points of"
    return f"{first} {sign} {second} on {claim.metric}: {outcome(verdict)}"


def difference(verdict: Verdict) -> str:
    """As "+1.1 points [−1.5, 3.5]"; empty where there is none."""
    if verdict.difference is None:
        return ""
    interval = f" {bounds(*verdict.interval)}" if verdict.interval else ""
    return f"{points(verdict.difference)} points{interval}"


def outcome(verdict: Verdict) -> str:
    """As "+1.1 points [−1.5, 3.5], paired over 3 seeds (0, 1, 2), over queries [0.2, 2.0]; p 0.04,
    0.08 corrected for 2 claims; not tuned; published: +6.7 on cub"."""
    text = ", ".join(filter(None, (difference(verdict), verdict.basis)))
    if verdict.over_queries:
        text += f", over queries {bounds(*verdict.over_queries)}"
    parts = [text]
    if verdict.p is not None:
        corrected = f", {verdict.corrected:.2g} corrected for {verdict.tested} claims"
        parts.append(f"p {verdict.p:.2g}{corrected * (verdict.tested > 1)}")
    parts += [verdict.tuned] * bool(verdict.tuned)
    printed = [f"{points(value)} on {column}" for column, value in verdict.published.items()]
    return "; ".join(parts + [f"published: {', '.join(printed)}"] * bool(printed))


def tally(verdicts: list[Verdict]) -> str:
    """As "2 supported, 1 undecided"."""
    counts = Counter(verdict.word for verdict in verdicts)
    return ", ".join(f"{counts[word]} {word}" for word in SIGNS if counts[word])


def counted(count: int, what: str) -> str:
    """As "1 finished run", "2 finished runs"."""
    return f"{count} {what}{'s' * (count != 1)}"


def heading(table: Table) -> str:
    if table.card:
        return f"{table.card.paper}, {table.card.table}, on {table.dataset}: {table.card.title}"
    return f"{table.card_name or 'Runs without a card'}, on {table.dataset}"


def how_to_read(setting: Setting, table: Table) -> str:
    """How numbers made in a setting may be read."""
    if setting.is_papers:
        return "The paper's setting, as its card has it."
    if setting.known:
        numbers = "these numbers compare rows with each other and reproduce nothing"
        return f"Not the paper's setting: {numbers}."
    if table.card_name and not table.card:
        lacking = "nothing published to compare with, and no claims"
        return f"There is no card {table.card_name} here: {lacking}."
    return "No paper's setting to compare with: these numbers compare runs with each other."


def caption(figure: str) -> str:
    """What a run's figure shows, by the name of its file."""
    name = Path(figure).stem
    return CAPTIONS.get(name, name.replace("_", " ").capitalize())


def provenance(run: FinishedRun, shown_as: str) -> dict[str, str]:
    """Where a run's numbers come from. `shown_as`: its folder, as readers of the report find it."""
    result, timing = run.result, run.result["timing"]
    notebook = run.folder / result["notebook"].rpartition("/")[2]
    executed = result["notebook"] and notebook.is_file()
    names = ("commit", "device", "threads", "python", "platform")
    versions = {n: v for n, v in result["environment"].items() if n not in names}
    commit, device, threads, python, platform = (
        result["environment"].get(name, "unknown") for name in names
    )
    packages = [f"{name} {version}" for name, version in versions.items()]
    parameters = [f"{n} {in_words(v)}" for n, v in result["parameters"].items() if n != "out"]
    seconds, speed = timing["train_seconds"], timing["images_per_second"]
    return {
        "folder": shown_as,
        "executed notebook": f"{notebook.name}, in the folder" if executed else "none",
        "seed": str(run.seed),
        "commit": commit,
        "data": result.get("data_fingerprint", "unknown"),
        "device": f"{device}, {threads} threads, {result.get('precision', 'precision unknown')}",
        "packages": ", ".join([f"python {python}", *packages]),
        "platform": platform,
        "finished": result["finished"],
        "training": f"{seconds:,.0f} s, {speed:,.0f} images/s",
        "parameters": "; ".join(parameters),
    }
