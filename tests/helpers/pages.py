"""What tests do with a notebook in a browser, and what they look at."""

import base64
import os
import re
import time

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 800, "height": 1000}
BROAD = {"width": 1920, "height": 1000}
LOAD = 60_000  # milliseconds: a kernel starts, imports torch, opens the runs
RUN = 300_000  # a notebook runs whole
SMALLEST = 9  # pixels of text on a page
PROMPTS = ".jp-CodeCell .jp-InputArea-prompt"


def run_all(page, url=""):
    """Run all cells of the notebook at an address, or of the one that is open."""
    if url:
        page.goto(url)
    page.get_by_text(re.compile(r"Python 3 .*\| Idle")).wait_for(timeout=LOAD)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All( Cells)?$")).click()


def wait_for(page, there, milliseconds=RUN):
    until = time.monotonic() + milliseconds / 1000
    while not there():
        assert time.monotonic() < until, page.locator(PROMPTS).all_text_contents()
        page.wait_for_timeout(200)


def finished(page, cells):
    """Wait until each of so many code cells has a number and the kernel rests, or one fails."""

    def there():
        no_traceback(page)
        numbers = [text.strip() for text in page.locator(PROMPTS).all_text_contents()]
        ran = [text for text in numbers if re.fullmatch(r"\[\d+\]:", text)]
        return len(ran) == cells and page.get_by_text(re.compile(r"Python 3 .*\| Idle")).count()

    wait_for(page, there)


def shown(page):
    """The text of all outputs."""
    return "\n".join(page.locator(".jp-OutputArea-output").all_inner_texts())


def in_cell(page, name):
    """The cell with a control, and the control, by what its label begins with."""
    label = page.locator(".widget-label", has_text=re.compile(f"^{re.escape(name)}"))
    cell = page.locator(".jp-Cell", has=label)
    return cell, cell.locator(".widget-inline-hbox", has=label)


def legible(page):
    """No text of an output is smaller than SMALLEST at either width, that in figures included,
    which `helpers.smallest_text` has measured; the number of figures with text."""
    for size in (WIDE, BROAD):
        page.set_viewport_size(size)
        page.wait_for_timeout(300)
        figures, smallest = (
            0,
            page.evaluate("""() => {
            const sizes = [...document.querySelectorAll(".jp-OutputArea-output *")]
                .filter(part => [...part.childNodes].some(node =>
                    node.nodeType === Node.TEXT_NODE && node.textContent.trim()))
                .filter(part => part.checkVisibility() && !part.closest("mjx-container, option"))
                .map(part => parseFloat(getComputedStyle(part).fontSize));
            return Math.min(...sizes);
        }"""),
        )
        assert smallest >= SMALLEST, f"text of {smallest} px at {size['width']} px"
        images = page.locator(".jp-OutputArea-output img").evaluate_all(
            "all => all.map(image => [image.src, image.clientWidth / image.naturalWidth])"
        )
        for source, scale in images:
            data = base64.b64decode(source.partition("base64,")[2])
            if found := re.search(rb"smallest text (\d+\.\d+) px$", data):
                text = float(found[1]) * scale
                words = f"figure {figures} at {size['width']} px: text of {text:.1f} px"
                assert text >= SMALLEST, words
                figures += 1
    page.set_viewport_size(WIDE)
    return figures


def photograph_all(page, folder, name):
    """The whole notebook at both widths, to be looked at, where FIELDMARKS_SCREENSHOTS asks."""
    if "FIELDMARKS_SCREENSHOTS" not in os.environ:
        return
    for size in (WIDE, BROAD):
        page.set_viewport_size(size)
        page.wait_for_timeout(300)
        outer = page.locator(".jp-WindowedPanel-outer").first
        height = outer.evaluate("part => part.scrollHeight")
        page.set_viewport_size({**size, "height": min(height + 200, 16_000)})
        outer.evaluate("part => { part.scrollTop = 0; }")
        page.wait_for_timeout(2000)
        page.screenshot(path=folder / f"{name}-{size['width']}.png")
    page.set_viewport_size(WIDE)


def row(page, name):
    return page.get_by_role("group", name=re.compile(f"^{name}"))


def sources(place):
    return place.locator("img").evaluate_all("images => images.map(image => image.src)")


def changed(page, place, before, what):
    """The pictures at a place, once they are others than before."""
    began = time.perf_counter()
    while (now := sources(place)) == before or not now:
        assert time.perf_counter() - began < 30, f"{what}: the pictures have not changed"
        page.wait_for_timeout(5)
    print(f"{what}: {1000 * (time.perf_counter() - began):.0f} ms")
    return now


def section(page, title):
    """The output below a heading."""
    output = '*[contains(@class, "jp-OutputArea-output")][1]'
    return page.locator(f'xpath=//h2[contains(., "{title}")]/following::{output}')


def nothing_is_cut(page):
    """No picture, button or text reaches beyond its panel; the page does not scroll sideways."""
    cut = page.evaluate("""() => {
        const panels = [...document.querySelectorAll(".jp-OutputArea-output")];
        return panels.flatMap(panel => {
            const right = panel.getBoundingClientRect().right + 1;
            return [...panel.querySelectorAll("img, button, canvas, select, label, table, p")]
                .filter(part => part.offsetParent && part.getBoundingClientRect().right > right)
                .map(part => part.outerHTML.slice(0, 90));
        });
    }""")
    assert not cut, cut
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def photograph(page, folder, name, place):
    """The page around a place, at both window sizes."""
    for size, words in ((NARROW, "narrow"), (WIDE, "wide")):
        page.set_viewport_size(size)
        place.evaluate("part => part.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(400)
        nothing_is_cut(page)
        page.screenshot(path=folder / f"{name}-{words}.png")


def no_traceback(page):
    kinds = [f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("error", "stderr")]
    said = page.locator(", ".join(kinds)).all_text_contents()
    assert not said, said
    assert "Traceback" not in page.content()
