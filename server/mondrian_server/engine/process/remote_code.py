"""Remote code: Python files that come with a model are run only where the operator trusts them.

mlx-vlm 0.7.10 runs a checkpoint's `model_file` without asking, and several of its processors load code with
`trust_remote_code=True` whatever they are told. So transformers' one way to such files is closed here.
"""

import json
from pathlib import Path
from typing import Any

from mondrian_server.engine.process.mlx_typed import member


class RemoteCodeRefused(Exception):
    """The model needs Python code of its own."""


def refuse_remote_code(folder: Path) -> None:
    """Close the ways to the model's own code for the rest of the process; raises RemoteCodeRefused if it needs it."""
    modules: Any = member("transformers", "dynamic_module_utils")
    modules.get_cached_module_file = _refuse
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_file"):
        _refuse()


def _refuse(*_: object, **__: object) -> str:
    raise RemoteCodeRefused("it needs Python code of its own, which runs only with trust_remote_code set")


def asks_for_trust(error: BaseException | None) -> bool:
    """Whether a failure came of code that was refused, by us or by transformers."""
    while error is not None:
        if isinstance(error, RemoteCodeRefused) or "trust_remote_code" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
