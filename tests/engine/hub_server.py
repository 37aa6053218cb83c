"""A small Hugging Face Hub: as much of its API as a download needs, on loopback, with faults on demand."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = "studio/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE_BYTES = 100_000
"""From this size on, files are served as large ones are: named by their SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A request for a file's contents."""

    name: str
    range: str
    authorization: str


@dataclass(slots=True)
class Faults:
    """What goes wrong.

    status: what everything about the repository is answered with, with the Hub's code for it.
    cut_after: after how many bytes the first transfer of the large file is cut.
    hold_after: after how many bytes each of its transfers says nothing more, until `released`.
    """

    status: tuple[int, str] | None = None
    cut_after: int | None = None
    hold_after: int | None = None
    released: threading.Event = field(default_factory=threading.Event)


class HubServer:
    """The server, for one repository with the files of a folder."""

    def __init__(self, folder: Path):
        """Serve nothing yet."""
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.faults = Faults()
        self.fetched: list[Fetched] = []
        self.holding = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and close the address."""
        self.stop()

    def stop(self) -> None:
        """End every transfer and close the address."""
        self.faults.released.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def address(self) -> str:
        """What `HF_ENDPOINT` must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def large(self) -> str:
        """The name of the large file."""
        return max(self.files, key=lambda name: len(self.files[name]))

    def etag(self, name: str) -> str:
        """Return the Hub's name of a file's contents."""
        content = self.files[name]
        if len(content) >= LARGE_BYTES:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()  # noqa: S324  # git's own name

    def tree(self) -> list[dict[str, Any]]:
        """Return what the Hub lists of the repository."""
        return [self._entry(name) for name in sorted(self.files)]

    def _entry(self, name: str) -> dict[str, Any]:
        size = len(self.files[name])
        entry = {"type": "file", "path": name, "size": size, "oid": self.etag(name)}
        large = {"lfs": {"oid": self.etag(name), "size": size, "pointerSize": 130}}
        return entry | (large if size >= LARGE_BYTES else {})


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            pass

        def do_HEAD(self) -> None:  # the base class's name
            self._answer(body=False)

        def do_GET(self) -> None:  # the base class's name
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            file = re.fullmatch(rf"/{REPOSITORY}/resolve/\w+/(.+)", path)
            known = path.startswith(f"/api/models/{REPOSITORY}")
            if hub.faults.status is not None and (file or known):
                self._refuse(*hub.faults.status)
            elif file and file[1] in hub.files:
                self._send_file(file[1], body=body)
            elif known and "/tree/" in path:
                self._send_json(hub.tree())
            elif known:
                siblings = [{"rfilename": name} for name in hub.files]
                self._send_json({"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings})
            else:
                self._refuse(401, "RepoNotFound")

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "refused")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send_json(self, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _send_file(self, name: str, *, body: bool) -> None:
            content, wanted = hub.files[name], self.headers.get("Range", "")
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hub.etag(name)}"')
            self.send_header("X-Linked-Etag", f'"{hub.etag(name)}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if body:
                hub.fetched.append(
                    Fetched(name=name, range=wanted, authorization=self.headers.get("Authorization", ""))
                )
                self._transfer(name, content, start)

        def _transfer(self, name: str, content: bytes, start: int) -> None:
            faults = hub.faults
            if name != hub.large:
                self.wfile.write(content)
            elif faults.cut_after is not None:
                end, faults.cut_after = faults.cut_after, None
                self.wfile.write(content[start:end])
                self.close_connection = True
            elif faults.hold_after is not None:
                self.wfile.write(content[start : max(start, faults.hold_after)])
                self.wfile.flush()
                hub.holding.set()
                faults.released.wait()
                self.close_connection = True
            else:
                self.wfile.write(content[start:])

    return Handler
