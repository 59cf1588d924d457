"""What tests do with a notebook in a browser, and what they look at."""

import re
import time

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 800, "height": 1000}
LOAD = 60_000  # milliseconds: a kernel starts, imports torch, opens the runs


def run_all(page, url):
    page.goto(url)
    page.get_by_text(re.compile(r"Python 3 .*\| Idle")).wait_for(timeout=LOAD)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All( Cells)?$")).click()


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
    assert page.locator(", ".join(kinds)).count() == 0
    assert "Traceback" not in page.content()
