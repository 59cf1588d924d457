"""The command `fieldmarks`: exit code 0 done, 1 a run failed, a data set differs or the disk is
full, 2 wrong input, 130 Ctrl-C.

What a command needs is imported when it runs, so that --help and a mistyped option answer at once.
"""

import inspect
import re
import sys
import warnings
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

# Without rich's help pages: importing what they need takes longer than all the rest of --help.
app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-grained image retrieval: make data sets, check them, and run the tables of papers.",
)
make = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make a generated data set.")
app.add_typer(make, name="make")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    arguments, code = sys.argv[1:] if arguments is None else arguments, 2
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if arguments[:1] == ["make"] and not make.registered_commands:
                _add_generators()
            return app(args=arguments, prog_name="fieldmarks", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        message = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            message = f"'{error.filename}': " * bool(error.filename) + error.strerror
        if isinstance(error, OSError):
            from fieldmarks.files import NO_ROOM

            code = 1 if error.errno in NO_ROOM else 2
    except Exception as error:  # what typer raises on wrong input has no public name everywhere
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
    if message:
        print("fieldmarks: " * (not message.startswith("Usage:")) + message, file=sys.stderr)
    return code


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    if not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"fieldmarks: warning: {message}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def options(version: bool = Option(False, "--version", help="Print the version.")) -> None:
    if version:
        import fieldmarks

        print(f"fieldmarks {fieldmarks.__version__}")


def _add_generators() -> None:
    """`make fieldguide` and `make wardrobe`, with the options of what draws them."""
    from fieldguide import __main__ as d

    birds = (d.birds, d.make_fieldguide, d.BIRDS, "birds in the layout of CUB-200-2011")
    garments = (d.garments, d.make_wardrobe, d.GARMENTS, "outfits, Polyvore and In-shop layouts")
    for name, given in {"fieldguide": birds, "wardrobe": garments}.items():
        make.command(name, help=f"Draw {given[-1]}.")(_generator(*given[:-1]))


def _generator(draw, generator, options: dict[str, str]):
    def command(folder: Path, **values) -> None:
        with _progress("drawing") as progress:
            summary = draw(folder, progress, values)
        print(summary)

    defaults, own = inspect.signature(generator).parameters, inspect.Parameter.KEYWORD_ONLY
    target = Annotated[Path, Argument(metavar="DIR", help="A new or empty folder.")]
    parameters = [inspect.Parameter("folder", own, annotation=target)]
    for name, text in options.items():
        kind = Annotated[type(defaults[name].default), Option(help=f"{text.capitalize()}.")]
        parameters.append(defaults[name].replace(kind=own, annotation=kind))
    command.__signature__ = inspect.Signature(parameters)
    return command


@app.command()
def check(
    dataset: str = Argument(metavar="DATASET", help="Its name, as cub, cars, inshop, fieldguide."),
    root: Path = Argument(metavar="ROOT", help="The data set's folder."),
    images: bool = Option(False, "--images", help="Also decode all images, and name damaged ones."),
) -> int:
    """Check a data set against its published counts. Exit code 1 where something differs."""
    from fieldlab import check as checking

    rows, faults = checking.check(dataset, root), []
    print(f"{'':28}{'expected':>10}{'found':>10}")
    for what, expected, count, good in rows:
        wanted = "" if expected is None else f"{expected:,}"
        print(f"{what:28}{wanted:>10}{count:>10,}{'' if good else '  differs'}")
    if images:
        with _progress("decoding") as progress:
            faults = checking.check_images(dataset, root, progress=progress)
        for path, reason in faults:
            print(f"{path}: {reason}")
        damaged = f"{len(faults):,} image{'s' * (len(faults) > 1)} cannot be read"
        print(damaged if faults else "all images can be read")
    return 0 if all(row[3] for row in rows) and not faults else 1


@app.command()
def run(
    cards: list[Path] = Argument(metavar="CARD", help="Lab cards, as labs/vapnet/table1.yaml."),
    profile: str = Option("demo", help="One of the card's, as paper, demo, smoke."),
    settings: list[str] = Option(
        (), "--set", metavar="KEY=VALUE", help="As lr=0.1 or root.cub=DIR."
    ),
    out: Path = Option("runs", metavar="DIR", help="Where results go, a folder for each run."),
    workers: int = Option(1, min=1, metavar="N", help="Runs at a time, each with a GPU if any."),
    scheduler: str = Option(None, metavar="ADDRESS", help="Of a Dask scheduler: tcp://host:8786."),
    retries: int = Option(0, min=0, metavar="N", help="How often a failed run is tried again."),
    time_limit: str = Option("24h", metavar="TIME", help="For each run: 90s, 30m, 12h."),
    dry_run: bool = Option(False, "--dry-run", help="Only print the plan and an estimate."),
    page: bool = Option(False, "--report", help="Write DIR/report.html anew after each run."),
) -> int:
    """Run lab cards: each row of a table with each seed. What is done already is not run again.

    --set overrules a parameter, dataset=NAME and seed=N choose. The folder of an official data set
    is given by --set root.NAME=DIR, or in the variable FIELDMARKS_NAME (as in FIELDMARKS_CUB).
    """
    limit = _limit(time_limit, workers, scheduler)
    planned = _plan(cards, profile, out, settings)
    with warnings.catch_warnings():
        if not dry_run:  # what is not known yet follows; what is not known in the end is said then
            warnings.filterwarnings("ignore", ".*its epochs are known once")
        runs = planned()
    if dry_run:
        _show_plan(runs, None if scheduler else workers)
        return 0
    from fieldlab.sweep.plan import run_planned

    after = _ReportSoFar(out) if page else None
    with _sweep(out, workers, scheduler, retries, limit, after) as run_all:
        outcomes = run_planned(runs, planned, run_all)
    return _sum_up(outcomes, out)


class _ReportSoFar:
    """Writes the report while runs go on, which a fault of one of them must not end."""

    def __init__(self, out: Path):
        self.out, self.said = out, set()

    def __call__(self) -> None:
        from fieldlab.report.report import gather, write_report

        try:
            line = f"report  {write_report(gather(self.out))[0]}: reload it as runs end"
        except (ValueError, OSError) as error:
            line = f"no report yet: {error}"
        if line not in self.said:
            print(line, flush=True)
        self.said.add(line)


@app.command()
def tune(
    card: Path = Argument(metavar="CARD", help="A lab card with a key tune."),
    trials: int = Option(min=1, metavar="N", help="Of each row on each of its data sets."),
    profile: str = Option("demo", help="One of the card's, as paper, demo, smoke."),
    settings: list[str] = Option((), "--set", metavar="KEY=VALUE", help="As of fieldmarks run."),
    out: Path = Option("runs", metavar="DIR", help="Where results go, the trials in DIR/tune."),
    workers: int = Option(1, min=1, metavar="N", help="Runs at a time, each with a GPU if any."),
    scheduler: str = Option(None, metavar="ADDRESS", help="Of a Dask scheduler: tcp://host:8786."),
    retries: int = Option(0, min=0, metavar="N", help="How often a failed run is tried again."),
    time_limit: str = Option("24h", metavar="TIME", help="For each run: 90s, 30m, 12h."),
    dry_run: bool = Option(False, "--dry-run", help="Only print the plan and an estimate."),
) -> int:
    """Tune all rows of a card alike, then run them with the best values, under fresh seeds.

    Every row has the same search space and number of trials, scored on validation data, never on
    test data. The values go to DIR/tuned.json. A tuning that was stopped resumes; more trials go
    on from what is there.
    """
    limit = _limit(time_limit, workers, scheduler)
    from fieldlab.cards.card import load_card
    from fieldlab.sweep.estimate import estimate, expected_seconds
    from fieldlab.sweep.tuning import Tuning

    tuning = Tuning(load_card(card), profile, out, trials, settings).open(keep=not dry_run)
    print(*tuning.lines(), sep="\n", flush=True)
    if dry_run:
        print(estimate(expected_seconds(tuning.left()), None if scheduler else workers))
        return 0
    with _sweep(out, workers, scheduler, retries, limit) as run_all:
        return _sum_up(tuning.run(run_all), out)


@contextmanager
def _sweep(out: Path, workers: int, scheduler: str | None, retries: int, limit: float, after=None):
    """Yields what executes runs: run_all(runs) -> outcomes."""
    from fieldlab.sweep import cluster, sweep
    from fieldlab.sweep.board import open_board
    from fieldlab.sweep.estimate import expected_seconds

    with cluster.connected(scheduler) if scheduler else cluster.embedded(workers) as client:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"{error.strerror}; give another folder by --out"
            raise ValueError(f"no results can be written to '{out}': {reason}") from None

        def run_all(runs: list) -> list:
            with open_board(runs, expected_seconds(runs)) as board:
                return sweep.run_all(client, runs, limit, board, retries, after)

        yield run_all


def _plan(cards: list[Path], profile: str, out: Path, settings: list[str]):
    """What plans the runs of cards, all of which are checked before the first run starts."""
    from fieldlab.cards.card import load_card
    from fieldlab.sweep.plan import plan

    loaded = {}
    for card in map(load_card, cards):
        if card.name in loaded:
            both = f"'{loaded[card.name].file}' and '{card.file}'"
            raise ValueError(f"two cards with the name {card.name}: {both}")
        loaded[card.name] = card
    return lambda: [run for card in loaded.values() for run in plan(card, profile, out, settings)]


def _show_plan(runs: list, workers: int | None) -> None:
    from fieldlab.sweep.estimate import estimate, expected_seconds
    from fieldlab.sweep.runner import finished

    first, left = runs[0].parameters, []
    shared = {n for n in first if all(each.parameters.get(n, ...) == first[n] for each in runs)}
    for each, seconds in zip(runs, expected_seconds(runs), strict=True):
        hidden = shared | {"dataset", "seed"}
        own = [f"{n}={value}" for n, value in each.parameters.items() if n not in hidden]
        state = "to run" if finished(each) is None else "earlier"
        left += [seconds] * (state == "to run")
        print(f"{state:8}{each.name}  {'  '.join(own)}\n{'':8}-> {each.folder}")
    print("all: " + "  ".join(f"{name}={value}" for name, value in first.items() if name in shared))
    print(estimate(left, workers))


def _sum_up(outcomes: list, out: Path) -> int:
    titles = {"done": "done", "earlier": "done earlier", "failed": "failed"}
    titles["stopped"] = "left; the same command resumes from here"
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in titles}
    parts = [f"{count} {titles[state]}" for state, count in counts.items() if count]
    print(f"{len(outcomes)} run{'s' * (len(outcomes) != 1)}: {', '.join(parts)}; results in {out}")
    return 130 if counts["stopped"] else 1 if counts["failed"] else 0


