"""Places in a classroom: each visitor's kernel takes one."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from tornado.web import HTTPError
from traitlets import Integer

from fieldlab.serve.kernel import Kernel

# Seconds without a connection after which a page is taken for closed: one that was open, and one
# that is still loading, which takes long where all come at once.
LEFT, NEVER_CAME = 120, 600


class ForkedProvisioner(LocalProvisioner):
    """Starts kernels by a fork instead of by the command of their specification."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        self.cwd = kwargs.get("cwd") or Path.cwd()
        self.process = Kernel(self.parent.connection_file, self.cwd, kwargs["env"])
        self.process.start()
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        if await self.poll() is None:  # after its end the number may be another process's
            await super().send_signal(signum)


def fork_kernels() -> None:
    """From now on kernels of this process are forked."""
    name, target = "forked", f"{ForkedProvisioner.__module__}:{ForkedProvisioner.__name__}"
    factory = KernelProvisionerFactory.instance()
    factory.provisioners[name] = EntryPoint(name, target, factory.GROUP_NAME)
    factory.default_provisioner_name = name


class Places(AsyncMappingKernelManager):
    """Kernels, of which there are never more than `places`, those that are starting included."""

    places = Integer(20, config=True)

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._starting: set[str] = set()

    async def start_kernel(self, **kwargs: Any) -> str:
        """Raises HTTPError 503 where no place is free."""
        # Nothing is awaited from here until the place is taken, so two cannot take the same one.
        if len({*self.list_kernel_ids(), *self._starting}) >= self.places:
            raise HTTPError(503, reason="All places are taken")
        name = self.new_kernel_id(**kwargs)
        self._starting.add(name)
        try:
            await super().start_kernel(kernel_id=name, **kwargs)
        finally:
            self._starting.remove(name)
        IOLoop.current().call_later(NEVER_CAME, self._end_if_left, name)
        return name

    def notify_disconnect(self, kernel_id: str) -> None:
        super().notify_disconnect(kernel_id)
        IOLoop.current().call_later(LEFT, self._end_if_left, kernel_id)

    async def _end_if_left(self, kernel_id: str) -> None:
        """A page says that it closes, but not when the browser crashes or the network is gone."""
        if self._kernel_connections.get(kernel_id) == 0:
            await self.shutdown_kernel(kernel_id)
