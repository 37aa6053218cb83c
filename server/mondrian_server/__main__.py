"""The entry point of `mondrian` and `python -m mondrian_server`."""

import os
import sys

OUR_PACKAGES = ("mondrian", "mondrian_server")


def main() -> None:
    """Run the command line and end the process with its exit status."""
    # gRPC's C core reads this when it is imported. Its own lines on stderr, errors too (a port that is taken), would
    # stand beside our one line or between lines of JSON.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from mondrian_server.cli.main import run  # noqa: PLC0415 - what it needs may not be installed

        status = run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OUR_PACKAGES:
            raise
        sys.exit(f"mondrian: {error.name} is not installed; install the server: pip install 'mondrian-vision[server]'")
    sys.exit(status)


if __name__ == "__main__":
    main()
