"""Mondrian over plain HTTP, with httpx and httpx-sse: upload a photo, read its events over lost connections, stop it.

    pip install httpx httpx-sse
    python http_sse.py photo.jpg --prompt "Which colour dominates?"

MONDRIAN_URL is where the gateway listens (http://127.0.0.1:8080), MONDRIAN_API_KEY your key where the server has keys.
Ctrl-C stops the analysis.
"""

import argparse
import contextlib
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

ENDS = ("completed", "failed", "cancelled")
PASSING = (408, 429, 502, 503, 504)
"""The answers after which the same request may succeed."""

GIVE_UP_AFTER_S = 120.0
LONGEST_PAUSE_S = 5.0


class Lost(Exception):
    """The connection, or the server behind it, is lost for the moment."""


class Retries:
    """When to try again: at first soon, then twice as long each time, never before the server asks for it."""

    def __init__(self) -> None:
        """Begin with everything well."""
        self.well()

    def well(self) -> None:
        """Note that something new came: the next interruption is a first one."""
        self._attempts = 0
        self._retry_after_s = 0.0
        self._give_up_at = time.monotonic() + GIVE_UP_AFTER_S

    def asked(self, answer: httpx.Response) -> None:
        """Note when the server wants to be asked again."""
        with contextlib.suppress(ValueError):
            self._retry_after_s = float(answer.headers.get("Retry-After", ""))

    def wait(self, error: Exception) -> None:
        """Wait before another try; raises `error` when it is time to give up."""
        longest_s = min(LONGEST_PAUSE_S, 0.2 * 2**self._attempts)
        # Chance keeps callers that lost the same server from coming back all at once.
        pause_s = max(self._retry_after_s, longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        if time.monotonic() + pause_s > self._give_up_at:
            raise error
        print(f"[{error}; again in {pause_s:.1f} s]", file=sys.stderr)
        time.sleep(pause_s)
        self._attempts += 1


def checked(answer: httpx.Response, retries: Retries) -> httpx.Response:
    """Return a good answer; raises Lost where another try may help, and ends with the server's words elsewhere."""
    if answer.is_success:
        return answer
    if answer.status_code in PASSING:
        retries.asked(answer)
        raise Lost(f"HTTP {answer.status_code}")
    answer.read()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        sys.exit(answer.json()["error"]["message"])
    sys.exit(f"HTTP {answer.status_code}")


def create(http: httpx.Client, photo: Path, prompt: str) -> str:
    """Start an analysis that outlives this connection, and return its name, `analyses/{id}`."""
    # The same key is the same analysis: a try whose answer got lost is repeated without harm.
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    retries = Retries()
    while True:
        try:
            files = {"image": (photo.name, photo.read_bytes())}
            answer = http.post("/v1/analyses", files=files, data={"prompt": prompt}, headers=headers)
            return str(checked(answer, retries).json()["name"])
        except (httpx.TransportError, Lost) as error:
            retries.wait(error)


def events(http: httpx.Client, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each event's name and payload once, in order, to the terminal one, over as many connections as it takes."""
    last = ""
    retries = Retries()
    while True:
        try:
            headers = {"Last-Event-ID": last} if last else {}
            with connect_sse(http, "GET", f"/v1/{name}/events", headers=headers) as stream:
                if checked(stream.response, retries).status_code == 204:
                    return  # It has ended, and we have seen the end.
                for message in stream.iter_sse():
                    if not message.data:
                        continue  # A `retry` by itself is no message, but httpx-sse gives it as one.
                    if message.event == "interrupted":
                        raise Lost("the gateway has lost the server")
                    last = message.id
                    retries.well()
                    yield message.event, message.json()[message.event]
                    if message.event in ENDS:
                        return
            raise Lost("the stream ended before the analysis")
        except (httpx.TransportError, Lost) as error:
            retries.wait(error)


def show(http: httpx.Client, name: str) -> int:
    """Print the text as it comes, and return the exit status."""
    for kind, payload in events(http, name):
        match kind:
            case "progress":
                print(f"[{payload['fraction']:4.0%} {payload['message']}]", file=sys.stderr)
            case "token":
                print(payload["text"], end="", flush=True)
            case "completed":
                print()
                return 0
            case "failed":
                print(f"\nfailed: {payload['error']['message']}", file=sys.stderr)
                return 1
            case "cancelled":
                print(f"\ncancelled in {payload['stage']}", file=sys.stderr)
                return 130
            case _:
                pass  # A newer server may tell more.
    return 0


def main() -> int:
    """Analyse the photo that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--prompt", default="Describe this image.")
    options = parser.parse_args()
    key = os.environ.get("MONDRIAN_API_KEY")
    with httpx.Client(
        base_url=os.environ.get("MONDRIAN_URL", "http://127.0.0.1:8080"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        # A stream without a byte for so long is lost: the gateway sends a comment every 15 s.
        timeout=httpx.Timeout(30.0, read=45.0),
    ) as http:
        name = create(http, options.photo, options.prompt)
        try:
            return show(http, name)
        except KeyboardInterrupt:
            http.post(f"/v1/{name}:cancel").raise_for_status()
            print("\nstopped", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main())
