"""Hub: a Hugging Face id becomes a folder of the local cache, by a download that is told, bounded and resumed.

huggingface_hub 2.4 begins a file anew after each interruption: its unfinished files have names of their own. Here each
unfinished file keeps its name, `blobs/<etag>.mondrian`, and goes on where it ended, also in another process. Finished
files lie where huggingface_hub looks for them, and it does all the rest.
"""

import fcntl
import hashlib
import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

from mondrian_server.engine.process.mlx_typed import member
from mondrian_server.engine.protocol import Loading

_FILES = ("*.json", "*.jsonl", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja")
_CODE = ("*.py",)
_DUPLICATES = ("*consolidated.safetensors",)
"""A second form of the weights, which mlx-vlm does not read."""

_AT_ONCE = 4
_CHUNK_BYTES = 64 * 1024
_REPORT_EVERY_S = 0.25
_RETRY_AFTER_S = 1.0
_MOST_BYTES_BY_HTTP = 50 * 10**9
_SHA256_DIGITS = 64


class DownloadError(Exception):
    """The model cannot be downloaded; the message is one line, without the model's name at its beginning."""


@dataclass  # Without slots: huggingface_hub sets attributes of progress bars.
class _Transfer:
    """One file: how much of it is here, as huggingface_hub's progress bars count."""

    name: str
    size: int
    done: int = 0

    def bar(self, *, initial: int = 0, **_: Any) -> "_Transfer":
        """Begin a progress bar; the constructor that huggingface_hub calls."""
        self.done = initial
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, count: float | None = 1) -> None:
        """Count bytes."""
        self.done += int(count or 0)

    def __getattr__(self, name: str) -> Any:
        """Take every other call to a progress bar and do nothing."""
        if name.startswith("_"):
            raise AttributeError(name)
        return _do_nothing


def _do_nothing(*_: Any, **__: Any) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Download:
    """A download that threads work at: what waits, what was found missing, and the first error that ends it."""

    model: str
    commit: str
    waiting: "queue.SimpleQueue[_Transfer]"
    errors: list[Exception] = field(default_factory=list[Exception])


def find(model: str, *, code: bool, stall_limit_s: float, report: Callable[[Loading], None]) -> Path:
    """Return the folder of the model with this id, downloading what is missing of it.

    Args:
        model: a Hugging Face id, `owner/name`.
        code: whether the model's own Python files are wanted too.
        stall_limit_s: how long the download may bring nothing.
        report: called with the bytes that are there, and all of them.

    Raises:
        DownloadError: the model cannot be had.

    """
    # At its own 10 MB, a slow line would look like one that brings nothing, and an interruption would lose as much.
    constants: Any = importlib.import_module("huggingface_hub.constants")
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    wanted = {"allow_patterns": [*_FILES, *(_CODE if code else ())], "ignore_patterns": list(_DUPLICATES)}
    snapshot = member("huggingface_hub", "snapshot_download")
    with _explained(model):
        try:
            files: Sequence[Any] = snapshot(model, dry_run=True, **wanted)
        except member("huggingface_hub.errors", "DryRunError"):
            return Path(snapshot(model, **wanted))  # From the cache, or with the reason why not.
        missing = [_Transfer(f.filename, f.file_size or 0) for f in files if f.will_download]
        if missing:
            _download(model, files[0].commit_hash, missing, stall_limit_s, report)
        return Path(snapshot(model, **wanted))


