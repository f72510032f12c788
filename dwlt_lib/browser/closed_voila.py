"""Voila with every door behind the token: by itself it leaves static files, /voila/files and one
websocket open.

A kernel that has run the notebook already waits for the next visitor (a page in three seconds
instead of seven); it is given up if there are new records since.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from http.client import responses

from jupyter_core.utils import ensure_async
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.base.handlers import JupyterHandler
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RequestHandler
from traitlets import Callable as CallableTrait
from traitlets import Float
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

PATIENCE = 20  # seconds
FOREIGN = re.compile(
    r'<link [^>]*href="https?://[^>]*>'
)  # the template asks another host for icons


def behind_token(handler: type[RequestHandler]) -> type[RequestHandler]:
    """The handler.

    It refuses a foreign Host, and whoever brings neither the token nor the cookie traded for it.
    """
    bases = (handler,) if issubclass(handler, JupyterHandler) else (JupyterHandler, handler)

    class Closed(*bases):
        async def prepare(self) -> None:
            await ensure_async(super().prepare())
            if self.current_user is None and not self._finished:
                raise HTTPError(403)

        def write_error(self, status_code: int, **kwargs: object) -> None:
            self.set_header("Content-Type", "text/plain")
            self.finish(f"{status_code} {responses.get(status_code, '')}\n")

    return Closed


class Page(TornadoVoilaHandler):
    """The notebook as a page, with the records of now, and asking no other host for anything."""

    async def get(self, path: str | None = None) -> None:
        server, pool = self.settings["voila"], self.kernel_manager
        if server.newest() > server.warmed and pool.get_pool_size(self.notebook_path):
            _, _, kernel = await pool.get_rendered_notebook(self.notebook_path)
            await ensure_async(pool.shutdown_kernel(kernel, now=True))
        server.warmed = time.time()  # a new kernel is started for the next visitor
        await super().get(path)

    def write(self, chunk: str | bytes | dict) -> None:
        super().write(FOREIGN.sub("", chunk) if isinstance(chunk, str) else chunk)


class ClosedVoila(Voila):
    """announce: called once the server listens; newest.

    When a record was last made (time.time()).
    """

    announce: Callable[[], None] = CallableTrait()
    newest: Callable[[], float] = CallableTrait()
    warmed: float = Float()  # since when a kernel waits

    def init_handlers(self) -> list[tuple]:
        self.warmed = time.time()
        found = []
        for pattern, handler, *rest in super().init_handlers():
            handler = Page if handler is TornadoVoilaHandler else handler
            found.append(
                (
                    pattern,
                    handler if issubclass(handler, LoginFormHandler) else behind_token(handler),
                    *rest,
                )
            )
        return found

    def launch_browser(self) -> None:
        IOLoop.current().add_callback(self.announce_warm)

    async def announce_warm(self) -> None:
        """Announce once the waiting kernel has run the notebook, so that the page opens at once.

        Soon in any case.
        """
        for _ in range(10 * PATIENCE):
            pools = getattr(
                self.kernel_manager, "_pools", {}
            )  # Voila tells only how many, not how far
            waiting = [task for pool in pools.values() for task in pool]
            if all(
                task.done() and (task.exception() or task.result()["task"].done())
                for task in waiting
            ):
                break
            await asyncio.sleep(0.1)
        self.announce()
