"""A visitor of the explorer without a browser: the same page and messages, nothing drawn."""

import asyncio
import json
import re
from collections.abc import Callable
from uuid import uuid4

from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    serialize_binary_message,
)
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

WIDGETS = "jupyter.widget.control"


class PlainVisitor:
    """What is on a page, by the names of its widgets' models.

    Attributes:
        states: of each widget, by its model's name.
    """

    def __init__(self, socket):
        self.socket, self.states = socket, {}

    @classmethod
    async def open(cls, url: str) -> "PlainVisitor":
        """Load the page, and all that its widgets show."""
        address, token = url.split("/?token=")
        page = await AsyncHTTPClient().fetch(url, request_timeout=600)
        kernel = re.search(r'"kernelId": "([^"]+)"', page.body.decode()).group(1)
        channels = f"{address.replace('http', 'ws')}/api/kernels/{kernel}/channels"
        headers = {"Authorization": f"token {token}"}
        self = cls(await websocket_connect(HTTPRequest(channels, headers=headers)))
        control = uuid4().hex
        opened = {"comm_id": control, "target_name": WIDGETS, "data": {}}
        await self._send("comm_open", opened, metadata={"version": "2.1.0"})
        await self._send("comm_msg", {"comm_id": control, "data": {"method": "request_states"}})
        while not self.states:
            content = await self._next()
            if content.get("data", {}).get("method") == "update_states":
                of_all = content["data"]["states"]
                self.states = {name: one["state"] for name, one in of_all.items()}
        return self

    def find(self, trait: str, words: str) -> str:
        """The model's name of the first widget with a text that begins so."""
        named = ((name, str(state.get(trait, ""))) for name, state in self.states.items())
        return next(name for name, text in named if text.startswith(words))

    async def set(self, name: str, **values) -> None:
        data = {"method": "update", "state": values, "buffer_paths": []}
        await self._send("comm_msg", {"comm_id": name, "data": data})

    async def tell(self, name: str, content: dict, *buffers: bytes) -> None:
        """As a click does, or a file."""
        data = {"method": "custom", "content": content}
        await self._send("comm_msg", {"comm_id": name, "data": data}, buffers=list(buffers))

    async def until(self, true: Callable[[str, dict], bool]) -> None:
        """Take what comes, up to a change of a widget for which true(name, values)."""
        async with asyncio.timeout(300):
            while True:
                content = await self._next()
                data = content.get("data", {})
                if data.get("method") == "update":
                    name, values = content["comm_id"], data["state"]
                    self.states.setdefault(name, {}).update(values)
                    if true(name, values):
                        return

    def close(self) -> None:
        self.socket.close()

    async def _next(self) -> dict:
        message = await self.socket.read_message()
        assert message is not None, "the server has closed the connection"
        binary = isinstance(message, bytes)
        return (deserialize_binary_message if binary else json.loads)(message)["content"]

    async def _send(self, kind: str, content: dict, metadata=None, buffers=()) -> None:
        header = {"msg_id": uuid4().hex, "username": "", "session": "plain", "msg_type": kind}
        header |= {"version": "5.3", "date": "2026-11-26T00:00:00Z"}
        message = {"header": header, "parent_header": {}, "metadata": metadata or {}}
        message |= {"content": content, "channel": "shell", "buffers": list(buffers)}
        if buffers:
            await self.socket.write_message(serialize_binary_message(message), binary=True)
        else:
            await self.socket.write_message(json.dumps(message))
