"""A real image process that dies of some images, or does not start, where a fault must come at a known moment.

Each process adds a byte to the file named by its first argument; those after the number in the second argument end
before they are ready. An image that begins with DIE ends the process by SIGSEGV.
"""

import os
import signal
import sys
from pathlib import Path

from mondrian_server.images.normalisation import normalise
from mondrian_server.images.process import main
from mondrian_server.images.protocol import ImageLimits
from mondrian_server.pictures import Picture

DEADLY = b"DIE"


def deadly_normalise(data: bytes, limits: ImageLimits) -> Picture:
    """Die of an image that says so."""
    if data.startswith(DEADLY):
        os.kill(os.getpid(), signal.SIGSEGV)
    return normalise(data, limits)


if __name__ == "__main__":
    starts, most = Path(sys.argv[1]), int(sys.argv[2])
    with starts.open("ab") as file:
        file.write(b".")
    if starts.stat().st_size <= most:
        main(deadly_normalise)
