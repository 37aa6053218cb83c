"""What every test stands on: an environment in which nothing of the developer's own is set."""

import os


def pytest_configure() -> None:
    """Remove the developer's settings, and keep the Hugging Face libraries from the network."""
    for name in [name for name in os.environ if name.startswith("MONDRIAN_")]:
        del os.environ[name]
    os.environ["HF_HUB_OFFLINE"] = "1"
