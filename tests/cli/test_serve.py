"""`mondrian serve` as a process: one clear line and status 1 for each thing that keeps it from starting."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from mondrian_server.cli.main import COMMANDS, run
from mondrian_server.settings import describe

MONDRIAN = (sys.executable, "-m", "mondrian_server")
PATIENCE_S = 60


def problem(*arguments: str, **environment: str) -> str:
    """Run `mondrian serve` as a process and return the one line with which it gives up, without the program's name."""
    done = subprocess.run(
        [*MONDRIAN, "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 1
    # What was logged before the end is JSON; nothing else may stand beside the one line.
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("mondrian: ")
    return line.removeprefix("mondrian: ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command line came to that ended before it started anything."""

    status: int
    output: str
    errors: list[str]


@pytest.fixture
def command_line(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command line in this process: only for those that end before anything is started."""

    def run_here(*arguments: str) -> Done:
        status = run(arguments)
        output, errors = capfd.readouterr()
        return Done(status=status, output=output, errors=errors.splitlines())

    return run_here


def private(tmp_path: Path) -> tuple[str, ...]:
    """Return the flags of a service that disturbs no other."""
    return ("--data-dir", str(tmp_path / "data"), "--grpc-address", "127.0.0.1:0", "--http-address", "")


@contextlib.contextmanager
def serving(*arguments: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """Run `mondrian serve` beside the test, and give its process and the line with its address."""
    with subprocess.Popen([*MONDRIAN, "serve", *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_refused_settings_are_told_in_one_line(tmp_path: Path) -> None:
    """The environment is read, and a fault ends the process with one line."""
    assert problem(MONDRIAN_SLOTZ="1") == "MONDRIAN_SLOTZ: there is no such setting"


def test_malformed_toml_is_told(tmp_path: Path, command_line: Callable[..., Done]) -> None:
    """The file and the place of the mistake are told."""
    config = tmp_path / "mondrian.toml"
    config.write_text("slots = = 1\n")
    done = command_line("serve", "--config", str(config))
    assert (done.status, done.output, len(done.errors)) == (1, "", 1)
    assert done.errors[0].startswith(f"mondrian: {config}: is not TOML: ")


def test_every_fault_gets_its_line(command_line: Callable[..., Done]) -> None:
    """Two faults are two lines, each with the program's name."""
    done = command_line("serve", "--slots", "0", "--lookahead", "x")
    assert (done.status, done.output) == (1, "")
    assert done.errors == [
        "mondrian: --slots: must be greater than or equal to 1, not '0'",
        "mondrian: --lookahead: must be a valid integer, not 'x'",
    ]


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """A second server does not share the first one's port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in problem("--data-dir", str(tmp_path / "data"), "--grpc-address", address)


def test_a_bad_data_directory_is_told(tmp_path: Path) -> None:
    """The line names the setting and the folder."""
    taken = tmp_path / "file"
    taken.write_text("")
    assert problem("--data-dir", str(taken), "--grpc-address", "127.0.0.1:0") == f"data_dir: {taken} is not a folder"


def test_a_bad_advisors_file_is_told(tmp_path: Path) -> None:
    """The line names the file and the key."""
    advisors = tmp_path / "advisors.toml"
    advisors.write_text('[[advisors]]\nid = "me"\n')
    assert problem(*private(tmp_path), "--advisors-file", str(advisors)) == (
        f"{advisors}: advisors[0].instructions: is missing"
    )


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    """A model path that does not exist ends the service with one line that names it."""
    missing = tmp_path / "no-model"
    assert str(missing) in problem(*private(tmp_path), "--model", str(missing))


def test_a_corrupt_checkpoint_is_told(tmp_path: Path) -> None:
    """A folder that is no model ends the service with one line that names it."""
    model = tmp_path / "broken"
    model.mkdir()
    (model / "config.json").write_text("{")
    assert str(model) in problem(*private(tmp_path), "--model", str(model))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_says_where_it_listens_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """The first line is the address in use; SIGTERM and Ctrl-C end it with status 0 and no process left."""
    with serving(*private(tmp_path)) as (process, line):
        host, port = line.removeprefix("Listening on ").strip().split(":")
        with socket.create_connection((host, int(port))):
            pass
        children = psutil.Process(process.pid).children()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert not [child for child in children if child.is_running()]


def test_a_second_server_is_refused_the_folder(tmp_path: Path) -> None:
    """Two servers never share a data directory."""
    with serving(*private(tmp_path)):
        assert problem(*private(tmp_path)) == f"data_dir: {tmp_path / 'data'} is in use by another server"


def test_help_lists_every_setting(command_line: Callable[..., Done]) -> None:
    """Each flag stands in the help text with its variable; precedence and exit statuses are told."""
    text = " ".join(command_line("serve", "--help").output.split())
    for setting in describe():
        assert f"{setting.flag} " in text
        assert f"[env: {setting.variable}" in text
    assert "A flag goes before the environment, the environment before the file, the file before the default" in text
    assert "Exit status: 0 stopped" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("serve", "--slotz", "1"), "No such option '--slotz'"),
        (("serve", "--slots"), "Option '--slots' requires an argument"),
        (("serve", "extra"), "Got unexpected extra argument"),
        (("severe",), "No such command 'severe'"),
    ],
    ids=["unknown flag", "flag without a value", "extra argument", "unknown command"],
)
def test_a_command_line_that_is_not_understood_ends_with_2(
    command_line: Callable[..., Done], arguments: tuple[str, ...], line: str
) -> None:
    """One line says what is wrong."""
    done = command_line(*arguments)
    assert (done.status, done.output, len(done.errors)) == (2, "", 1)
    assert done.errors[0].startswith(f"mondrian: {line}")


def test_help_lists_every_command(command_line: Callable[..., Done]) -> None:
    """`mondrian` alone and `mondrian --help` say what it can do."""
    done = command_line()
    assert done == command_line("--help")
    assert done.status == 0
    assert all(f"\n  {name} " in done.output for name in COMMANDS)


def test_the_version_is_told(command_line: Callable[..., Done]) -> None:
    """`--version` prints the name and the distribution's number."""
    done = command_line("--version")
    assert (done.status, done.output) == (0, f"mondrian {version('mondrian-vision')}\n")


def test_without_the_server_extra_one_line_says_so(tmp_path: Path) -> None:
    """A client installed alone has the command, and it says what to install."""
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError(\"No module named 'click'\", name='click')")
    expected = "click is not installed; install the server: pip install 'mondrian-vision[server]'"
    assert problem(PYTHONPATH=str(tmp_path)) == expected
