"""What each look finds: folders, logs, ports, memory, files and versions, well and ill."""

import asyncio
import contextlib
import socket
import sqlite3
import ssl
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from mondrian_server.app import LOG_NAME
from mondrian_server.callers.editing import add_key, revoke_keys
from mondrian_server.callers.limits import CallerLimits
from mondrian_server.data_dir import DataDir
from mondrian_server.doctor.certificates import find_certificate
from mondrian_server.doctor.files import find_files
from mondrian_server.doctor.finding import Finding, Level
from mondrian_server.doctor.folder import find_folder
from mondrian_server.doctor.gateway import answers
from mondrian_server.doctor.machine import find_device, find_memory
from mondrian_server.doctor.model import find_model_files
from mondrian_server.doctor.ports import find_port
from mondrian_server.doctor.server import find_server, look
from mondrian_server.doctor.versions import find_versions
from mondrian_server.log.sqlite import SqliteLog, SqliteOptions
from mondrian_server.settings import Settings
from tests.checkpoints import EMBEDDED
from tests.unit.test_data_dir import as_nobody


def folder_findings(path: Path, *, wanted_bytes: int = 1, server_runs: bool = False) -> dict[str, Finding]:
    """Return what is found about a data directory, by what was looked at."""
    return {found.check: found for found in find_folder(path, LOG_NAME, wanted_bytes, server_runs=server_runs)}


def names_in(folder: Path) -> set[str]:
    """Return the names of the files in a folder."""
    return {file.name for file in folder.iterdir()}


def test_a_folder_that_is_not_there_can_be_made(tmp_path: Path) -> None:
    """A first start finds no folder; nothing is made by looking."""
    found = folder_findings(tmp_path / "a" / "b")
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert "is made at the start" in found["data directory"].text
    assert not names_in(tmp_path)


async def test_a_folder_with_a_log_is_whole(tmp_path: Path) -> None:
    """The log that a server left is looked at, and left as it is."""
    log = await SqliteLog.open(tmp_path / LOG_NAME, SqliteOptions())
    await log.close()
    before = names_in(tmp_path)
    found = folder_findings(tmp_path)
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found["log"].text.startswith(f"{LOG_NAME} is whole")
    assert names_in(tmp_path) == before


async def test_a_log_after_a_crash_is_whole(tmp_path: Path) -> None:
    """A write-ahead log beside the file is read with it, and nothing new stands beside them afterwards."""
    log = await SqliteLog.open(tmp_path / LOG_NAME, SqliteOptions())
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in (LOG_NAME, f"{LOG_NAME}-wal"):
        (crashed / name).write_bytes((tmp_path / name).read_bytes())
    await log.close()
    before = names_in(crashed)
    assert folder_findings(crashed)["log"].level is Level.OK
    assert names_in(crashed) == before


def test_a_damaged_log_is_a_problem(tmp_path: Path) -> None:
    """A file that is no log is told, and left to the byte."""
    (tmp_path / LOG_NAME).write_bytes(b"nonsense" * 100)
    found = folder_findings(tmp_path)["log"]
    assert (found.level, "is not an SQLite database" in found.text) == (Level.PROBLEM, True)
    assert found.advice
    assert (tmp_path / LOG_NAME).read_bytes() == b"nonsense" * 100
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    (tmp_path / "other.db").replace(tmp_path / LOG_NAME)
    assert "of something else" in folder_findings(tmp_path)["log"].text


