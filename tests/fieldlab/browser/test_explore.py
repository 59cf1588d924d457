"""explore.ipynb in a real browser: in JupyterLab, and as Voila serves it."""

import io
import json
import re
import time
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest
from PIL import Image

from helpers.lab import write_notebook
from helpers.pages import LOAD, changed, no_traceback, photograph, row, run_all, section, sources

pytestmark = pytest.mark.usefixtures("runs")

# ---- files to upload


def picture(side=200):
    values = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    with io.BytesIO() as stream:
        Image.fromarray(values).save(stream, "JPEG")
        return stream.getvalue()


def archive():
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("bird.jpg", picture())
        return stream.getvalue()


def bomb():
    with io.BytesIO() as stream:
        Image.new("1", (10_000, 10_000)).save(stream, "PNG")
        return stream.getvalue()


BAD = {
    "archive.jpg": (archive, "archive.jpg cannot be used: not a picture"),
    "notes.png": (lambda: b"no picture at all", "notes.png cannot be used: not a picture"),
    "bomb.png": (bomb, "bomb.png cannot be used: 10000 x 10000 pixels, more than"),
    "half.jpg": (lambda: picture()[:4000], "half.jpg cannot be used: .*truncated"),
    "vector.jpg": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
        "vector.jpg cannot be used: not a picture",
    ),
    "empty.jpg": (lambda: b"", "empty.jpg cannot be used: "),
    "huge.jpg": (lambda: picture() + bytes(9_000_000), "huge.jpg has 9.0 MB: upload at most 8 MB"),
}


def uploads(page):
    for name, (content, says) in BAD.items():
        before = sources(row(page, "vapnet"))
        upload(page, name, content(), says)
        assert sources(row(page, "vapnet")) == before
    upload(page, "mine.jpg", picture(), "Searching with mine.jpg")
    page.get_by_text("The query: mine.jpg").wait_for()
    found = row(page, "vapnet")
    found.locator("button.neutral").nth(9).wait_for()  # nobody has said what the picture shows
    assert len(sources(found)) == found.locator("button.neutral").count() == 10
    assert "right" not in found.get_attribute("aria-label")


def upload(page, name, content, says):
    page.locator('input[type="file"]').set_input_files(
        {"name": name, "mimeType": "image/jpeg", "buffer": content}
    )
    (alert(page, says) if name in BAD else page.get_by_text(says)).wait_for(state="attached")


def alert(page, words):
    return page.locator('[role="alert"]', has_text=re.compile(words))


# ---- places of the query


def drawn(panel):
    """The maps over the results."""
    maps = panel.locator(".fieldmarks-grid canvas")
    return maps.evaluate_all("maps => maps.map(map => map.toDataURL())")


def point_at_places(page):
    """By mouse, click and keyboard; no map waits for the kernel. The panel is returned."""
    panel = section(page, "Place by place")
    panel.get_by_role("button", name="Point at places").click()
    query = panel.get_by_role("application")
    query.wait_for()
    captions, together = panel.locator(".fieldmarks-caption"), drawn(panel)
    assert len(together) == 10 and " of " not in captions.first.inner_text()
    query.hover(position={"x": 120, "y": 120})
    one = drawn(panel)
    query.hover(position={"x": 20, "y": 200})
    other = drawn(panel)
    assert one != together and other != together and other != one
    assert re.fullmatch(r"0\.\d{3} of \d\.\d\d", captions.first.inner_text())
    query.click(position={"x": 120, "y": 120})
    page.mouse.move(5, 5)
    assert drawn(panel) == one and panel.get_by_text(", kept").count() == 1
    query.press("ArrowRight")
    assert drawn(panel) != one
    query.press("ArrowLeft")
    query.press("Enter")
    assert drawn(panel) == one and panel.get_by_text(", kept").count() == 0
    query.blur()
    assert drawn(panel) == together
    milliseconds = query.evaluate("""query => {
        const { left, top } = query.getBoundingClientRect(), began = performance.now();
        query.dispatchEvent(new PointerEvent("pointermove", { clientX: left, clientY: top }));
        return performance.now() - began;
    }""")
    print(f"place of the query to ten maps: {milliseconds:.1f} ms")
    assert drawn(panel) != together
    query.hover(position={"x": 120, "y": 120})
    return panel


