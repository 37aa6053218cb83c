"""Bodies: whose are read when many come at once."""

from contextlib import AbstractContextManager

import pytest
from starlette.requests import Request
from starlette.types import Message

from mondrian_server.gateway.bodies import Body, Intake
from mondrian_server.gateway.options import MEBIBYTE, Limits
from mondrian_server.gateway.refusals import Refusal

EIGHT = Limits(max_bodies_bytes=8 * MEBIBYTE)


def opened(intake: Intake, key: str, mebibytes: int) -> AbstractContextManager[Body]:
    """Open a body of one piece that comes with a key."""

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(mebibytes * MEBIBYTE), "more_body": False}

    scope = {"type": "http", "headers": [(b"authorization", key.encode())]}
    return intake.open(Request(scope, receive), 33 * MEBIBYTE)


async def test_each_key_may_hold_what_it_leaves_free() -> None:
    """One alone may hold half; what two hold leaves a place for a third, however much they want."""
    intake = Intake(EIGHT, shared=True)
    with opened(intake, "ann", 3) as first, opened(intake, "bob", 2) as second, opened(intake, "cyd", 1) as third:
        await first.whole()
        with pytest.raises(Refusal, match="too many uploads"), opened(intake, "ann", 2) as more:
            await more.whole()
        await second.whole()
        with pytest.raises(Refusal, match="too many uploads"), opened(intake, "bob", 1) as more:
            await more.whole()
        await third.whole()
    with opened(intake, "ann", 4) as body:
        assert len(await body.whole()) == 4 * MEBIBYTE, "what was held is free again"


async def test_without_keys_all_is_for_everybody() -> None:
    """What is sent as a key by somebody of whom none is asked tells nobody apart."""
    intake = Intake(EIGHT, shared=False)
    with opened(intake, "ann", 7) as body:
        await body.whole()
        with pytest.raises(Refusal, match="too many uploads"), opened(intake, "bob", 2) as more:
            await more.whole()