def test_a_folder_that_cannot_be_written_is_a_problem() -> None:
    """A file in its place, a folder of somebody else and one that cannot be entered are told with what to do."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others.
        folder = Path(name)
        (folder / "file").write_text("")
        for child, mode in ((folder / "read-only", 0o555), (folder / "closed", 0o000)):
            child.mkdir()
            child.chmod(mode)
        folder.chmod(0o755)
        with as_nobody():
            found = [
                folder_findings(folder / one)["data directory"]
                for one in ("file", "read-only", "read-only/new", "closed/new")
            ]
        (folder / "closed").chmod(0o755)
    words = ("is not a folder", "is not writable: Permission denied", "cannot be made", "cannot be reached")
    assert [word for word, finding in zip(words, found, strict=True) if word in finding.text] == list(words)
    assert all((finding.level, bool(finding.advice)) == (Level.PROBLEM, True) for finding in found)


def test_a_held_folder_is_fine_only_if_its_server_answers(tmp_path: Path) -> None:
    """The server that is asked may hold it; another one keeps this one from starting."""
    with DataDir(tmp_path):
        assert folder_findings(tmp_path, server_runs=True)["data directory"].level is Level.OK
        held = folder_findings(tmp_path)["data directory"]
    assert (held.level, "does not answer" in held.text) == (Level.PROBLEM, True)
    assert folder_findings(tmp_path)["data directory"].level is Level.OK


def test_little_room_is_a_warning(tmp_path: Path) -> None:
    """A disk with less room than the log may take is told."""
    assert folder_findings(tmp_path)["disk"].level is Level.OK
    assert folder_findings(tmp_path, wanted_bytes=2**60)["disk"].level is Level.WARNING


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_free_port_is_fine(host: str) -> None:
    """A port that nobody holds, and any port, are fine; looking does not keep it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for _ in range(2):
        assert find_port("port", f"{host}:{port}", "--port", ours=False).text == f"{host}:{port} is free"
    assert find_port("port", f"{host}:0", "--port", ours=False).level is Level.OK


def test_a_taken_port_is_a_problem() -> None:
    """Who holds it is told, and which flag chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = find_port("port", address, "--grpc-address", ours=False)
        assert find_port("port", address, "--grpc-address", ours=True).level is Level.OK
    assert (found.level, "--grpc-address" in found.advice) == (Level.PROBLEM, True)
    assert f"(process {psutil.Process().pid})" in found.text


def test_an_address_of_another_machine_is_a_problem() -> None:
    """An address that is none of this machine's cannot be listened on."""
    assert find_port("port", "192.0.2.1:50051", "--grpc-address", ours=False).level is Level.PROBLEM


async def test_what_is_no_server_of_ours_is_not_taken_for_one() -> None:
    """A program that speaks another protocol, or nothing at all, is no Mondrian."""

    async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ready\r\n")
        writer.close()

    async with await asyncio.start_server(shout, "127.0.0.1", 0) as other:
        address = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        assert await look(address) is None
        assert not await asyncio.to_thread(answers, address, with_tls=False)
        assert not await asyncio.to_thread(answers, address, with_tls=True)
    assert await look(address) is None
    assert find_server(address, None).level is Level.OK


def test_memory_is_held_against_the_model() -> None:
    """Weights beyond what is free are a warning, beyond all there is a problem."""
    total = psutil.virtual_memory().total
    assert find_memory(1, available_bytes=2).level is Level.OK
    assert find_memory(None).level is Level.OK
    assert find_memory(3 * 2**30, available_bytes=2**30).level is Level.WARNING
    assert find_memory(total + 1).level is Level.PROBLEM


@pytest.mark.parametrize(
    ("program", "said"),
    [("raise SystemExit('no Metal here')", "no Metal here"), ("import os; os.abort()", "MLX does not work")],
)
async def test_a_device_that_does_not_work_is_a_problem(program: str, said: str) -> None:
    """What MLX said last is told, and an abort ends the probe alone."""
    found = await find_device((sys.executable, "-c", program))
    assert (found.level, said in found.text) == (Level.PROBLEM, True)


async def test_the_device_is_told() -> None:
    """MLX computes here, in a process of its own."""
    found = await find_device()
    assert (found.level, found.text.startswith("MLX computes on the ")) == (Level.OK, True)


def test_a_model_folder_is_looked_at(tmp_path: Path) -> None:
    """A folder without configuration or weights is a problem, as is a path that does not exist; an id is none."""
    assert find_model_files(str(EMBEDDED)).text.endswith("smolvlm, 6.1 MiB of weights")
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in find_model_files(str(tmp_path)).text
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    assert "no weights" in find_model_files(str(tmp_path)).text
    for source in (str(tmp_path), str(tmp_path / "missing"), "missing"):
        found = find_model_files(source)
        assert (found.level, bool(found.advice)) == (Level.PROBLEM, True)
    assert find_model_files("mlx-community/Qwen2.5-VL-3B-Instruct-4bit").level is Level.OK