# ---- the map


def draw_the_map(page, chart):
    """Once a point that is pointed at shows its picture."""
    chart.get_by_role("button", name="Draw the map").click()
    canvas = chart.locator("canvas").first
    canvas.wait_for(timeout=LOAD)
    canvas.evaluate("part => part.scrollIntoView({block: 'center'})")
    place, card = canvas.bounding_box(), chart.get_by_role("status").locator("img")
    lines = iter(range(20, 440, 7))
    while not card.count():  # until the mouse has come across a point
        height = place["y"] + next(lines)
        page.mouse.move(place["x"], height)
        page.mouse.move(place["x"] + place["width"], height, steps=100)
        page.wait_for_timeout(50)
    lasso(page, chart, canvas, 0.05, 0.95)
    chart.get_by_text(re.compile("pictures in the lasso to search with it$")).wait_for()


def lasso(page, chart, canvas, low, high):
    """Draw a lasso around what lies between two shares of the canvas, both ways."""
    chart.get_by_role("button", name="Lasso").click()
    canvas.evaluate("part => part.scrollIntoView({block: 'center'})")
    place = canvas.bounding_box()
    corners = ((low, low), (high, low), (high, high), (low, high), (low, low + 0.02))
    spots = [
        (place["x"] + x * place["width"], place["y"] + y * place["height"]) for x, y in corners
    ]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=10)
    page.mouse.up()


MANY = """
import numpy as np
from ipywidgets import HTML
from fieldlab.explorer.widgets import PictureMap, thumbnail

draw = np.random.default_rng(0).normal
classes, told = np.arange(50_000) % 100, HTML("nothing yet")
plane = 9 * draw(size=(100, 2))[classes] + draw(size=(50_000, 2))
plane[:2] = [[0, 0], [40, 0]]
colour = lambda number: np.full((8, 8, 3), number % 256, np.uint8)
card = lambda number: {"source": thumbnail(colour(number)), "name": f"picture {number}"}


def chosen(number):
    chart.mark({number: "query", 0: "right", 1: "wrong"})
    told.value = f"chosen: {number}; selected: {chart.scatter.selection().tolist()}"


def lasso(numbers):
    low, high = plane[numbers].min(0), plane[numbers].max(0)
    box = ((plane >= low) & (plane <= high)).all(1).sum()
    told.value = f"lasso: {len(numbers)} of {box} in the box around them"


chart = PictureMap(card, chosen, lasso)
chart.draw(plane, [f"class {n}" for n in classes], "50,000 pictures")
display(chart, told)
"""


def test_a_map_of_fifty_thousand_pictures_fetches_nothing(page, lab, workplace, screenshots):
    write_notebook(workplace / "notebooks" / "many.ipynb", MANY)
    fetched = []
    page.on("request", lambda request: fetched.append(request.url))
    run_all(page, lab.url("many.ipynb"))
    canvas = page.locator(".jp-OutputArea-output canvas").first
    canvas.wait_for(timeout=LOAD)
    card = page.get_by_role("status").get_by_alt_text(re.compile("^picture"))
    canvas.scroll_into_view_if_needed()
    pictures, places = [], iter(range(300, 700, 4))
    while len(pictures) < 6:  # pictures met along a line
        place = {"x": next(places), "y": 230}
        canvas.hover(position=place)
        page.wait_for_timeout(100)
        for name in card.evaluate_all("images => images.map(image => image.alt)"):
            pictures += [name] * (name not in pictures)
    canvas.click(position=place)
    told = page.get_by_text(re.compile("^chosen:"))
    told.wait_for()
    one = int(re.search(r"chosen: (\d+)", told.inner_text())[1])
    assert told.inner_text() == f"chosen: {one}; selected: [{one}, 0, 1]"
    assert card.get_attribute("alt") == f"picture {one}"
    photograph(page, screenshots, "lab-map-of-many", page.locator(".jp-OutputArea-output").first)

    lasso(page, page, canvas, 0.4, 0.6)
    told = page.get_by_text(re.compile("^lasso:"))
    told.wait_for()
    inside, box = map(int, re.findall(r"\d+", told.inner_text()))
    assert inside > 100 and inside > 0.8 * box  # those of one place, and next to all of these
    no_traceback(page)
    own = ("data:", "blob:", page.url.split("/doc/")[0])
    assert not [url for url in fetched if not url.startswith(own)]