def _limit(time_limit: str, workers: int, scheduler: str | None) -> float:
    """Seconds for each run, where the options go together."""
    if scheduler and workers > 1:
        raise ValueError("--workers is for this machine, a scheduler has its own: give one of both")
    return _seconds(time_limit)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise ValueError(f"--time-limit is '{text}': write it as 90s, 30m or 12h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def report(
    folder: Path = Argument(metavar="DIR", help="Where runs are, as --out of fieldmarks run."),
    html: Path = Option(None, metavar="FILE", help="The page; by default report.html in DIR."),
    verify: bool = Option(False, "--verify", help="Measure runs again; exit 1 on a difference."),
) -> int:
    """Write a page on finished runs, and Markdown: published and measured, claims, figures."""
    from fieldlab.report.report import gather, write_report
    from fieldlab.report.verify import verify as measure
    from fieldlab.report.wording import SIGNS, heading, outcome

    gathered = gather(folder)
    files = write_report(gathered, html)
    for part in gathered.parts:
        if part.verdicts:
            print(heading(part.table))
        for each in part.verdicts:
            print(f"  {SIGNS[each.word]} {each.word}: {each.claim.text} ({outcome(each)})")
    print(*files, sep="\n")
    if not verify:
        return 0
    checked = measure(gathered.runs, gathered.folder)
    for line in checked.faults + checked.beyond:
        print(line)
    count, beyond = len(gathered.runs), f"{len(checked.beyond)} that cannot be verified"
    counts = f"{checked.equal} verified, {checked.faulty} with differences, {beyond}"
    print(f"{count} run{'s' * (count != 1)}: {counts}")
    return 1 if checked.faults else 0