def test_files_of_settings_are_read(tmp_path: Path) -> None:
    """An advisors file with a fault is a problem, a good one is fine."""
    advisors = tmp_path / "advisors.toml"
    advisors.write_text('[[advisors]]\nid = "me"\n')
    (found,) = find_files(Settings(advisors_file=advisors))
    assert (found.level, "advisors[0].instructions: is missing" in found.text) == (Level.PROBLEM, True)
    advisors.write_text('[[advisors]]\nid = "me"\ndisplay_name = "Me"\ndescription = "I."\ninstructions = "Look."\n')
    (found,) = find_files(Settings(advisors_file=advisors))
    assert found.level is Level.OK
    assert not list(find_files(Settings()))


def written(folder: Path, name: str, **options: Any) -> tuple[Path, Path]:
    """Write a certificate of an authority of its own, and its key."""
    leaf = trustme.CA().issue_cert("localhost", "127.0.0.1", **options)
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return certificate, key


def test_certificates_must_fit_their_keys(tmp_path: Path) -> None:
    """A certificate with its key is fine; with one that is missing, no PEM, or another's it is a problem."""
    certificate, key = written(tmp_path, "first")
    assert find_certificate("TLS", certificate, key).level is Level.OK
    for wrong in (written(tmp_path, "second")[1], certificate, tmp_path / "missing.pem"):
        found = find_certificate("TLS", certificate, wrong)
        assert (found.level, bool(found.advice), "PRIVATE" in found.text) == (Level.PROBLEM, True, False)
        grpc_files = {"tls_certificate_file": certificate, "tls_key_file": wrong}
        http_files = {f"http_{name}": file for name, file in grpc_files.items()}
        both = find_files(Settings.model_validate(grpc_files | http_files))
        assert [(one.check, one.level) for one in both] == [("TLS", Level.PROBLEM), ("HTTP TLS", Level.PROBLEM)]


def test_certificates_end(tmp_path: Path) -> None:
    """One that has expired is a problem, one that soon will a warning."""
    now = datetime.now(UTC)
    expired = find_certificate("TLS", *written(tmp_path, "old", not_after=now - timedelta(days=1)))
    assert (expired.level, "expired" in expired.text) == (Level.PROBLEM, True)
    ending = find_certificate("TLS", *written(tmp_path, "ending", not_after=now + timedelta(days=2)))
    assert (ending.level, "renew" in ending.advice) == (Level.WARNING, True)


async def test_a_server_is_known_by_its_certificate(tmp_path: Path) -> None:
    """Who shows the certificate of the settings is the server; another certificate is another program's."""
    certificate, key = written(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=context) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running = await look(address, certificate)
        assert running is not None
        assert find_server(address, running).level is Level.OK
        assert await look(address, written(tmp_path, "other")[0]) is None
    assert await look(address, certificate) is None


def test_key_files_are_read(tmp_path: Path) -> None:
    """Keys are counted and never shown; a file without one, or open to others, is a warning, a broken one a problem."""
    file = tmp_path / "keys.toml"
    keys = [add_key(file, caller, CallerLimits()) for caller in ("phone", "phone", "desk")]
    settings = Settings(keys_file=file)
    (found,) = find_files(settings)
    assert (found.level, found.text) == (Level.OK, f"{file}: 3 in force, of 2 callers")
    assert not [key for key in keys if key.text in str(found)]
    file.chmod(0o644)
    assert [(one.level, one.advice) for one in find_files(settings)] == [(Level.WARNING, f"chmod 600 {file}")]
    for caller in ("phone", "desk"):
        revoke_keys(file, caller)
    assert [(one.level, "keys add" in one.advice) for one in find_files(settings)] == [(Level.WARNING, True)]
    file.write_text("callers = 3")
    assert [one.level for one in find_files(settings)] == [Level.PROBLEM]
    file.unlink()
    assert [(one.level, "mondrian keys add" in one.text) for one in find_files(settings)] == [(Level.PROBLEM, True)]


def test_versions_are_told() -> None:
    """What is installed here is what the engine was written for."""
    found = find_versions()
    assert found.level is Level.OK
    assert all(f"{name} " in found.text for name in ("python", "mondrian-vision", "mlx", "mlx-vlm", "grpcio"))