# ---- tests


def test_in_jupyterlab(page, lab, screenshots):
    run_all(page, lab.url("explore.ipynb"))
    choice, vapnet, codes, pan, frozen = (
        row(page, name)
        for name in ("Click a picture", "vapnet", "fcaenet, 24 bits", "pan_supervised", "frozen")
    )
    frozen.wait_for(timeout=LOAD)
    first = sources(vapnet)
    assert len(first) == 10 and len(set(first)) == 10
    for found in (vapnet, codes, pan, frozen):
        signs = found.get_by_role("button").evaluate_all(
            "buttons => buttons.map(button => [button.className, button.innerText[0]])"
        )
        assert len(signs) == 10 and all(
            sign == {"right": "✓", "wrong": "✗"}[mark] for mark, sign in signs
        )

    choice.get_by_role("button").nth(5).click()
    second = changed(page, vapnet, first, "query to gallery")

    choice.get_by_role("button").nth(5).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    assert choice.get_by_role("button").nth(4).get_attribute("aria-pressed") == "true"
    changed(page, vapnet, second, "query by keyboard to gallery")
    photograph(page, screenshots, "lab-query", section(page, "A query"))
    photograph(page, screenshots, "lab-results", section(page, "What each method finds"))

    why = section(page, "Why")
    assert not sources(why)
    vapnet.get_by_role("button").nth(2).click()
    maps = changed(page, why, [], "why, Grad-CAM")
    assert (
        len(maps) == 4
        and why.get_by_alt_text("what in the query makes it like the other").count() == 1
    )
    photograph(page, screenshots, "lab-why-vapnet", why)
    codes.get_by_role("button").nth(9).click()
    changed(page, why, maps, "why, codes")
    differ, of = (
        why.get_by_text(re.compile("bits differ")).inner_text().split(" bits")[0].split(" of ")
    )
    assert int(of) == 24 and why.locator("td.differs").count() == 2 * int(differ)
    assert int(codes.get_by_role("button").nth(9).inner_text().split()[-1]) == int(differ)
    photograph(page, screenshots, "lab-why-codes", why)
    pan.get_by_role("button").nth(0).click()
    why.get_by_alt_text(re.compile("concepts by contribution")).wait_for()
    photograph(page, screenshots, "lab-why-pan", why)

    photograph(page, screenshots, "lab-places", point_at_places(page))

    stages = section(page, "In stages")
    stages.get_by_role("button", name="Search in stages").click()
    staged = changed(page, row(page, "Found in stages"), [], "search in stages")
    assert (
        len(staged) == 10
        and stages.locator("li").count() == 10
        and stages.get_by_text(re.compile("ranking: .*vapnet.*: [0-9]+ ms")).count() == 1
    )
    photograph(page, screenshots, "lab-stages", stages)

    erased = section(page, "What SREM erases")
    before = sources(erased)
    page.get_by_role("button", name="12 bits").click()
    row(page, "fcaenet, 12 bits").wait_for()
    assert codes.count() == 0
    changed(page, erased, before, "code length to attention")
    for slider, key in (("n, regions", "End"), ("l, their side", "ArrowRight")):
        before = sources(erased)
        erased.locator(".widget-slider", has_text=slider).locator(".noUi-handle").press(key)
        after = changed(page, erased, before, f"slider of {slider} to mask")
        assert after[:2] == before[:2] and after[2] != before[2]
    photograph(page, screenshots, "lab-erasing", erased)

    views = section(page, "local views")
    before = sources(views)
    views.get_by_role("button", name="Draw again").click()
    after = changed(page, views, before, "views drawn again")
    assert len(after) == len(before) == 3
    for box in ("2 × 2", "4 × 4"):
        views.get_by_text(box, exact=True).click()
    views.get_by_text("no grid is chosen").wait_for()
    views.get_by_text("8 × 8", exact=True).click()
    views.get_by_text("view 1, of 8 × 8").wait_for()
    photograph(page, screenshots, "lab-views", views)

    uploads(page)

    results = section(page, "What each method finds")
    results.locator(".widget-slider", has_text="K, results").locator(".noUi-handle").press(
        "ArrowLeft"
    )
    page.wait_for_function("""[...document.querySelectorAll('[role=group]')].some(
        row => row.ariaLabel.startsWith('vapnet') && row.children.length == 9)""")

    chart = section(page, "A map")
    draw_the_map(page, chart)
    chart.get_by_role("button", name="→").press("Enter")
    before = sources(vapnet)
    chart.get_by_role("button", name="Search with it").press("Enter")
    changed(page, vapnet, before, "query from the map to gallery")
    photograph(page, screenshots, "lab-map", chart)

    picker = page.locator("select[multiple]")
    picker.select_option(index=list(range(5)))
    page.get_by_role("button", name="Open these runs").click()
    alert(page, "these runs are of different data, pick runs of one data set").wait_for(
        state="attached"
    )
    photograph(page, screenshots, "lab-mixed", section(page, "The runs"))
    assert alert(page, "these runs are of different data").is_visible()
    no_traceback(page)


