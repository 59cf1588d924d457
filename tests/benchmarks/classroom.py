"""A classroom at `make serve`: visitors come one after another, each with a page in a real browser.

    PYTHONPATH=tests python tests/benchmarks/classroom.py [--folder DIR] [--visitors 20]
        [--every 3] [--command "voila notebooks/explore.ipynb --token --no-browser --port={port}"]

DIR holds `notebooks/explore.ipynb` and finished `runs`; without it small ones are made. Printed: of
each visitor, the seconds from opening the page until the first result is seen, and from a click on
another query until its results are; the memory as PSS, of the server with all its processes and of
each kernel, before and after each visitor has asked why, drawn the map and uploaded a picture; what
one visitor too many sees; how long it takes until a place is free once a page is closed.
`--command` measures another server. The browser takes its share of the processors, which are also
counted, but does not count as memory.
"""

import argparse
import asyncio
import io
import os
import re
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from helpers.serving import (
    all_of,
    free_port,
    kernels_of,
    make_workplace,
    pss,
    serve_command,
    serving,
    token_of,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--every", type=float, default=3, help="seconds")
    parser.add_argument("--command", help="another server, with {port}")
    options = parser.parse_args()
    environment, port = dict(os.environ), free_port()
    if options.command:
        command = [sys.executable, "-m", *shlex.split(options.command.format(port=port))]
    else:
        command = serve_command(port, VISITORS=options.visitors)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "workplace"
        if not options.folder:
            make_workplace(folder, environment)
        began = time.perf_counter()
        address = f"http://127.0.0.1:{port}"
        with serving(command, f"{address}/login", environment, folder) as (log, process):
            print(f"the server answers after {time.perf_counter() - began:.0f} s")
            url = f"{address}/?token={token_of(log)}"
            full = not options.command
            asyncio.run(visits(url, process.pid, options.visitors, options.every, full))


async def visits(url: str, server: int, count: int, every: float, full: bool) -> None:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        before = processor_seconds(server)
        coming = [visit(browser, url, number * every) for number in range(count)]
        visitors = await asyncio.gather(*coming)
        report("opening to first result", [opened for _, opened, _ in visitors])
        report("another query to its results", [answered for *_, answered in visitors])
        memory("all pages open", server)
        spent = [after - b for after, b in zip(processor_seconds(server), before, strict=True)]
        words = "processor seconds a visitor: server and kernel {:.1f}, browser {:.1f}"
        print(words.format(*(seconds / count for seconds in spent)), flush=True)
        pages = [page for page, *_ in visitors]
        for number, page in enumerate(pages):
            await use(page, number)
        memory("and used", server)
        if full:
            await one_more(browser, url, pages[0])
        await browser.close()


async def visit(browser: Browser, url: str, after: float) -> tuple[Page, float, float]:
    """A page, seconds until its first result was seen, and until those of another query were."""
    await asyncio.sleep(after)
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(300_000)
    page = await context.new_page()
    began = time.perf_counter()
    await page.goto(url, wait_until="commit")
    result = row(page, "vapnet").locator("img").first
    await result.wait_for()
    opened, source = time.perf_counter() - began, await result.get_attribute("src")
    await asyncio.sleep(1)
    began = time.perf_counter()
    await row(page, "Click a picture").get_by_role("button").nth(5).click()
    while await result.get_attribute("src") == source:
        await asyncio.sleep(0.02)
    answered = time.perf_counter() - began
    print(f"  {opened:.1f} s, {1000 * answered:.0f} ms", flush=True)
    return page, opened, answered


async def use(page: Page, number: int) -> None:
    """Ask why, draw the map, upload a picture of one's own."""
    await row(page, "vapnet").get_by_role("button").nth(1).click()
    await page.get_by_alt_text("what in the query makes it like the other").wait_for()
    await page.get_by_role("button", name="Draw the map").click()
    await page.locator("canvas[role=application]").wait_for()
    with io.BytesIO() as stream:
        Image.effect_noise((3000, 2000), 20 + number).convert("RGB").save(stream, "JPEG")
        picture = {"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": stream.getvalue()}
    await page.locator('input[type="file"]').set_input_files(picture)
    await page.get_by_text("The query: mine.jpg").wait_for()


async def one_more(browser: Browser, url: str, first: Page) -> None:
    """Come when all places are taken, and again when one is free."""
    page = await (await browser.new_context()).new_page()
    began = time.perf_counter()
    answer = await page.goto(url)
    words = " ".join((await page.locator("body").inner_text()).split())
    print(f"one more, after {time.perf_counter() - began:.1f} s: {answer.status}, {words}")
    began = time.perf_counter()
    await first.close(run_before_unload=True)
    while (await page.goto(url)).status == 503:
        await asyncio.sleep(0.2)
    await row(page, "vapnet").locator("img").first.wait_for()
    print(f"a page is closed: the next has its result {time.perf_counter() - began:.1f} s later")


def row(page: Page, name: str):
    return page.get_by_role("group", name=re.compile(f"^{name}"))


def report(what: str, seconds: list[float]) -> None:
    middle = statistics.median(seconds)
    print(f"{what}: median {middle:.2f} s, worst {max(seconds):.2f} s, of {len(seconds)}")


def processor_seconds(server: int) -> tuple[float, float]:
    """Of the server with its kernels, and of everything else that was started: the browser."""
    ours = set(all_of(server))
    parts = ours, set(all_of(os.getpid())[1:]) - ours
    return tuple(sum(sum(one.cpu_times()[:2]) for one in part) for part in parts)


def memory(when: str, server: int) -> None:
    total = sum(map(pss, all_of(server))) / 1e9
    each = [pss(kernel) / 1e6 for kernel in kernels_of(server)]
    size = f"{statistics.median(each):.0f} MB each, {max(each):.0f} at most"
    print(f"{when}: PSS {total:.2f} GB in all; {len(each)} kernels, {size}", flush=True)


if __name__ == "__main__":
    main()
