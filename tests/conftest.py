"""What every test stands on: an environment in which nothing of the developer's own is set."""

import gc
import os
import signal

import pytest


def pytest_configure() -> None:
    """Remove the developer's settings, keep the Hugging Face libraries from the network, and let Ctrl-C be heard."""
    for name in [name for name in os.environ if name.startswith("MONDRIAN_")]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
    # A shell that starts us in the background has Ctrl-C ignored, and the programs under test would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def spare_collector() -> None:
    """Keep what earlier modules left out of the collector's way, as the server does with what it has at its start.

    Walking through the rest of two thousand tests took 0.4 s, again and again, and servers and clients of this process
    stood still meanwhile.
    """
    gc.collect()
    gc.freeze()
