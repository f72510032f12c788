"""Voila with everything it serves behind the token, asking no other host for anything.

By itself it leaves static files, /voila/files and one websocket open, and its page loads icons from
elsewhere.
"""

from __future__ import annotations

import re
from http.client import responses
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.login import LoginFormHandler
from jupyter_server.base.handlers import JupyterHandler
from tornado.web import HTTPError, RequestHandler
from voila.app import Voila

FOREIGN = re.compile(r'<link [^>]*href="https?://[^>]*>')


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


class ClosedVoila(Voila):
    """Voila behind the token."""

    def init_handlers(self) -> Any:
        """Voila's handlers, closed.

        Returns:
            Rules of tornado (pattern, handler, ...); only the login answers without the token.
        """
        handlers: Any = super().init_handlers()
        closed = []
        for pattern, handler, *rest in handlers:
            if not issubclass(handler, LoginFormHandler):
                handler = behind_token(handler)
            closed.append((pattern, handler, *rest))
        return closed
