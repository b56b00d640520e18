"""HTTP responses.

GET /page and below        the page: static files of this package
GET /recordings/NAME.mid   a recording
GET /recordings            the list of them
everything else            OSCQuery
GET /                      the page for a browser, OSCQuery for other clients
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

from perceivers_live.page.recordings import Recordings, RecordingsError

STATIC = Path(__file__).with_name("static")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # so that a new version of the program shows its new page
}


@dataclass(frozen=True)
class Answer:
    """An HTTP response; ``body`` may be empty."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


QueryAnswer = Callable[[str, list[str]], tuple[HTTPStatus, object]]  # path, attributes -> status, object to encode as JSON


class Routes:
    """Answers requests. ``query``: OSCQuery; ``recordings``: the recordings, or None."""

    def __init__(self, query: QueryAnswer, recordings: Recordings | None = None) -> None:
        self._query, self._recordings = query, recordings
        self._files = {f"/page/{path.relative_to(STATIC).as_posix()}": path for path in STATIC.rglob("*") if path.suffix in TYPES}

    def answer(self, target: str, *, for_people: bool) -> Answer:
        """The response to a GET of ``target`` (path and query). ``for_people``: the client accepts HTML. Raises ``ValueError`` if
        the target is malformed.
        """
        url = urlsplit(target)
        path = unquote(url.path)
        if path == "/" and not url.query and for_people:
            return Answer(HTTPStatus.FOUND, headers={"Location": "/page/"})
        if path == "/page":
            return Answer(HTTPStatus.FOUND, headers={"Location": "/page/"})
        if path.startswith("/page/"):
            return self._static("/page/index.html" if path == "/page/" else path)
        if path == "/recordings" or path.startswith("/recordings/"):
            return self._recording(path.removeprefix("/recordings").removeprefix("/"))
        attributes = [name for name in url.query.split("&") if name]
        status, found = self._query(path, attributes)
        if status is not HTTPStatus.OK:
            return refusal(status)
        return _json(found)

    def _static(self, path: str) -> Answer:
        file = self._files.get(path)  # only files that existed at the start
        return Answer(HTTPStatus.OK, file.read_bytes(), TYPES[file.suffix]) if file is not None else refusal(HTTPStatus.NOT_FOUND)

    def _recording(self, name: str) -> Answer:
        stem, _, ending = name.rpartition(".")
        try:
            if not name:
                return _json(self._recordings.recordings() if self._recordings is not None else [])
            if self._recordings is None or ending != "mid":
                return refusal(HTTPStatus.NOT_FOUND)
            content = self._recordings.content(stem)
        except RecordingsError as error:
            return Answer(HTTPStatus.NOT_FOUND, f"{error}\n".encode())
        return Answer(HTTPStatus.OK, content, "audio/midi", {"Content-Disposition": f'attachment; filename="{name}"'})


def refusal(status: HTTPStatus) -> Answer:
    """A response with only a status."""
    return Answer(status, b"" if status is HTTPStatus.NO_CONTENT else f"{status.value} {status.phrase}\n".encode())


def _json(found: object) -> Answer:
    return Answer(HTTPStatus.OK, json.dumps(found).encode(), "application/json")
