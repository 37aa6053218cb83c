"""What comes with Mondrian beside its code: where the embedded model and the page lie, in a checkout and in a wheel."""

from pathlib import Path

EMBEDDED_MODEL_ID = "mondrian-tiny"
_PACKAGE = Path(__file__).resolve().parents[1]


def embedded_model() -> Path:
    """Return the folder of the model that comes with Mondrian: beside `server/`, or inside the installed package."""
    in_checkout = _PACKAGE.parents[1] / "models" / EMBEDDED_MODEL_ID
    in_wheel = _PACKAGE / "embedded" / EMBEDDED_MODEL_ID
    return in_checkout if in_checkout.is_dir() else in_wheel


def embedded_page() -> Path:
    """Return the folder of the page that the gateway serves: below `clients/`, or inside the installed package."""
    in_checkout = _PACKAGE.parents[1] / "clients" / "web"
    return in_checkout if in_checkout.is_dir() else _PACKAGE / "embedded" / "web"
