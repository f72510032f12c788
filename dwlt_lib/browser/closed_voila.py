"""Voila with everything it serves behind the token, asking no other host for anything.

By itself it leaves static files, /voila/files and one websocket open. A kernel that has run the
notebook already waits for the next visitor (a page in three seconds instead of seven); it is given
up if there are new records since.
"""

from __future__ import annotations

import asyncio
import re
import time
from http.client import responses
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.base.handlers import JupyterHandler
from tornado.ioloop import IOLoop
from tornado.web import HTTPError, RequestHandler
from traitlets import Callable, Float
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

WARM_UP_LIMIT = 20  # seconds
FOREIGN = re.compile(r'<link [^>]*href="https?://[^>]*>')  # Voila's template asks for icons


def behind_token(handler: type[RequestHandler]) -> type[RequestHandler]:
    """A handler that answers only requests with the token, or with the cookie traded for it.

    Args:
        handler: what is to be closed.

    Returns:
        Its subclass, which also refuses a foreign Host and leaves out links to other hosts;
        whatever is refused is answered in a line.
    """
    bases = (handler,) if issubclass(handler, JupyterHandler) else (JupyterHandler, handler)

    class Closed(*bases):
        async def prepare(self) -> None:
            await ensure_async(super().prepare())
            if self.current_user is None and not self._finished:
                raise HTTPError(403)

        def write(self, chunk: str | bytes | dict) -> None:
            super().write(FOREIGN.sub("", chunk) if isinstance(chunk, str) else chunk)

        def write_error(self, status_code: int, **kwargs: object) -> None:
            self.set_header("Content-Type", "text/plain")
            self.finish(f"{status_code} {responses.get(status_code, '')}\n")

    return Closed


class Page(TornadoVoilaHandler):
    """The notebook as a page, with the records of now."""

    async def get(self, path: str | None = None) -> None:
        """Serve the page; a kernel that waits since before the newest record is given up first.

        Args:
            path: of the request, within the page; Voila's.
        """
        server, pool = self.settings["voila"], self.settings["kernel_manager"]
        if server.newest() > server.warmed and pool.get_pool_size(self.notebook_path):
            _, _, kernel = await pool.get_rendered_notebook(self.notebook_path)
            await ensure_async(pool.shutdown_kernel(kernel, now=True))
        server.warmed = time.time()  # a new kernel is started for the next visitor
        await ensure_async(super().get(path))


class ClosedVoila(Voila):
    """Voila behind the token."""

    announce = Callable()
    """Called without arguments once the server listens and its first page is ready."""
    newest = Callable()
    """Says when a record was last made (time.time())."""
    warmed = Float()
    """Since when a kernel waits for the next visitor (time.time())."""

    def init_handlers(self) -> Any:
        """Voila's handlers, closed.

        Returns:
            Rules of tornado (pattern, handler, ...); only the login answers without the token.
        """
        self.warmed = time.time()
        handlers: Any = super().init_handlers()
        closed = []
        for pattern, handler, *rest in handlers:
            if handler is TornadoVoilaHandler:
                handler = Page
            if not issubclass(handler, LoginFormHandler):
                handler = behind_token(handler)
            closed.append((pattern, handler, *rest))
        return closed

    def launch_browser(self) -> None:
        """Announce instead, soon."""
        IOLoop.current().add_callback(self.announce_warm)

    async def announce_warm(self) -> None:
        """Announce once the waiting kernel has run the notebook, so that the page opens at once."""
        for _ in range(10 * WARM_UP_LIMIT):
            # Voila tells only how many kernels wait, not how far they are.
            pools = getattr(self.kernel_manager, "_pools", {})
            waiting = [task for pool in pools.values() for task in pool]
            if all(map(_is_warm, waiting)):
                break
            await asyncio.sleep(0.1)
        self.announce()


def _is_warm(task: asyncio.Task) -> bool:
    """Whether a waiting kernel has run the notebook, or has failed to start."""
    return task.done() and bool(task.exception() or task.result()["task"].done())
