"""The report of finished runs: what papers print beside what was measured, and claims tested."""

from functools import cache
from pathlib import Path

from fieldlab.cards.claims import judge
from fieldlab.cards.finished import find_card, find_results
from fieldlab.cards.setting import compare
from fieldlab.report.saved import measure_again
from fieldlab.report.tables import arrange
from fieldlab.report.wording import Part, Report
from fieldmarks.files import atomic


def gather(folder: Path) -> Report:
    """Arrange the finished runs below a folder and test their cards' claims.

    Raises:
        As `find_results` and `find_card`.
    """
    folder = Path(folder)
    runs = find_results(folder)
    names = dict.fromkeys(run.result["card"] for run in runs)
    cards = {name: find_card(name, folder) for name in names if name}
    results = {run.folder: run.result for run in runs}
    once = cache(lambda where: measure_again(where, results[where]))
    tables = arrange(runs, cards)
    parts = [Part(t, compare(t), judge(t, lambda where, _: once(where))) for t in tables]
    return Report(folder, runs, parts)


def write_report(report: Report, page: Path | None = None) -> list[Path]:
    """Write the page, by default report.html in the runs' folder, and Markdown beside it.

    Raises:
        ValueError: a page's name that ends in .md. OSError: they cannot be written.
    """
    from fieldlab.report.markdown import as_markdown
    from fieldlab.report.page import as_page

    page = Path(page or report.folder / "report.html")
    markdown = page.with_suffix(".md")
    if markdown == page:
        raise ValueError(
            f"the page cannot be '{page}', where the Markdown goes: give a name that ends in .html"
        )
    with atomic(page) as first:  # both, or none where the disk is full
        first.write_text(as_page(report), encoding="utf-8")
        with atomic(markdown) as second:
            second.write_text(as_markdown(report, markdown.parent), encoding="utf-8")
    return [page, markdown]
