"""Voila for a classroom: kernels from a warm process, so many places and no more, no code."""

import sys
from pathlib import Path

from traitlets.config import Config
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

from fieldlab.serve.kernel import warm_up
from fieldlab.serve.places import Places, fork_kernels

FULL = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>All places are taken</title></head>
<body style="font: 18px/1.5 sans-serif; max-width: 34em; margin: 15vh auto; padding: 0 1em">
<h1>All {places} places are taken</h1>
<p>A place comes free when somebody closes the page, or has not used it for {minutes} minutes.
Then reload this page.</p></body></html>"""

# Voila's page asks for a style sheet from elsewhere, for which a classroom without the internet
# would wait.
FROM_HERE = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


class Door(TornadoVoilaHandler):
    """The page of the notebook, or the one that says that there is no place."""

    async def get(self, path: str | None = None) -> None:
        _ = self.xsrf_token  # sets the cookie, without which a page that closes cannot say so
        await super().get(path)

    def write_error(self, status_code: int, **kwargs) -> None:
        if status_code != 503:
            super().write_error(status_code, **kwargs)
            return
        kernels = self.kernel_manager
        minutes = -(-kernels.cull_idle_timeout // 60)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Retry-After", "60")
        self.finish(FULL.format(places=kernels.places, minutes=minutes))


class Classroom(Voila):
    """Voila with a door."""

    def init_handlers(self) -> list:
        handlers = super().init_handlers()
        return [
            (path, Door if kind is TornadoVoilaHandler else kind, *rest)
            for path, kind, *rest in handlers
        ]


def serve(notebook: Path, address: str, port: int, visitors: int, idle: int) -> None:
    """Serve a notebook until told to stop.

    Code is neither shown nor accepted: Voila lets through only what widgets say. No file beside the
    notebook is served, and no message may be larger than 10 MB (the limit of its web server).

    Args:
        visitors: how many kernels there may be.
        idle: seconds after which the kernel of a page that nobody uses is ended, open or not.
    """
    try:
        print(f"Opening the runs: {warm_up(notebook)}.", flush=True)
    except RuntimeError as error:
        sys.exit(f"cannot serve '{notebook}': {error}")
    fork_kernels()
    kernels = {"places": visitors, "cull_idle_timeout": idle, "cull_connected": True}
    kernels["cull_interval"] = max(1, min(60, idle // 2))
    page = {"file_denylist": [".*"], "allow_template_override": "NO"}
    page["multi_kernel_manager_class"] = Places
    app = {"auto_token": True, "open_browser": False, "ip": address, "port": port}
    app["tornado_settings"] = {"headers": {"Content-Security-Policy": FROM_HERE}}
    config = Config({"Voila": app, "VoilaConfiguration": page, "Places": kernels})
    Classroom.launch_instance([str(notebook)], config=config)
