"""`mondrian.js` against a gateway that loses connections, is busy, repeats itself and leaves gaps."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.browser.chromium import window
from tests.browser.scripted_gateway import Answer, ScriptedGateway, as_json, event, scripted_gateway, stream

ACCEPTED = event(1, accepted={"model": "models/m", "queuePosition": 1})
FIRST, SECOND = event(2, token={"text": "Hello", "tokenCount": 1}), event(3, token={"text": " world", "firstIndex": 1})
COMPLETED = event(4, completed={"text": "Hello world", "finishReason": "FINISH_REASON_STOP"})
WHOLE = [1, 2, 3, 4]
ANALYSIS = {"name": "analyses/a", "state": "ANALYSIS_STATE_ACTIVE"}

WATCH = """async ({ options, watch }) => {
  const { Mondrian } = await import("/mondrian.js");
  const connections = [];
  const onConnection = ({ state, retryInS }) => connections.push({ state, retryInS });
  const events = [];
  let failure = null;
  try {
    for await (const event of new Mondrian(options).watch("analyses/a", { ...watch, onConnection })) events.push(event);
  } catch (error) {
    const { name, code, reason, httpStatus, message } = error;
    failure = { name, code, reason, httpStatus, message };
  }
  return { events, sequences: events.map((event) => event.sequence), connections, failure };
}"""


@asynccontextmanager
async def scripted(browser: Browser, *answers: Answer) -> AsyncGenerator[tuple[Page, ScriptedGateway]]:
    """Open an empty page of a scripted gateway."""
    async with scripted_gateway(*answers) as gateway, window(browser) as (page, _):
        await page.goto(gateway.address)
        yield page, gateway


async def watched(
    browser: Browser, *answers: Answer, options: dict[str, Any] | None = None, watch: dict[str, Any] | None = None
) -> tuple[dict[str, Any], ScriptedGateway]:
    """Watch an analysis over these answers; return what came of it, and the gateway."""
    async with scripted(browser, *answers) as (page, gateway):
        return await page.evaluate(WATCH, {"options": options or {}, "watch": watch or {}}), gateway


def last_ids(gateway: ScriptedGateway) -> Sequence[str | None]:
    """Return the `Last-Event-ID` of each request."""
    return [asked.headers.get("last-event-id") for asked in gateway.asked]


async def test_events_are_typed_and_whole(browser: Browser) -> None:
    """What the wire leaves out is filled in; times, durations, enums and 64-bit integers are easy to use."""
    progress = {"stage": "STAGE_PREFILL", "elapsed": "1.5s", "loadedBytes": "12345678901", "fraction": 0.25}
    found, _ = await watched(browser, stream(ACCEPTED, event(2, progress=progress), event(3, cancelled={})))
    accepted, running, cancelled = found["events"]
    assert accepted["type"] == "accepted"
    known = {"model": "models/m", "queuePosition": 1}
    assert accepted["accepted"] == known | {"advisor": "", "sampling": {}, "contextTokens": 0, "deadlineTime": None}
    assert running["progress"]["stage"] == "PREFILL"
    assert running["progress"]["elapsedS"] == 1.5
    assert running["progress"]["estimatedTimeLeftS"] is None
    assert running["progress"]["loadedBytes"] == 12345678901
    assert running["progress"]["message"] == ""
    assert cancelled["type"] == "cancelled"
    assert cancelled["cancelled"]["usage"]["outputTokens"] == 0
    assert found["failure"] is None


@pytest.mark.parametrize("breaks", [True, False], ids=["broken", "ended"])
async def test_a_lost_stream_is_taken_up_after_its_last_event(browser: Browser, breaks: bool) -> None:
    """A connection that breaks in the middle of an event, or ends too early, loses and doubles nothing."""
    found, gateway = await watched(
        browser,
        stream(ACCEPTED, FIRST, SECOND[:30], breaks=breaks),
        Answer(drops=True),
        stream(SECOND, COMPLETED),
    )
    assert found["sequences"] == WHOLE
    assert found["failure"] is None
    assert last_ids(gateway) == [None, "2", "2"]


async def test_known_events_are_dropped(browser: Browser) -> None:
    """A gateway that begins at the beginning again doubles nothing."""
    found, _ = await watched(
        browser, stream(ACCEPTED, FIRST, breaks=True), stream(ACCEPTED, FIRST, SECOND, SECOND, COMPLETED)
    )
    assert found["sequences"] == WHOLE


async def test_a_gap_is_not_passed_on(browser: Browser) -> None:
    """A stream that skips a number is left and taken up before the gap."""
    found, gateway = await watched(browser, stream(ACCEPTED, SECOND, COMPLETED), stream(FIRST, SECOND, COMPLETED))
    assert found["sequences"] == WHOLE
    assert last_ids(gateway) == [None, "1"]


async def test_a_gap_that_stays_is_an_error(browser: Browser) -> None:
    """The client does not ask for ever for an event that is not there."""
    found, gateway = await watched(browser, *[stream(ACCEPTED, SECOND)] * 8)
    assert found["sequences"] == [1]
    assert found["failure"]["name"] == "ProtocolError"
    assert len(gateway.asked) == 5


async def test_204_is_the_end(browser: Browser) -> None:
    """Where nothing comes after the last event, the watch ends without an error."""
    found, gateway = await watched(browser, Answer(status=204), watch={"after": 4})
    assert (found["events"], found["failure"]) == ([], None)
    assert last_ids(gateway) == ["4"]


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(browser: Browser, status: int) -> None:
    """A busy server is asked again, and not before the time that it named."""
    busy = as_json({"error": {"code": 8, "message": "full"}}, status, Retry_After="1")
    found, _ = await watched(browser, busy, stream(ACCEPTED, FIRST, SECOND, COMPLETED))
    (waiting,) = [one for one in found["connections"] if one["state"] == "waiting"]
    assert found["sequences"] == WHOLE
    assert waiting["retryInS"] >= 1


async def test_it_waits_longer_each_time(browser: Browser) -> None:
    """The waits double, less up to a half by chance, and a stream's `retry` is their least from the second on."""
    found, _ = await watched(
        browser,
        stream(b"retry: 400\n\n", ACCEPTED, breaks=True),
        *[Answer(drops=True)] * 3,
        stream(FIRST, SECOND, COMPLETED),
    )
    waits = [one["retryInS"] for one in found["connections"] if one["state"] == "waiting"]
    assert 0.05 <= waits[0] <= 0.1
    assert all(0.4 <= wait <= 0.8 for wait in waits[1:])
    assert len(waits) == 4
    assert found["sequences"] == WHOLE


