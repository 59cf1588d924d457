"""What stands in the cells and lines of a report, whatever its format: numbers in per cent, claims in words."""

from typing import NamedTuple

from fieldlab.cards.claims import CONTRADICTED, NOT_TESTED, SUPPORTED, UNDECIDED, Verdict
from fieldlab.cards.finished import FinishedRun
from fieldlab.cards.setting import Setting
from fieldlab.report.saved import means_over
from fieldlab.report.tables import Measurement, Row, Table, in_words

SIGNS = {SUPPORTED: "✓", CONTRADICTED: "✗", UNDECIDED: "?", NOT_TESTED: "–"}
NOTHING = "–"
CAPTIONS = {
    "classes_seen.jpg": "Classes to learn from",
    "classes_unseen.jpg": "Classes to retrieve",
    "curves.png": "Training",
    "top_ten.jpg": "The same queries under two methods",
    "local_views.jpg": "What local views look at",
    "against_baseline.jpg": "Against a baseline: what makes two images of a class similar",
    "classes.jpg": "Classes",
    "map_by_length.png": "mAP by code length",
    "radius.png": "Lookup within a Hamming radius",
    "erased.jpg": "What SREM erases",
    "attention.jpg": "Where the network looks",
    "code_usage.png": "How the codes use their bits",
    "class_distances.png": "How far queries lie from their class's database codes",
    "attributes.jpg": "Patches that fire attribute dimensions most",
    "unseen_map.jpg": "A map of unseen classes",
    "outfits.jpg": "Training outfits",
    "items.jpg": "Items",
    "against_others.png": "Against the other runs on the same questions",
    "what_the_graph_tells.png": "What neighbours in the graph tell",
    "k_agreement.png": "Scores with and without neighbours",
    "blanks.jpg": "Blanks, filled rightly and wrongly",
    "blanks_resampled.jpg": "Harder blanks, filled rightly and wrongly",
    "pairs.jpg": "What makes pairs similar",
    "concept_importance.png": "Which concepts matter",
    "concepts.png": "Which concepts count",
    "methods.png": "Against others",
    "episode_middling.jpg": "An episode of middling accuracy",
    "episode_hardest.jpg": "The hardest episode",
    "agreement.png": "Scoring all pairs, and the nearest by cosine only",
    "changed.jpg": "Queries whose first result changed",
}


class Cell(NamedTuple):
    """A number or a heading, with what stands small beneath it. `printed`: the paper's, not measured."""

    text: str
    under: str = ""
    printed: bool = False


def cells(table: Table) -> tuple[list[Cell], list[list[Cell]]]:
    """The headings and the rows of a table. A row's first cell is its name; in rows that were not run that is `printed`.

    On data that the paper has not, rows that were not run stand apart, see `cells_not_run`: there is nothing beside them.
    """
    digits = _digits(table)
    own = table.published_metrics(table.dataset) if table.in_paper else []
    metrics = table.headline + [metric for metric in own if metric not in table.headline]
    beside = (
        {} if table.in_paper else {column: _headline(table, column) for column in table.columns}
    )
    heads = [Cell("row")]
    for metric in metrics:
        heads += [
            Cell(metric, what)
            for what in (("published", "measured", "difference") if metric in own else ("",))
        ]
    heads += [Cell("interval over")] + [
        Cell(metric, f"published on {column}", True) for column, metric in beside.items()
    ]
    rows = [_start(table, metrics, own, len(beside), digits)] if table.start else []
    for row in table.rows:
        if not (row.runs or table.in_paper):
            continue
        line = [Cell(row.title, printed=not row.runs)]
        for metric in metrics:
            printed, measured = (
                row.published.get(table.dataset, {}).get(metric),
                row.measured(metric),
            )
            if metric in own:
                line.append(Cell(percent(printed, digits), printed=True))
            line.append(_measured(measured, row, digits))
            if metric in own:
                both = printed is not None and measured is not None
                line.append(Cell(points(measured.mean - printed, digits) if both else NOTHING))
        rows.append([*line, Cell(_over(row)), *_beside(row, beside, digits)])
    return heads, rows


def other_cells(table: Table) -> tuple[list[Cell], list[list[Cell]]]:
    """Headings and rows of what else was measured, which the paper neither prints nor makes claims on; no rows where that is nothing."""
    metrics, digits = (
        [metric for metric in table.metrics if metric not in table.headline],
        _digits(table),
    )
    rows = [
        [Cell(row.title), *(_measured(row.measured(metric), row, digits) for metric in metrics)]
        for row in table.rows
        if row.runs
    ]
    if table.start:
        rows.insert(
            0,
            [
                Cell("before training"),
                *(Cell(percent(table.start.get(metric), digits)) for metric in metrics),
            ],
        )
    return [Cell("row"), *map(Cell, metrics)], rows if metrics else []


def cells_not_run(table: Table) -> tuple[list[Cell], list[list[Cell]]]:
    """Headings and rows of what only the paper has, on data that these runs were not made on; no rows where there is none."""
    rows = [row for row in table.rows if not (row.runs or table.in_paper)]
    metrics = {column: _headline(table, column) for column in table.columns} if rows else {}
    heads = [
        Cell("row"),
        *(Cell(metric, f"published on {column}", True) for column, metric in metrics.items()),
    ]
    return heads, [
        [Cell(row.title, printed=True), *_beside(row, metrics, _digits(table))] for row in rows
    ]