def test_without_runs_the_notebook_says_how_to_make_some(page, lab, workplace, screenshots):
    notebook = json.loads((workplace / "notebooks" / "explore.ipynb").read_text())
    parameters = notebook["cells"][1]
    parameters["source"] = [line.replace("../runs", "../nothing") for line in parameters["source"]]
    (workplace / "notebooks" / "empty.ipynb").write_text(json.dumps(notebook))
    run_all(page, lab.url("empty.ipynb"))
    alert(page, "no finished run below .*: make some with make demo").wait_for(
        state="attached", timeout=LOAD
    )
    section(page, "A map").wait_for(state="attached", timeout=LOAD)
    assert not page.locator('input[type="file"]').is_visible()
    photograph(page, screenshots, "lab-no-runs", section(page, "The runs"))
    assert alert(page, "make some with make demo").is_visible()
    no_traceback(page)


def test_as_voila_serves_it(page, voila, workplace, screenshots):
    for path in ("/", "/api/kernels", "/voila/tree"):
        page.goto(voila.bare + path)
        assert "/login" in page.url and page.locator("select[multiple]").count() == 0, path
    for path in ("explore.ipynb", "empty.ipynb", "picture.png"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{voila.bare}/voila/files/{path}")
        assert refused.value.code == 403

    fetched, refused = set(), set()
    page.on("response", lambda response: fetched.add(response.url))
    page.on("requestfailed", lambda request: refused.add(request.failure))
    page.goto(voila.url, timeout=LOAD)  # the page is complete when its cells have run
    vapnet = row(page, "vapnet")
    vapnet.wait_for(timeout=LOAD)
    assert "Explorer(" not in page.content() and "from fieldmarks" not in page.content()
    before = sources(vapnet)
    row(page, "Click a picture").get_by_role("button").nth(3).click()
    changed(page, vapnet, before, "Voila: query to gallery")
    vapnet.get_by_role("button").nth(0).click()
    changed(page, section(page, "Why"), [], "Voila: why")
    point_at_places(page)
    draw_the_map(page, section(page, "A map"))
    before = sources(section(page, "What SREM erases"))
    page.locator(".widget-slider", has_text="n, regions").locator(".noUi-handle").press(
        "ArrowRight"
    )
    changed(page, section(page, "What SREM erases"), before, "Voila: slider to mask")
    photograph(page, screenshots, "voila-results", section(page, "What each method finds"))
    uploads(page)
    photograph(page, screenshots, "voila-upload", section(page, "A query"))
    no_traceback(page)
    no_code_gets_through(page, voila, workplace)
    assert not [url for url in fetched if not url.startswith((voila.bare, "data:", "blob:"))]
    assert refused <= {"csp"}  # by the browser, before it asked
    page.close(run_before_unload=True)


def no_code_gets_through(page, voila, workplace):
    """Whoever has the token, and so the kernel's name, can send it no code; without the token
    nobody can reach it at all."""
    kernel = json.loads(page.locator("#jupyter-config-data").text_content())["kernelId"]
    answered = page.evaluate(
        """async ([address, code]) => {
        const socket = new WebSocket(address), kinds = [];
        await new Promise((good, bad) => { socket.onopen = good; socket.onerror = bad; });
        socket.onmessage = (event) => kinds.push(JSON.parse(event.data).header.msg_type);
        const header = (kind) => ({msg_id: crypto.randomUUID(), username: "", session: "stranger",
            date: new Date().toISOString(), msg_type: kind, version: "5.3"});
        const say = (kind, content) => socket.send(JSON.stringify({channel: "shell",
            parent_header: {}, metadata: {}, content, buffers: [], header: header(kind)}));
        say("execute_request", {code, silent: false, store_history: false, user_expressions: {},
            allow_stdin: false});
        say("kernel_info_request", {});
        const until = Date.now() + 10000;
        while (Date.now() < until && !kinds.includes("kernel_info_reply"))
            await new Promise((done) => setTimeout(done, 50));
        return kinds;
    }""",
        [
            f"ws://127.0.0.1:{voila.port}/api/kernels/{kernel}/channels",
            f"open({str(workplace / 'stranger')!r}, 'w')",
        ],
    )
    assert (
        "kernel_info_reply" in answered
        and "execute_reply" not in answered
        and not (workplace / "stranger").exists()
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{voila.bare}/api/kernels/{kernel}")
    assert refused.value.code == 403


def test_visitors_are_apart_and_no_more_than_there_are_places(page, visitor, voila, screenshots):
    """Two at a time, each with a picture of their own, and then a third; nothing stays behind."""
    second, third, before = visitor(), visitor(), files(voila.kept)
    enter(page, voila)
    enter(second, voila)
    for one, name in ((page, "mine.jpg"), (second, "yours.jpg")):
        row(one, "vapnet").wait_for(timeout=LOAD)
        upload(one, name, picture(20 * len(name)), f"Searching with {name}")
        one.get_by_text(f"The query: {name}").wait_for()
    assert "yours.jpg" not in page.content() and "mine.jpg" not in second.content()
    assert query_picture(page) != query_picture(second)

    answer = third.goto(voila.url)
    words = third.locator("body").inner_text()
    assert answer.status == 503 and answer.headers["retry-after"] == "60"
    assert "All 2 places are taken" in words and "30 minutes" in words and "reload" in words
    third.screenshot(path=screenshots / "voila-full.png")

    page.close(run_before_unload=True)
    enter(third, voila)
    row(third, "vapnet").wait_for(timeout=LOAD)
    assert "mine.jpg" not in third.content()
    for one in (second, third):
        one.close(run_before_unload=True)
    until, left = time.monotonic() + 60, None
    while left := files(voila.kept) - before:
        assert time.monotonic() < until, left
        time.sleep(0.2)


def enter(page, voila):
    """Open the page, again while all places are taken: not for long, as somebody has left."""
    until = time.monotonic() + 60
    while page.goto(voila.url, wait_until="commit", timeout=LOAD).status == 503:
        assert time.monotonic() < until, "a page that is closed keeps its place"
        page.wait_for_timeout(200)


def query_picture(page):
    return page.get_by_alt_text(re.compile("^The query")).get_attribute("src")


def files(folders):
    return {path for folder in folders for path in folder.rglob("*")}
