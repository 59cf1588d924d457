"""A classroom at `make serve`: visitors come one after another, some of them in a real browser.

    PYTHONPATH=tests python tests/benchmarks/classroom.py [--folder DIR] [--visitors 20]
        [--browsers 4] [--every 3]
        [--command "voila notebooks/explore.ipynb --token --no-browser --port={port}"]

DIR holds `notebooks/explore.ipynb` and finished `runs`; without it small ones are made. Printed: of
each visitor, the seconds from opening the page until the first result is seen, and from a click on
another query until its results are; the memory as PSS, of the server with all its processes and of
each kernel, before and after those in a browser have asked why, drawn the map and uploaded a
picture; what one visitor too many sees; how long it takes until a place is free once a page is
closed. `--command` measures another server. A browser of each visitor's own would not be on the
server's machine, so most visitors load the page, complete when its cells have run, and stay
connected without one; its memory does not count.
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
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from helpers.serving import (
    all_of,
    copy_notebooks,
    free_port,
    kernels_of,
    make_runs,
    pss,
    serve_command,
    serving,
    token_of,
)

SIZE = {"width": 1280, "height": 800}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--browsers", type=int, default=4, help="so many of them in a browser")
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
            copy_notebooks(folder)
            make_runs(folder, environment)
        began = time.perf_counter()
        address = f"http://127.0.0.1:{port}"
        with serving(command, f"{address}/login", environment, folder) as (log, process):
            print(f"the server answers after {time.perf_counter() - began:.0f} s")
            url = f"{address}/?token={token_of(log)}"
            asyncio.run(visits(url, process.pid, options))


async def visits(url: str, server: int, options: argparse.Namespace) -> None:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        count, every = options.visitors, options.every
        step = max(1, count // max(1, options.browsers))
        real = set(range(0, count, step)) if options.browsers else set()
        before = processor_seconds(server)
        coming = [
            visit(url, number, number * every, browser if number in real else None)
            for number in range(count)
        ]
        visitors = await asyncio.gather(*coming)
        for kind, drawn in (("in the browser", True), ("without one", False)):
            times = [each for each in visitors if isinstance(each[0], Page) == drawn]
            if times:
                report(f"opening to the first result, {kind}", [opened for _, opened, _ in times])
            if drawn and times:
                report("another query to its results", [found for *_, found in times])
        memory("all pages open", server)
        spent = [after - b for after, b in zip(processor_seconds(server), before, strict=True)]
        print(f"processor seconds of the server and each kernel: {spent[0] / count:.2f} a visitor")
        print(f"of the browser: {spent[1] / max(1, len(real)):.2f} a page", flush=True)
        for number, (visitor, *_) in enumerate(visitors):
            if isinstance(visitor, Page):
                await use(visitor, number)
        memory("and used", server)
        if not options.command:
            await one_more(browser, url, visitors[0][0])
        await browser.close()


async def visit(url: str, number: int, after: float, browser: Browser | None) -> tuple:
    """A page, seconds until its first result was there, and, in a browser, until those of another
    query were."""
    await asyncio.sleep(after)
    began = time.perf_counter()
    if browser is None:
        page = await load(url)
        opened = time.perf_counter() - began
        print(f"  {number + 1}: {opened:.1f} s, without a browser", flush=True)
        return page, opened, None
    page = await (await browser.new_context(viewport=SIZE)).new_page()
    page.set_default_timeout(300_000)
    await page.goto(url, wait_until="commit")
    await row(page, "vapnet").locator("img").first.wait_for()
    opened = time.perf_counter() - began
    await asyncio.sleep(1)
    before, began = await row(page, "vapnet").inner_html(), time.perf_counter()
    await row(page, "Click a picture").get_by_role("button").nth(1 + number % 20).click()
    while await row(page, "vapnet").inner_html() == before:
        await asyncio.sleep(0.02)
    found = time.perf_counter() - began
    print(f"  {number + 1}: {opened:.1f} s, {1000 * found:.0f} ms, in the browser", flush=True)
    return page, opened, found


async def load(url: str):
    """The page, complete when its cells have run, and the connection that keeps its kernel."""
    address, token = url.split("/?token=")
    page = await AsyncHTTPClient().fetch(url, request_timeout=300)
    kernel = re.search(r'"kernelId": "([^"]+)"', page.body.decode())[1]
    channels = f"{address.replace('http', 'ws')}/api/kernels/{kernel}/channels"
    return await websocket_connect(
        HTTPRequest(channels, headers={"Authorization": f"token {token}"})
    )


async def use(page: Page, number: int) -> None:
    """Ask why, draw the map, upload a picture of one's own."""
    await row(page, "vapnet").get_by_role("button").nth(1).click()
    await page.get_by_alt_text("what in the query makes it like the other").wait_for()
    await page.get_by_role("button", name="Draw the map").click()
    await page.locator("canvas[role=application]").wait_for()
    picture = {"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": photograph(number)}
    await page.locator('input[type="file"]').set_input_files(picture)
    await page.get_by_text("The query: mine.jpg").wait_for()


def photograph(number: int) -> bytes:
    with io.BytesIO() as stream:
        Image.effect_noise((3000, 2000), 20 + number).convert("RGB").save(stream, "JPEG")
        return stream.getvalue()


async def one_more(browser: Browser, url: str, first: Page) -> None:
    """Come when all places are taken, and again when one is free."""
    page = await (await browser.new_context()).new_page()
    began = time.perf_counter()
    answer = await page.goto(url)
    words = " ".join((await page.locator("body").inner_text()).split())
    print(f"one more, after {time.perf_counter() - began:.1f} s: {answer.status}, {words}")
    if not isinstance(first, Page):
        return  # its place comes free too, but only after a while
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
