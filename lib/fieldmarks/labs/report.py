"""One page that shows finished runs: their numbers with intervals, what they were made with, and their figures.

The page is a single HTML file that needs no network. Numbers measured on generated or partial data stand under a line that says so.
"""
import base64
import html
from pathlib import Path

from ..files import written_whole
from .results import read_result

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2433; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.25rem; margin-top: 2.4rem } h3 { font-size: 1rem }
p.setting { color: #4a5568; border-left: 3px solid #c9a227; padding-left: .8rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } caption { text-align: left; color: #4a5568 }
th, td { padding: .35rem .7rem; text-align: right; border-bottom: 1px solid #e2e6ee; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal } td small { color: #6b7385; display: block }
img { max-width: 100%; height: auto; display: block; margin: .6rem 0 1.4rem }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0 } dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem }
dt { color: #6b7385 } dd { margin: 0; overflow-wrap: anywhere }
@media print { details > * { display: block } }
"""
CAPTIONS = {
    "classes_seen.jpg": "Classes to learn from", "classes_unseen.jpg": "Classes to retrieve", "curves.png": "Training",
    "top_ten.jpg": "The same queries under two methods", "local_views.jpg": "What local views look at",
    "against_baseline.jpg": "Against a baseline: what makes two images of a class similar",
    "classes.jpg": "Classes", "map_by_length.png": "mAP by code length", "radius.png": "Lookup within a Hamming radius",
    "erased.jpg": "What SREM erases", "attention.jpg": "Where the network looks", "code_usage.png": "How the codes use their bits",
    "class_distances.png": "How far queries lie from their class's database codes",
    "attributes.jpg": "Patches that fire attribute dimensions most", "unseen_map.jpg": "A map of unseen classes",
}


def find_results(folder: Path) -> list[tuple[Path, dict]]:
    """The complete runs anywhere below a folder, in the order in which they ended.

    Raises:
        FileNotFoundError: there is none.
    """
    found = [(file.parent, read_result(file.parent)) for file in Path(folder).rglob("result.json")]
    found = sorted(((where, result) for where, result in found if result), key=lambda pair: (pair[1]["card"], pair[1]["finished"], pair[0].name))
    if not found:
        raise FileNotFoundError(f"no finished run below '{folder}': make one with fieldmarks run, or give the folder of its --out")
    return found


def write_report(folder: Path, page: Path | None = None) -> Path:
    """Write the page, by default as report.html in the folder; returns its path. Raises as `find_results`, and OSError."""
    page = Path(page or Path(folder) / "report.html")
    results = find_results(folder)
    tables = {}  # numbers stand in one table only where they were measured on the same split of the same images
    for where, result in results:
        tables.setdefault((result["card"], result["dataset"], result.get("data_fingerprint")), []).append((where, result))
    body = "".join(_table(f"{card or 'Runs without a card'}: {dataset}", rows) for (card, dataset, _), rows in tables.items())
    text = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>Fieldmarks report</title><style>{STYLE}</style></head><body><h1>Fieldmarks report</h1>"
            f"<p>{len(results)} finished run{'s' * (len(results) > 1)} below {html.escape(Path(folder).name)}</p>{body}</body></html>")
    with written_whole(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def _table(title: str, results: list[tuple[Path, dict]]) -> str:
    metrics = list(results[0][1]["metrics"])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ["run", *metrics, "images/s"])
    rows = []
    start = next((result["start"] for _, result in results if result.get("start")), None)
    if start and len({str(result["parameters"].get("seed")) for _, result in results}) == 1:
        rows.append("<tr><td>before training</td>" + "".join(f"<td>{_percent(start.get(m))}</td>" for m in metrics) + "<td></td></tr>")
    for where, result in results:
        cells = "".join(f"<td>{_percent(result['metrics'].get(m), result['intervals'].get(m))}</td>" for m in metrics)
        rows.append(f"<tr><td>{html.escape(_name(result))}</td>{cells}<td>{result['timing']['images_per_second']:.0f}</td></tr>")
    settings = "".join(f'<p class="setting">{html.escape(line)}</p>' for line in dict.fromkeys(_setting(r) for _, r in results))
    figures = "".join(_figures(where, result) for where, result in results)
    return (f"<h2>{html.escape(title)}</h2>{settings}<div class=wide><table>"
            f"<caption>per cent, with 95 % bootstrap intervals over queries</caption><tr>{head}</tr>{''.join(rows)}</table></div>{figures}")


def _setting(result: dict) -> str:
    p, counts = result["parameters"], result["counts"]
    line = (f"{result['dataset']}: trained on {counts['train']:,} images of {counts['train_classes']} classes, "
            f"{counts['query']:,} queries of {counts['classes']} classes. {p['backbone']}, weights {p['weights']}, {p['size']} px, "
            f"{p['epochs']} epochs at {p['lr']:g}, on {result['environment']['device']}.")
    if result["dataset"] == "fieldguide":
        line += " These are generated birds: the numbers compare methods with each other, not with any paper."
    return line


def _figures(where: Path, result: dict) -> str:
    pictures = "".join(
        f'<h3>{CAPTIONS.get(name, name)}</h3><img alt="{CAPTIONS.get(name, name)}" src="data:image/{"png" if name.endswith("png") else "jpeg"};'
        f'base64,{base64.b64encode((where / name).read_bytes()).decode()}">' for name in result["figures"] if (where / name).is_file())
    facts = {
        "folder": where.name, "notebook": result["notebook"], "commit": result["environment"]["commit"], "finished": result["finished"],
        "data": result.get("data_fingerprint", ""), "training": f"{result['timing']['train_seconds']:.0f} s",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in facts.items())
    return f"<details><summary>{html.escape(_name(result))}: figures</summary><dl>{listed}</dl>{pictures}</details>"


def _name(result: dict) -> str:
    bits = f", {result['parameters']['bits']} bits" if "bits" in result["parameters"] else ""
    return f"{result['method']}{bits}, seed {result['seed']}"


def _percent(value: float | None, interval: list[float] | None = None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" <small>{100 * interval[0]:.1f}–{100 * interval[1]:.1f}</small>" if interval else "")