def _download(
    model: str, commit: str, files: Sequence[_Transfer], stall_limit_s: float, report: Callable[[Loading], None]
) -> None:
    download = _Download(model=model, commit=commit, waiting=queue.SimpleQueue())
    for one in sorted(files, key=lambda file: file.size):
        download.waiting.put(one)
    # Daemons: one that waits for a network that says nothing must not keep the process.
    threads = [threading.Thread(target=_work, args=(download,), daemon=True) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    total, best, moved_at = sum(one.size for one in files), -1, time.monotonic()
    while any(thread.is_alive() for thread in threads):
        if download.errors:
            raise download.errors[0]
        if (done := sum(one.done for one in files)) > best:
            best, moved_at = done, time.monotonic()
            message = f"Downloading {model}..."
            report(Loading(message=message, done_bytes=done, total_bytes=max(done, total), downloading=True))
        if time.monotonic() - moved_at > stall_limit_s:
            raise DownloadError(f"the download brought nothing for {stall_limit_s:g} s, at {best:,} of {total:,} bytes")
        threads[0].join(_REPORT_EVERY_S) if threads[0].is_alive() else time.sleep(_REPORT_EVERY_S)
    if download.errors:
        raise download.errors[0]


def _work(download: _Download) -> None:
    """Fetch files until there are no more."""
    while not download.errors:
        try:
            file = download.waiting.get_nowait()
        except queue.Empty:
            return
        try:
            _fetch(download, file)
        except Exception as error:
            download.errors.append(error)


def _fetch(download: _Download, file: _Transfer) -> None:
    """Fetch one file to its place among the blobs, for as long as nobody ends the download."""
    if file.size > _MOST_BYTES_BY_HTTP:
        return  # Hugging Face gives these by hf_xet alone, which `snapshot_download` uses.
    while not download.errors:
        try:
            about, headers = _ask(download, file)
            blobs = _blobs(download.model)
            if (blobs / about.etag).exists():
                file.done = file.size
                return
            with _unfinished(blobs / f"{about.etag}.mondrian") as part:
                if part is not None:
                    _continue(part, about, headers, file)
                    Path(part.name).replace(blobs / about.etag)
                    return
        except Exception as error:
            if not _may_pass(error):
                raise
        time.sleep(_RETRY_AFTER_S)


def _may_pass(error: Exception) -> bool:
    """Whether the same question may be answered later: no network, a busy server, a signed address that expired."""
    if isinstance(error, member("httpx2", "TransportError")):
        return True
    if isinstance(error, member("huggingface_hub.errors", "RepositoryNotFoundError")):
        return False
    status: int = getattr(getattr(error, "response", None), "status_code", 0)
    return status in (403, 408, 429) or status >= 500


def _ask(download: _Download, file: _Transfer) -> tuple[Any, dict[str, str]]:
    """Return what the Hub knows of a file, and the headers with which to fetch it."""
    url = member("huggingface_hub", "hf_hub_url")(download.model, file.name, revision=download.commit)
    headers: dict[str, str] = member("huggingface_hub.utils", "build_hf_headers")()
    about = member("huggingface_hub", "get_hf_file_metadata")(url, headers=headers)
    if urlsplit(str(url)).netloc != urlsplit(str(about.location)).netloc:
        headers.pop("authorization", None)  # The token is for the Hub, and not for where it keeps its files.
    return about, headers


def _blobs(model: str) -> Path:
    folder = member("huggingface_hub.file_download", "repo_folder_name")(repo_id=model, repo_type="model")
    blobs = Path(member("huggingface_hub.constants", "HF_HUB_CACHE")) / folder / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    return blobs


@contextmanager
def _unfinished(path: Path) -> Generator[BinaryIO | None]:
    """Open an unfinished file for this process alone; None where another process has it."""
    with path.open("a+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield part


def _continue(part: BinaryIO, about: Any, headers: dict[str, str], file: _Transfer) -> None:
    """Fetch the rest of a file, and check the whole if an earlier process began it."""
    known = part.seek(0, os.SEEK_END)
    if about.size is not None and known > about.size:
        known = part.truncate(0)
    get = member("huggingface_hub.file_download", "http_get")
    file.done = known
    get(about.location, part, resume_size=known, headers=headers, expected_size=about.size, tqdm_class=file.bar)
    part.flush()
    if known and len(about.etag) == _SHA256_DIGITS and _sha256(Path(part.name)) != about.etag:
        part.truncate(0)
        raise DownloadError(f"{file.name} is damaged; it will be fetched from its beginning at the next start")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _explained(model: str) -> Generator[None]:
    """Turn what huggingface_hub raises into one line that says what to do."""
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(_reason(model, error)) from error


def _reason(model: str, error: Exception) -> str:
    endpoint = member("huggingface_hub.constants", "ENDPOINT")
    chain = [error, error.__cause__, error.__context__]
    for kind, reason in (
        ("HFValidationError", "it is neither a folder nor a Hugging Face id, owner/name"),
        ("GatedRepoError", f"it is gated: accept its terms at {endpoint}/{model} and set HF_TOKEN"),
        ("RepositoryNotFoundError", f"{endpoint} has no such model, or it is private and HF_TOKEN may not see it"),
        ("RevisionNotFoundError", f"{endpoint} has no such revision of it"),
        ("OfflineModeIsEnabled", "it is not in the local cache, and HF_HUB_OFFLINE forbids to download it"),
        ("IncompleteSnapshotError", f"it is in the local cache in part, and {endpoint} cannot be reached"),
        ("LocalEntryNotFoundError", f"it is not in the local cache, and {endpoint} cannot be reached"),
    ):
        if any(isinstance(one, member("huggingface_hub.errors", kind)) for one in chain):
            return reason
    if isinstance(error, OSError) and error.errno is not None:
        return f"the local cache cannot be written: {error.strerror}"
    response = getattr(error, "response", None)
    if response is not None:
        return f"{endpoint} answers with status {response.status_code}"
    return f"the download failed: {type(error).__name__}"
