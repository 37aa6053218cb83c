"""Starts the service, streams the analysis of a sample picture as proof, and serves until Ctrl-C or SIGTERM.

On a terminal the service gets the foreground: Ctrl-C then reaches it, and not make, which would call a clean end an
error.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MONDRIAN = Path(sys.executable).parent / "mondrian"
SAMPLE = Path("models/mondrian-tiny/samples/composition-red.jpg")
PROMPT = "Describe this image."


def main() -> int:
    """Run the service to its end and return its exit status."""
    os.chdir(ROOT)
    with serving() as service:
        proof = Proof(group=service.pid)

        def end(number: int, _: object) -> None:
            service.send_signal(number)
            proof.end()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        with foreground(service.pid):
            assert service.stdout is not None
            for line in service.stdout:
                print(line, end="", flush=True)
                if line.startswith("Listening on "):
                    proof.give(line.split()[-1])
            return service.wait()


def serving() -> subprocess.Popen[str]:
    """Start the service in a group of its own, with fewer log lines unless the environment asks for them."""
    environment = {"MONDRIAN_LOG_LEVEL": "warning"} | os.environ
    return subprocess.Popen(
        [MONDRIAN, "serve"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )


class Proof:
    """The analysis of the sample picture, which may be ended: its command would wait for a service that is gone."""

    def __init__(self, *, group: int) -> None:
        """Prepare to run beside the service, in its group."""
        self._group = group
        self._command: subprocess.Popen[bytes] | None = None
        self._is_ended = False

    def give(self, address: str) -> None:
        """Stream the analysis and say what one can do next."""
        command = ["mondrian", "analyze", str(SAMPLE), "--prompt", PROMPT]
        print(f"$ {' '.join(command[:-1])} '{PROMPT}'", flush=True)
        self._command = subprocess.Popen([MONDRIAN, *command[1:], "--address", address], process_group=self._group)
        if self._is_ended:  # The signal came before there was a command to end.
            self._command.terminate()
        status = self._command.wait()
        if self._is_ended:
            return
        if status:
            print(f"The analysis failed with status {status}.", file=sys.stderr, flush=True)
        else:
            print(f"\nMondrian serves on {address} (gRPC, reflection, health). Ctrl-C ends it.", flush=True)

    def end(self) -> None:
        """End it; called by a signal."""
        self._is_ended = True
        if self._command is not None:
            self._command.terminate()


@contextmanager
def foreground(group: int) -> Generator[None]:
    """Give the terminal's foreground, if there is a terminal, to a process group and take it back at the end."""
    if not sys.stdin.isatty():
        yield
        return
    # Whoever is not in the foreground is stopped when it moves the foreground, unless it ignores this signal.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    mine = os.tcgetpgrp(sys.stdin.fileno())
    os.tcsetpgrp(sys.stdin.fileno(), group)
    try:
        yield
    finally:
        os.tcsetpgrp(sys.stdin.fileno(), mine)


if __name__ == "__main__":
    sys.exit(main())
