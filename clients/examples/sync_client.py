"""An analysis that outlives its caller, with the client for threads: begin it, come back later, read on where you were.

    python sync_client.py begin photo.jpg     prints the analysis's name
    python sync_client.py read NAME [AFTER]   reads it, from the start or after an event, to its end
    python sync_client.py stop NAME           cancels it

It speaks gRPC; MONDRIAN_ADDRESS is where the server listens (127.0.0.1:50051).
"""

import hashlib
import os
import sys
from pathlib import Path

import mondrian


def begin(client: mondrian.Client, photo: str) -> None:
    """Start an analysis that nobody has to wait for."""
    data = Path(photo).read_bytes()
    # A request_id of your own makes a repeated call lead to the same analysis, also after this program was killed.
    request_id = f"example-{hashlib.sha256(data).hexdigest()[:32]}"
    analysis = client.create("Describe this image.", images=[data], request_id=request_id)
    print(analysis.name)


def read(client: mondrian.Client, name: str, after: int) -> None:
    """Print the text after an event, as it is written, and what to say to read on from here."""
    # The loop goes on by itself over lost connections and restarts of the server. Leaving it cancels nothing.
    with client.watch(name, after_sequence=after) as events:
        try:
            for event in events:
                if isinstance(event, mondrian.Token):
                    print(event.text, end="", flush=True)
        except KeyboardInterrupt:
            print(f"\nread on with: read {name} {events.sequence}", file=sys.stderr)
            return
    print()


def stop(client: mondrian.Client, name: str) -> None:
    """Cancel the analysis; one that has ended is left as it is."""
    print(client.cancel(name).state.name)


def main(arguments: list[str]) -> int:
    """Do what the command line says."""
    with mondrian.Client(os.environ.get("MONDRIAN_ADDRESS", "127.0.0.1:50051")) as client:
        try:
            match arguments:
                case ["begin", photo]:
                    begin(client, photo)
                case ["read", name]:
                    read(client, name, 0)
                case ["read", name, after]:
                    read(client, name, int(after))
                case ["stop", name]:
                    stop(client, name)
                case _:
                    print(__doc__, file=sys.stderr)
                    return 2
        except mondrian.AnalysisCancelled:
            print("\nit was cancelled", file=sys.stderr)
        except mondrian.MondrianError as error:
            print(f"{error.code}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
