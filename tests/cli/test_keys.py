"""`mondrian keys`: callers get keys, see which they have, and lose them."""

from pathlib import Path

import pytest

from mondrian_server.callers import CallerLimits, KeyRing
from tests.cli.programs import run

EDITS = [("add", "bob"), ("revoke", "bob"), ("list",)]


async def test_a_key_is_printed_once(tmp_path: Path) -> None:
    """On standard output and nowhere else: programs read it, and people are told to keep it."""
    file = tmp_path / "keys.toml"
    done = await run("keys", "add", "bob", "--keys-file", str(file), "--max-requests-per-minute", "60")
    assert done.status == 0
    key = done.out.strip()
    ring = KeyRing(file)
    assert ring.identify(key) == "bob"
    assert ring.limits("bob") == CallerLimits(max_requests_per_minute=60)
    assert key not in done.err and "cannot be shown again" in done.err
    listed = await run("keys", "list", "--keys-file", str(file))
    secret = key.rpartition("_")[2]
    assert secret not in listed.out + listed.err + file.read_text()


async def test_keys_are_listed_with_their_state(tmp_path: Path) -> None:
    """One line a key, separated by tabs in a pipe; a revoked one stays in the list."""
    file = str(tmp_path / "keys.toml")
    ids = [
        (await run("keys", "add", name, MONDRIAN_KEYS_FILE=file)).out.split("_")[1] for name in ("bob", "bob", "eve")
    ]
    revoked = await run("keys", "revoke", ids[1], MONDRIAN_KEYS_FILE=file)
    assert (revoked.status, revoked.out) == (0, f"{ids[1]}\n")
    lines = [line.split("\t") for line in (await run("keys", "list", MONDRIAN_KEYS_FILE=file)).out.splitlines()]
    assert [(line[0], line[1], line[3]) for line in lines] == [
        ("bob", ids[0], "active"),
        ("bob", ids[1], "revoked"),
        ("eve", ids[2], "active"),
    ]


async def test_the_settings_file_names_the_key_file(tmp_path: Path) -> None:
    """`mondrian keys` edits the file that `mondrian serve` reads."""
    config = tmp_path / "mondrian.toml"
    config.write_text(f'keys_file = "{tmp_path / "keys.toml"}"\n')
    assert (await run("keys", "add", "bob", "--config", str(config))).status == 0
    assert (tmp_path / "keys.toml").exists()


@pytest.mark.parametrize("arguments", EDITS, ids=lambda arguments: arguments[0])
async def test_a_command_without_a_file_says_how_to_name_one(arguments: tuple[str, ...]) -> None:
    """One line and status 1."""
    done = await run("keys", *arguments)
    assert (done.status, done.out) == (1, "")
    assert done.err == "mondrian: which key file? give --keys-file, or set MONDRIAN_KEYS_FILE or keys_file\n"


async def test_nobody_to_revoke_is_told(tmp_path: Path) -> None:
    """A name that is not there is an error, so that a slip does not pass for a revocation."""
    file = str(tmp_path / "keys.toml")
    await run("keys", "add", "bob", "--keys-file", file)
    done = await run("keys", "revoke", "bb", "--keys-file", file)
    assert (done.status, done.err) == (1, f"mondrian: {file} has no key and no caller with keys that is called 'bb'\n")