async def test_it_gives_up_in_the_end(browser: Browser) -> None:
    """A server that does not come back within the given time is an error of its own kind."""
    found, _ = await watched(browser, *[Answer(drops=True)] * 50, options={"giveUpAfterS": 0.5})
    assert found["failure"]["name"] == "ConnectionFailed"
    assert found["failure"]["code"] == "UNAVAILABLE"


async def test_a_silent_stream_counts_as_lost(browser: Browser) -> None:
    """A connection on which nothing comes any more, as in a tunnel, is given up and taken up again."""
    found, gateway = await watched(
        browser,
        stream(ACCEPTED, FIRST, holds=True),
        stream(SECOND, COMPLETED),
        options={"idleTimeoutS": 0.5},
    )
    assert found["sequences"] == WHOLE
    assert last_ids(gateway) == [None, "2"]


async def test_an_interruption_that_the_gateway_tells_is_one(browser: Browser) -> None:
    """The event `interrupted` of a gateway that ends leads to another try; one that cannot be mended is an error."""
    ending = b'event: interrupted\ndata: {"error": {"code": 14, "message": "ending"}}\n\n'
    gone = b'event: interrupted\ndata: {"error": {"code": 5, "message": "no such analysis"}}\n\n'
    found, _ = await watched(browser, stream(ACCEPTED, ending), stream(FIRST, SECOND, COMPLETED))
    assert found["sequences"] == WHOLE
    found, _ = await watched(browser, stream(ACCEPTED, gone))
    assert found["failure"]["name"] == "NotFound"


