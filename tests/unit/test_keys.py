"""Keys and the key file: what is kept, what is recognised, and what is refused in one line."""

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mondrian_server.callers import CallerLimits, KeyRing
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.callers.key_file import read_key_file
from mondrian_server.callers.keys import Key, Proof
from mondrian_server.errors import KeyRevoked, StartupError, Unauthenticated

NO_LIMITS = CallerLimits()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the key file is, once there is one."""
    return tmp_path / "keys.toml"


def refusal(path: Path) -> str:
    """Return the text with which a file is refused."""
    with pytest.raises(StartupError) as caught:
        read_key_file(path)
    return str(caught.value)


def test_a_key_is_read_as_it_is_written() -> None:
    """A key begins with our name, and its parts come back."""
    key = Key.make()
    assert key.text.startswith("mondrian_")
    assert Key.parse(key.text) == key
    assert Key.make() != key


@pytest.mark.parametrize("change", ["", "x", "sk-", "upper", "short", "long", "ü", "\n"])
def test_what_is_no_key_is_none(change: str) -> None:
    """Text of another form is not taken for a key."""
    text = Key.make().text
    others = {"": "", "upper": text.upper(), "short": text[:-1], "long": text + "0"}
    assert Key.parse(others.get(change, change + text)) is None


def test_a_proof_holds_for_its_key_alone() -> None:
    """Another secret, another id and another key do not pass; each proof has a salt of its own."""
    key, other = Key.make(), Key.make()
    proof = Proof.of(key)
    assert proof.holds_for(key)
    assert not proof.holds_for(other)
    assert not proof.holds_for(Key(id=key.id, secret=other.secret))
    assert not proof.holds_for(Key(id=other.id, secret=key.secret))
    assert Proof.of(key) != proof


def test_a_secret_is_not_shown() -> None:
    """Neither a key nor its proof shows its secret part in a traceback or a log."""
    key = Key.make()
    proof = Proof.of(key)
    shown = f"{key!r} {key} {proof!r} {[key, proof]}"
    assert key.secret not in shown
    assert proof.digest.hex() not in shown and repr(proof.digest) not in shown


def test_the_first_key_makes_the_file_for_its_owner_only(path: Path) -> None:
    """The file holds a salted hash, and nothing from which the key could be read."""
    key = add_key(path, "phone-app", CallerLimits(max_requests_per_minute=600))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert key.secret not in text and key.text not in text
    entries = read_key_file(path)
    assert entries.keys[key.id].caller == "phone-app"
    assert entries.limits["phone-app"] == CallerLimits(max_requests_per_minute=600)


def test_comments_and_mode_survive_an_edit(path: Path) -> None:
    """What the operator wrote stands where it stood, and who may read the file stays."""
    first = add_key(path, "bob", NO_LIMITS)
    path.write_text(path.read_text().replace("[callers.bob]", "# Bob from accounting.\n[callers.bob] # since May"))
    path.chmod(0o640)
    second = add_key(path, "carol", NO_LIMITS)
    third = add_key(path, "bob", CallerLimits(max_running_analyses=2))
    revoke_keys(path, first.id)
    text = path.read_text()
    assert "# Bob from accounting.\n[callers.bob] # since May" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    revoked = {id_: entry.revoked for id_, entry in read_key_file(path).keys.items()}
    assert revoked == {first.id: True, second.id: False, third.id: False}
    assert list(tomllib.loads(text)["callers"]) == ["bob", "carol"]


def test_an_edit_replaces_the_file_at_once(path: Path) -> None:
    """Whoever has the old file open reads the old content: nobody sees half of the new one."""
    add_key(path, "bob", NO_LIMITS)
    before = path.read_bytes()
    with path.open("rb") as opened:
        add_key(path, "carol", NO_LIMITS)
        assert opened.read() == before
    assert sorted(file.name for file in path.parent.iterdir()) == [".keys.toml.lock", "keys.toml"]


def test_every_key_of_a_name_is_revoked_with_it(path: Path) -> None:
    """A name stands for all its keys, an id for one; what is revoked already is not told again."""
    keys = [add_key(path, "bob", NO_LIMITS) for _ in range(3)]
    other = add_key(path, "carol", NO_LIMITS)
    assert revoke_keys(path, keys[1].id) == [keys[1].id]
    assert revoke_keys(path, "bob") == [keys[0].id, keys[2].id]
    assert revoke_keys(path, "bob") == []
    assert not read_key_file(path).keys[other.id].revoked
    with pytest.raises(StartupError, match="no key and no caller with keys that is called 'dave'"):
        revoke_keys(path, "dave")


def test_a_file_that_is_broken_is_not_edited(path: Path) -> None:
    """A fault is told, and the file stays as it is."""
    path.write_text("callers = 3\n")
    path.chmod(0o600)
    with pytest.raises(StartupError, match="callers"):
        add_key(path, "bob", NO_LIMITS)
    assert path.read_text() == "callers = 3\n"


@pytest.mark.parametrize("name", ["", " bob", "bob\n", "b" * 65, "\x00"])
def test_a_name_that_cannot_be_a_callers_is_refused(path: Path, name: str) -> None:
    """A name is short and printable, because it stands in logs."""
    with pytest.raises(StartupError, match="1 to 64 printable characters"):
        add_key(path, name, NO_LIMITS)
    assert not path.exists()


def test_a_missing_file_is_told_with_what_makes_it(path: Path) -> None:
    """The line says what to do."""
    assert refusal(path) == (
        f"keys_file: {path} cannot be read: No such file or directory (`mondrian keys add` makes it)"
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    """Others could enter a key of their own."""
    add_key(path, "bob", NO_LIMITS)
    path.chmod(mode)
    assert refusal(path) == f"keys_file: {path} can be written by others than its owner; chmod 600 it"


def edited(path: Path, **changes: Any) -> Key:
    """Make a file whose one key has other values; a value of None takes the entry away."""
    key = add_key(path, "bob", NO_LIMITS)
    entry = tomllib.loads(path.read_text())["callers"]["bob"]["keys"][0] | changes
    lines = (
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
        for name, value in entry.items()
        if value is not None
    )
    path.write_text("[[callers.bob.keys]]\n" + "\n".join(lines) + "\n")
    return key


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"salt": "00"}, "callers.bob.keys[0].salt: must be 16 bytes or more in hexadecimal"),
        ({"hash": "zz"}, "callers.bob.keys[0].hash: must be 32 bytes in hexadecimal"),
        ({"hash": None}, "callers.bob.keys[0].hash: is missing"),
        ({"rights": "all"}, "callers.bob.keys[0].rights: there is no such setting"),
    ],
    ids=["salt", "hash", "no hash", "unknown"],
)
def test_a_fault_in_the_file_is_told_with_its_place(path: Path, changes: dict[str, Any], line: str) -> None:
    """One line, with the file and the key."""
    edited(path, **changes)
    assert refusal(path) == f"{path}: {line}"


def test_a_fault_repeats_no_key(path: Path) -> None:
    """Whoever wrote a key where its hash belongs, or elsewhere, finds no part of it in the log."""
    key = Key.make()
    edited(path, hash=key.text, salt=key.text)
    first = refusal(path)
    path.write_text(f'[callers.bob]\nkeys = "{key.text}"\nmax_waiting_bytes = "{key.secret}"\n')
    second = refusal(path)
    assert [len(text.splitlines()) for text in (first, second)] == [2, 2]
    assert key.secret[:8] not in first + second


def test_the_bearer_of_a_key_is_its_caller(path: Path) -> None:
    """Each key names its caller, also a second key of one."""
    bob, carol, bob_again = (add_key(path, name, NO_LIMITS) for name in ("bob", "carol", "bob"))
    ring = KeyRing(path)
    assert [ring.identify(key.text) for key in (bob, carol, bob_again)] == ["bob", "carol", "bob"]


def test_a_wrong_key_is_nobodys(path: Path) -> None:
    """An unknown id, a wrong secret and what is no key are Unauthenticated, and the error does not repeat them."""
    bob, stranger = add_key(path, "bob", NO_LIMITS), Key.make()
    ring = KeyRing(path)
    for text in (stranger.text, Key(id=bob.id, secret=stranger.secret).text, "hunter2", ""):
        with pytest.raises(Unauthenticated) as caught:
            ring.identify(text)
        assert stranger.secret not in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_revoked_key_is_told_from_a_wrong_one(path: Path) -> None:
    """Only who has the whole key learns that it was good once."""
    bob = add_key(path, "bob", NO_LIMITS)
    revoke_keys(path, "bob")
    ring = KeyRing(path)
    with pytest.raises(KeyRevoked):
        ring.identify(bob.text)
    with pytest.raises(Unauthenticated):
        ring.identify(Key(id=bob.id, secret=Key.make().secret).text)


def test_limits_are_the_callers_own_over_the_servers(path: Path) -> None:
    """What is not given falls back on the settings; 0 takes a limit away."""
    add_key(path, "bob", CallerLimits(max_running_analyses=2, max_waiting_bytes=0))
    ring = KeyRing(path)
    defaults = CallerLimits(
        max_running_analyses=8, max_waiting_analyses=9, max_waiting_bytes=10, max_requests_per_minute=11
    )
    assert ring.limits("bob").over(defaults) == CallerLimits(
        max_running_analyses=2, max_waiting_analyses=9, max_waiting_bytes=0, max_requests_per_minute=11
    )
    assert ring.limits("stranger").over(defaults) == defaults