def _beside(row: Row, metrics: dict[str, str], digits: int) -> list[Cell]:
    """What the paper has on other data sets: of each the one metric named."""
    return [
        Cell(percent(row.published.get(column, {}).get(metric), digits), printed=True)
        for column, metric in metrics.items()
    ]


def _start(
    table: Table, metrics: list[str], own: list[str], beside: int, digits: int
) -> list[Cell]:
    line = [Cell("before training")]
    for metric in metrics:
        value = Cell(percent(table.start.get(metric), digits))
        line += [Cell(NOTHING, printed=True), value, Cell(NOTHING)] if metric in own else [value]
    return line + [Cell("")] + [Cell(NOTHING, printed=True)] * beside


def _measured(measured: Measurement | None, row: Row, digits: int) -> Cell:
    if measured is None:
        return Cell(NOTHING)
    interval = bounds(*measured.interval, digits) if measured.interval else ""
    odd = f" {measured.over}" if measured.over == "queries" and len(row.runs) > 1 else ""
    return Cell(percent(measured.mean, digits), interval + odd)


def _over(row: Row) -> str:
    seeds = ", ".join(map(str, row.seeds))
    return (
        "not run"
        if not row.runs
        else f"seeds {seeds}"
        if len(row.runs) > 1
        else f"{means_over(row.runs[0].result)}, seed {seeds}"
    )


def _headline(table: Table, column: str) -> str:
    """The one metric to show of a data set that is not the table's."""
    published = table.published_metrics(column)
    return table.card.metric if table.card.metric in published else published[0]


def _digits(table: Table) -> int:
    """After the point, in per cent: as many as the paper prints, one or two."""
    printed = [
        value
        for row in table.rows
        for values in row.published.values()
        for value in values.values()
    ]
    return 2 if any(abs(1000 * value - round(1000 * value)) > 1e-6 for value in printed) else 1


# ---- numbers


def percent(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{100 * value:.{digits}f}".replace("-", "−")


def points(value: float, digits: int = 1) -> str:
    """A difference, with its sign."""
    text = f"{100 * value:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", "−")


def bounds(low: float, high: float, digits: int = 1) -> str:
    return f"[{percent(low, digits)}, {percent(high, digits)}]"


# ---- claims, runs


def compared(verdict: Verdict) -> str:
    """What a claim compares, as "A > B on recall@1"."""
    claim, (first, second) = verdict.claim, verdict.claim.rows
    sign = ">" if claim.within is None else f"within {100 * claim.within:g} points of"
    return f"{first} {sign} {second} on {claim.metric}"


def outcome(verdict: Verdict) -> str:
    """What a claim came to, as "+1.1 points [−1.5, 3.5], over seeds 0, 1, 2; published: +6.7 on cub"."""
    parts = [verdict.basis]
    if verdict.difference is not None:
        interval = f" {bounds(*verdict.interval)}" if verdict.interval else ""
        parts = [f"{points(verdict.difference)} points{interval}, {verdict.basis}"]
    if verdict.published:
        parts.append(
            "published: "
            + ", ".join(
                f"{points(value)} on {column}" for column, value in verdict.published.items()
            )
        )
    return "; ".join(parts)


def tally(verdicts: list[Verdict]) -> str:
    """As "2 supported, 1 undecided"."""
    counts = {word: sum(verdict.word == word for verdict in verdicts) for word in SIGNS}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def heading(table: Table) -> str:
    if table.card:
        return f"{table.card.paper}, {table.card.table}, on {table.dataset}: {table.card.title}"
    return f"{table.card_name or 'Runs without a card'}, on {table.dataset}"


def how_to_read(setting: Setting, table: Table) -> str:
    """How numbers made in a setting may be read."""
    if setting.is_papers:
        return "The paper's setting, as its card has it."
    if setting.known:
        return "Not the paper's setting: these numbers compare rows with each other and reproduce nothing. What differs:"
    if table.card_name and not table.card:
        return f"There is no card {table.card_name} here: nothing published to compare with, and no claims."
    return "No paper's setting to compare with: these numbers compare runs with each other."


def provenance(run: FinishedRun, shown_as: str) -> dict[str, str]:
    """Where a run's numbers come from. `shown_as`: its folder, as a reader of the report finds it."""
    result, environment = run.result, dict(run.result["environment"])
    notebook = run.folder / result["notebook"].rpartition("/")[2]
    executed = (
        f"{notebook.name}, in the folder" if result["notebook"] and notebook.is_file() else "none"
    )
    first = {
        name: environment.pop(name, "unknown")
        for name in ("commit", "device", "python", "platform", "threads")
    }
    timing = result["timing"]
    return {
        "folder": shown_as,
        "executed notebook": executed,
        "seed": str(run.seed),
        "commit": first["commit"],
        "data": result.get("data_fingerprint", "unknown"),
        "device": f"{first['device']}, {first['threads']} threads, {result.get('precision', 'precision unknown')}",
        "packages": ", ".join(
            [
                f"python {first['python']}",
                *(f"{name} {version}" for name, version in environment.items()),
            ]
        ),
        "platform": first["platform"],
        "finished": result["finished"],
        "training": f"{timing['train_seconds']:,.0f} s, {timing['images_per_second']:,.0f} images/s",
        "parameters": "; ".join(
            f"{name} {in_words(value)}"
            for name, value in result["parameters"].items()
            if name != "out"
        ),
    }