@pytest.mark.parametrize(
    ("status", "code", "reason", "name"),
    [
        (400, 3, "INVALID_REQUEST", "InvalidRequest"),
        (401, 16, "KEY_MISSING", "Unauthenticated"),
        (403, 7, "", "PermissionDenied"),
        (404, 5, "ANALYSIS_NOT_FOUND", "NotFound"),
        (410, 9, "EVENTS_EXPIRED", "FailedPrecondition"),
        (500, 13, "INTERNAL", "InternalError"),
    ],
)
async def test_errors_are_typed(browser: Browser, status: int, code: int, reason: str, name: str) -> None:
    """What a retry does not mend ends the watch at once, with code, reason and sentence."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]
    error = {"error": {"code": code, "message": "Why.", "details": details}}
    found, gateway = await watched(browser, as_json(error, status))
    failure = found["failure"]
    assert (failure["name"], failure["reason"], failure["httpStatus"]) == (name, reason, status)
    assert failure["message"] == "Why."
    assert len(gateway.asked) == 1


async def test_a_failed_analysis_is_an_event(browser: Browser) -> None:
    """`failed` carries a typed error, and the watch ends without raising."""
    failed = event(2, failed={"error": {"code": 13, "message": "The engine crashed."}})
    async with scripted(browser, stream(ACCEPTED, failed)) as (page, _):
        name = await page.evaluate("""async () => {
          const { Mondrian, InternalError } = await import("/mondrian.js");
          for await (const event of new Mondrian().watch("analyses/a")) {
            if (event.type !== "failed") continue;
            return event.failed.error instanceof InternalError && event.failed.error.message;
          }
        }""")
    assert name == "The engine crashed."


async def test_a_lost_start_is_repeated_under_one_key(browser: Browser) -> None:
    """A start whose answer is lost, or that is refused for a while, is sent again with the same key and body."""
    async with scripted(
        browser,
        Answer(drops=True),
        as_json({"error": {"code": 8}}, 429, Retry_After="0"),
        as_json(ANALYSIS, 201),
    ) as (page, gateway):
        name = await page.evaluate("""async () => {
          const { Mondrian } = await import("/mondrian.js");
          const image = new Blob([new Uint8Array([1, 2, 3])], { type: "image/png" });
          const request = { prompt: "Why?", images: [image, image], advisor: "ansel", sampling: { seed: 7 } };
          return (await new Mondrian().create({ ...request, progressIntervalS: 0.5 })).name;
        }""")
    assert name == "analyses/a"
    (key,) = {asked.headers["idempotency-key"] for asked in gateway.asked}
    assert len(key) == 36
    assert len(gateway.asked) == 3
    for asked in gateway.asked:
        assert (asked.method, asked.path) == ("POST", "/v1/analyses")
        assert asked.body.count(b'name="image"') == 2
        config = json.loads(asked.body.split(b'name="config"\r\n\r\n')[1].split(b"\r\n--")[0])
        assert config == {
            "prompt": "Why?", "advisor": "ansel", "sampling": {"seed": 7}, "delivery": {"progressInterval": "0.5s"},
        }  # fmt: skip


async def test_analyze_starts_once_and_resumes(browser: Browser) -> None:
    """`analyze` repeats a start that got lost under its key, and goes on by watching once the analysis has a name."""
    async with scripted(
        browser, Answer(drops=True), stream(ACCEPTED, FIRST, breaks=True), stream(SECOND, COMPLETED)
    ) as (page, gateway):
        text = await page.evaluate("""async () => {
          const { Mondrian } = await import("/mondrian.js");
          let text = "";
          for await (const event of new Mondrian().analyze({ prompt: "Hi" })) {
            if (event.type === "token") text += event.token.text;
          }
          return text;
        }""")
    assert text == "Hello world"
    assert [(one.method, one.path) for one in gateway.asked] == [
        ("POST", "/v1/analyze"),
        ("POST", "/v1/analyze"),
        ("GET", "/v1/analyses/a/events"),
    ]
    assert gateway.asked[0].headers["idempotency-key"] == gateway.asked[1].headers["idempotency-key"]
    assert gateway.asked[2].headers["last-event-id"] == "2"


async def test_a_signal_ends_the_reading_and_cancels_nothing(browser: Browser) -> None:
    """An aborted watch ends with the signal's reason, while reading and while waiting; no cancel is sent."""
    async with scripted(browser, stream(ACCEPTED, holds=True), as_json({}, 503, Retry_After="60")) as (page, gateway):
        reasons = await page.evaluate("""async () => {
          const { Mondrian } = await import("/mondrian.js");
          const watch = async (abort) => {
            const controller = new AbortController();
            const onConnection = (now) => abort === now.state && controller.abort("enough");
            const events = new Mondrian().watch("a", { signal: controller.signal, onConnection });
            try {
              for await (const event of events) if (abort === "event") controller.abort("enough");
            } catch (reason) { return reason; }
          };
          return [await watch("event"), await watch("waiting")];
        }""")
    assert reasons == ["enough", "enough"]
    assert [asked.method for asked in gateway.asked] == ["GET", "GET"]


