"""Tables: what a key file may hold. Unknown entries are refused."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Limit = Annotated[int, Field(ge=0, le=1 << 50)]
Rate = Annotated[int, Field(ge=0, le=100_000)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeyTable(_Table):
    """One key of a caller. What stands in `salt` and `hash` is checked where no message would repeat it."""

    id: str
    created: datetime
    salt: str
    hash: str
    revoked: bool = False


class CallerTable(_Table):
    """A caller: its limits, where they are its own, and its keys, of which it may have several or none."""

    max_running_analyses: Limit | None = None
    max_waiting_analyses: Limit | None = None
    max_waiting_bytes: Limit | None = None
    max_requests_per_minute: Rate | None = None
    keys: tuple[KeyTable, ...] = ()


class KeyFileTable(_Table):
    """The whole file: callers by name."""

    callers: dict[str, CallerTable] = {}