@app.command()
def index(
    run: Path = Argument(metavar="RUN", help="A finished run, whose network embeds the pictures."),
    folder: Path = Argument(metavar="FOLDER", help="Pictures, also in folders below it."),
    out: Path = Option(None, metavar="DIR", help="The index; by default FOLDER.index, here."),
) -> int:
    """Index a folder of pictures, or bring its index up to date; a stopped one resumes."""
    from fieldlab.models import load_model
    from fieldlab.own_pictures import PictureIndex

    out = out or Path(f"{folder.expanduser().absolute().name}.index")
    with _progress("embedding pictures") as progress:
        made = PictureIndex.update(out, load_model(run), folder, progress)
    for name, reason in made.unreadable.items():
        print(f"left out: {name}: {reason}")
    left_out = f", {len(made.unreadable):,} left out" if made.unreadable else ""
    others = f", {made.others:,} that are no pictures passed over" if made.others else ""
    print(f"{len(made):,} pictures in {out}{left_out}{others}")
    return 0


@app.command()
def search(
    folder: Path = Argument(metavar="INDEX", help="What `fieldmarks index` made."),
    image: Path = Argument(metavar="IMAGE", help="The picture to find others like."),
    k: int = Option(10, "-k", min=1, help="How many to show."),
    rank: Path = Option(None, metavar="INDEX", help="By an open-set run: orders what is found."),
    shortlist: int = Option(200, min=1, metavar="N", help="How many pictures --rank orders."),
    explain: Path = Option(None, metavar="RUN", help="Of PAN: says why the first ten are alike."),
    page: Path = Option(None, "--html", metavar="FILE", help="By default search.html in INDEX."),
) -> int:
    """Find the pictures most like one: in the terminal, and as a page.

    In up to three stages, each with its time: an index of codes makes a shortlist of very many
    pictures; an index of the same folder orders it; a few-shot or in-shop run of PAN names the
    concepts that the first ten share with the picture.
    """
    from fieldlab.cascade import search as find
    from fieldlab.models import load_model, load_pair_model
    from fieldlab.own_pictures import PictureIndex

    opened = [PictureIndex.open(each) for each in (folder, rank) if each]
    first, *second = [(each, load_model(Path(each.about["run"]))) for each in opened]
    ranking, pairs = second[0] if second else None, load_pair_model(explain) if explain else None
    answer = find(image, *first, rank=ranking, explain=pairs, k=k, shortlist=shortlist)
    for line in _lines(answer):
        print(line)
    print(_answer_page(answer, image, opened[0].pictures, page or folder / "search.html"))
    return 0