async def test_a_wait_can_be_cut_short(browser: Browser) -> None:
    """`retryNow`, and the device coming online, end a wait at once."""
    async with scripted(
        browser,
        as_json({}, 503, Retry_After="60"),
        stream(b"retry: 60000\n\n", ACCEPTED, breaks=True),
        Answer(drops=True),
        stream(FIRST, SECOND, COMPLETED),
    ) as (page, _):
        count = await page.evaluate("""async () => {
          const { Mondrian } = await import("/mondrian.js");
          const onConnection = (now) => {
            if (now.error?.httpStatus === 503) setTimeout(now.retryNow);
            else if (now.state === "waiting") setTimeout(() => dispatchEvent(new Event("online")));
          };
          let count = 0;
          for await (const event of new Mondrian().watch("a", { onConnection })) count += 1;
          return count;
        }""")
    assert count == 4


async def test_leaving_the_loop_closes_the_connection(browser: Browser) -> None:
    """A consumer that breaks off leaves no request open."""
    async with scripted(browser, stream(ACCEPTED, holds=True)) as (page, _), page.expect_event("requestfailed"):
        await page.evaluate("""async () => {
              const { Mondrian } = await import("/mondrian.js");
              for await (const event of new Mondrian().watch("a")) break;
            }""")


async def test_the_other_calls(browser: Browser) -> None:
    """Get, list, cancel, delete, advisors and models: routes, the key, pages, and a delete whose answer was lost."""
    async with scripted(
        browser,
        as_json({**ANALYSIS, "text": "Hel"}),
        as_json({"analyses": [ANALYSIS], "nextPageToken": "t"}),
        as_json({**ANALYSIS, "state": "ANALYSIS_STATE_CANCELLED"}),
        Answer(drops=True),
        as_json({"error": {"code": 5}}, 404),
        as_json({"advisors": [{"name": "advisors/x"}], "nextPageToken": "n"}),
        as_json({"advisors": [{"name": "advisors/y"}]}),
        as_json({"models": [{"name": "models/m", "state": "MODEL_STATE_READY", "weightsBytes": "5"}]}),
    ) as (page, gateway):
        found = await page.evaluate("""async () => {
          const { Mondrian } = await import("/mondrian.js");
          const mondrian = new Mondrian({ apiKey: () => "secret" });
          return {
            get: await mondrian.get("analyses/a"),
            list: await mondrian.list({ pageSize: 1, pageToken: "s", states: ["ACTIVE"] }),
            cancel: (await mondrian.cancel("a")).state,
            delete: await mondrian.delete("a") ?? null,
            advisors: (await mondrian.advisors()).map((one) => one.name),
            models: await mondrian.models(),
          };
        }""")
    assert (found["get"]["text"], found["get"]["state"], found["get"]["endTime"]) == ("Hel", "ACTIVE", None)
    assert (found["list"]["nextPageToken"], found["list"]["analyses"][0]["name"]) == ("t", "analyses/a")
    assert found["cancel"] == "CANCELLED"
    assert found["advisors"] == ["advisors/x", "advisors/y"]
    assert found["models"][0]["weightsBytes"] == 5
    assert {asked.headers["authorization"] for asked in gateway.asked} == {"Bearer secret"}
    assert [(asked.method, asked.path) for asked in gateway.asked] == [
        ("GET", "/v1/analyses/a"),
        ("GET", "/v1/analyses?pageSize=1&pageToken=s&states=ANALYSIS_STATE_ACTIVE"),
        ("POST", "/v1/analyses/a:cancel"),
        ("DELETE", "/v1/analyses/a"),
        ("DELETE", "/v1/analyses/a"),
        ("GET", "/v1/advisors"),
        ("GET", "/v1/advisors?pageToken=n"),
        ("GET", "/v1/models"),
    ]


async def test_a_name_cannot_leave_its_place(browser: Browser) -> None:
    """An id is one segment of a path, whatever it holds."""
    async with scripted(browser, as_json(ANALYSIS)) as (page, gateway):
        refused = await page.evaluate("""async () => {
          const { Mondrian } = await import("/mondrian.js");
          await new Mondrian().get("../models?x#y");
          return new Mondrian().get("analyses/..").catch((error) => error.name);
        }""")
    assert gateway.asked[0].path == "/v1/analyses/..%2Fmodels%3Fx%23y"
    assert refused == "TypeError"
