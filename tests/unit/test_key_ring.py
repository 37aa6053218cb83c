"""The key ring: the file is taken again when it changes, and a broken one changes nothing."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from mondrian_server.callers import CallerLimits, KeyRing
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.callers.keys import Key
from mondrian_server.errors import KeyRevoked, MondrianError
from tests.conditions import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the key file is."""
    return tmp_path / "keys.toml"


@pytest.fixture
def bob(path: Path) -> Key:
    """A key that is in the file from the start."""
    return add_key(path, "bob", CallerLimits())


@pytest_asyncio.fixture
async def ring(path: Path, bob: Key) -> AsyncGenerator[KeyRing]:
    """A ring that watches its file."""
    ring = KeyRing(path)
    task = asyncio.create_task(ring.run())
    yield ring
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def answer(ring: KeyRing, key: Key) -> str:
    """Return the caller of a key, or the reason why there is none."""
    try:
        return ring.identify(key.text)
    except MondrianError as error:
        return error.reason


def spoil(path: Path, fault: str) -> None:
    """Make the file unfit."""
    match fault:
        case "broken":
            path.write_text(path.read_text() + "[callers\n")
        case "gone":
            path.unlink()
        case _:
            path.chmod(0o666)


def begun_anew(path: Path) -> Key:
    """Put a file with one key of Carol's in the place of whatever is there."""
    path.unlink(missing_ok=True)
    return add_key(path, "carol", CallerLimits())


async def test_a_new_key_is_good_without_a_restart(ring: KeyRing, path: Path, bob: Key) -> None:
    """Soon after it is added, and the old ones stay good."""
    carol = add_key(path, "carol", CallerLimits(max_running_analyses=3))
    await eventually(lambda: answer(ring, carol) == "carol")
    assert answer(ring, bob) == "bob"
    assert ring.limits("carol").max_running_analyses == 3


async def test_a_revoked_key_is_refused_without_a_restart(ring: KeyRing, path: Path, bob: Key) -> None:
    """Soon after it is revoked."""
    assert answer(ring, bob) == "bob"
    revoke_keys(path, "bob")
    await eventually(lambda: answer(ring, bob) == KeyRevoked.reason)


@pytest.mark.parametrize("fault", ["broken", "gone", "writable by all"])
async def test_a_broken_file_keeps_the_good_keys(ring: KeyRing, path: Path, bob: Key, fault: str) -> None:
    """The fault is logged once, and a file that is whole again is taken."""
    with capture_logs() as lines:
        spoil(path, fault)
        await eventually(lambda: [line for line in lines if line["log_level"] == "error"])
        assert answer(ring, bob) == "bob"
        carol = begun_anew(path)
        await eventually(lambda: answer(ring, carol) == "carol")
    (error,) = [line for line in lines if line["log_level"] == "error"]
    assert str(path) in error["problem"] and "\n" not in error["problem"]
    assert answer(ring, bob) == "UNAUTHENTICATED"


def test_a_file_that_others_can_read_is_a_warning(path: Path, bob: Key) -> None:
    """The hashes tell nobody a key, so it is no reason to refuse."""
    path.chmod(0o644)
    with capture_logs() as lines:
        ring = KeyRing(path)
    assert [line["log_level"] for line in lines] == ["warning"]
    assert answer(ring, bob) == "bob"
