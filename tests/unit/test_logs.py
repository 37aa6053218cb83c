"""Log lines: structured, complete, and without anybody's words or pictures. Each test logs in a process of its own."""

import json
import subprocess
import sys
from typing import Any

START = """
import logging, warnings
import structlog
from mondrian_server import logs
logs.configure(level={level!r}, log_format={log_format!r})
log = structlog.stdlib.get_logger("mondrian_server.part")
"""


def lines(program: str, *, level: str = "info", log_format: str = "auto") -> list[str]:
    """Run a program that logs, and return its lines on stderr."""
    text = START.format(level=level, log_format=log_format) + program
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def entries(program: str, *, level: str = "info") -> list[dict[str, Any]]:
    """Run a program that logs, and return its lines as JSON objects."""
    return [json.loads(line) for line in lines(program, level=level)]


def test_lines_are_json_where_stderr_is_no_terminal() -> None:
    """Each line is one object with the event, its values, the level, the part and the time in UTC."""
    (entry,) = entries('log.info("listening", port=50051, name="é")')
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "listening",
        "port": 50051,
        "name": "é",
        "level": "info",
        "logger": "mondrian_server.part",
    }


def test_the_analysis_stands_on_each_line() -> None:
    """What is bound to the context is on every line, a library's included, until it is unbound."""
    found = entries("""
with structlog.contextvars.bound_contextvars(analysis="analyses/1"):
    log.info("accepted")
    logging.getLogger("library").warning("slow: %d s", 3)
log.info("idle")
""")
    assert [(entry["event"], entry.get("analysis")) for entry in found] == [
        ("accepted", "analyses/1"),
        ("slow: 3 s", "analyses/1"),
        ("idle", None),
    ]


def test_the_level_is_ours_and_libraries_speak_from_warnings_on() -> None:
    """`debug` shows our own details, not those of every library."""
    program = """
log.debug("ours")
logging.getLogger("library").info("theirs")
logging.getLogger("library").warning("theirs, but worse")
"""
    assert [entry["event"] for entry in entries(program, level="debug")] == ["ours", "theirs, but worse"]
    assert [entry["event"] for entry in entries(program, level="info")] == ["theirs, but worse"]
    assert entries(program, level="error") == []


def test_python_warnings_are_log_lines() -> None:
    """A warning comes as a line like all others."""
    (entry,) = entries('warnings.warn("old", stacklevel=1)')
    assert entry["level"] == "warning" and "old" in entry["event"]


def test_prompts_and_images_are_cut_down() -> None:
    """A long text or bytes that reach a log line by mistake are not written out."""
    (entry,) = entries('log.info("x", prompt="p" * 5000, image=b"secret" * 100)')
    assert entry["prompt"] == "p" * 1000 + "… (5000 characters)"
    assert entry["image"] == "<600 bytes>"


def test_tracebacks_show_no_variables() -> None:
    """An error is logged with its traceback, and nothing of what the frames held."""
    program = """
def generate(prompt):
    raise RuntimeError("no")
try:
    generate("".join(["my ", "secret"]))
except RuntimeError:
    log.exception("failed")
"""
    (entry,) = entries(program)
    assert "RuntimeError: no" in entry["exception"] and "in generate" in entry["exception"]
    console = "\n".join(lines(program, log_format="console"))
    assert "RuntimeError: no" in console and "in generate" in console
    assert "my secret" not in entry["exception"] + console


def test_the_console_format_is_for_people() -> None:
    """One line with the event and its values, without colours where there is no terminal."""
    (line,) = lines('log.info("listening", port=50051)', log_format="console")
    assert "listening" in line and "port=50051" in line
    assert "\x1b" not in line