def _lines(answer):
    """What a search found, for the terminal."""
    hits = zip_longest(answer.hits, answer.scores_in_words(), answer.reasons)
    for number, (hit, score, reason) in enumerate(hits, start=1):
        yield f"{number:3}  {score}  {hit.path}"
        if reason:
            parts = [f"{name} {value:.2f}" for name, value in reason.concepts if value >= 0.005]
            yield f"     similarity {reason.similarity:.2f}: {', '.join(parts)}"
    for stage in answer.stages:
        yield f"{1000 * stage.seconds:7.0f} ms  {stage.words}"
    for path in answer.gone:
        yield f"moved or removed since it was indexed: {path}"
    if count := len(answer.unranked):
        yield (
            f"{count} picture{'s are' if count > 1 else ' is'} not in the index to rank by, first "
            f"{answer.unranked[0]}: bring it up to date with fieldmarks index"
        )


def _answer_page(answer, image: Path, pictures: Path, page: Path) -> Path:
    from fieldlab.page import Found, write_page
    from fieldmarks.decoding import ImageError, decode

    shown = []
    for hit, score, reason in zip_longest(answer.hits, answer.scores_in_words(), answer.reasons):
        try:
            pixels = decode(hit.path, 220)
        except ImageError:
            pixels = None
        name = str(hit.path.relative_to(pictures))
        shown.append(Found(pixels, name, score, reason and (reason.similarity, reason.concepts)))
    stages = [(stage.words, stage.seconds) for stage in answer.stages]
    return write_page(page, (decode(image, 220), image.name), shown, stages)


@contextmanager
def _progress(title: str):
    """Yields progress(done, total): a bar in a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
