"""The client: reads a plan, asks a contender for all of it, and writes what it saw. A process of its own.

Run by the harness: `python -m bench.client PLAN RUN`. All protocols are served by the same event loop and the same
bookkeeping; what differs is what the protocol asks for.
"""

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec

from bench.board import Board
from bench.plan import Plan, Request, Seen
from bench.sse import events, posted
from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from mondrian.v1 import analysis_service_pb2_grpc as service

Ask = Callable[[int, Request, Seen], Awaitable[None]]


async def run_plan(plan: Plan) -> bytes:
    """Run a plan and return what was seen, as JSON."""
    async with _opened(plan) as make:
        board = Board(len(plan.requests))
        ask = make(board)
        killing = asyncio.create_task(_kill(board, plan))
        await asyncio.gather(*(_one(board, ask, index, request) for index, request in enumerate(plan.requests)))
        killing.cancel()
        return msgspec.json.encode(board.run())


async def _kill(board: Board, plan: Plan) -> None:
    if plan.kill_when is not None:
        await board.reach(plan.kill_when)
        os.kill(plan.kill, signal.SIGKILL)
        board.killed_s = board.now_s()


async def _one(board: Board, ask: Ask, index: int, request: Request) -> None:
    seen = await board.begin(index, request)
    work = asyncio.ensure_future(ask(index, request, seen))
    leaving = asyncio.create_task(_leave(board, request, seen, work)) if request.cancel else None
    try:
        await work
    except asyncio.CancelledError:
        pass
    except (grpc.aio.AioRpcError, OSError, EOFError, RuntimeError) as error:
        seen.error = f"{type(error).__name__}: {error}"[:500]
    finally:
        seen.ended_s = board.now_s()
        if leaving is not None:
            leaving.cancel()


async def _leave(board: Board, request: Request, seen: Seen, work: "asyncio.Future[None]") -> None:
    assert request.cancel is not None
    await board.reach(request.cancel)
    seen.cancelled_s = board.now_s()
    work.cancel()


@contextlib.asynccontextmanager
async def _opened(plan: Plan) -> AsyncGenerator[Callable[[Board], Ask]]:
    """Connect, and give what makes the function that asks."""
    if plan.protocol != "grpc":
        kind = {"gateway": _gateway, "openai": _openai}[plan.protocol]
        bodies = [kind.body(plan, request) for request in plan.requests]
        yield lambda board: kind(plan, board, bodies)
        return
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(plan.address, options=options) as channel:
        await channel.channel_ready()
        stub: Any = service.AnalysisServiceStub(channel)
        messages = [service_pb.AnalyzeRequest(config=_config(plan, request)) for request in plan.requests]
        yield lambda board: _Grpc(stub, board, messages)


class _Grpc:
    """Mondrian over gRPC."""

    def __init__(self, stub: Any, board: Board, messages: list[service_pb.AnalyzeRequest]):
        self._stub, self._board, self._messages = stub, board, messages

    async def __call__(self, index: int, _: Request, seen: Seen) -> None:
        call = self._stub.Analyze(self._messages[index])
        try:
            async for response in call:
                event = response.event
                match event.WhichOneof("payload"):
                    case "token":
                        self._board.arrived(index, event.token.token_count)
                    case "progress":
                        seen.stages.setdefault(pb.Stage.Name(event.progress.stage), self._board.now_s())
                    case "completed":
                        seen.counts = _counts(event.completed)
                    case _:
                        pass
        finally:
            call.cancel()


def _counts(completed: pb.Completed) -> dict[str, float]:
    usage, timings = completed.usage, completed.timings
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "queue_s": timings.queue.ToNanoseconds() / 1e9,
        "encode_s": timings.encode.ToNanoseconds() / 1e9,
    }


def _config(plan: Plan, request: Request) -> pb.AnalysisConfig:
    config = pb.AnalysisConfig(
        prompt=request.prompt, sampling=pb.Sampling(max_tokens=request.max_tokens, **request.sampling)
    )
    if request.image:
        config.images.add(data=Path(request.image).read_bytes())
    if plan.token_interval_s is not None:
        config.delivery.token_interval.FromNanoseconds(int(plan.token_interval_s * 1e9))
    return config


class _Choice(msgspec.Struct):
    delta: dict[str, Any] = {}


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: dict[str, Any] | None = None
    error: Any = None


class _openai:  # noqa: N801 # a protocol's name
    """mlx_vlm.server over SSE; each frame with text is one token."""

    _decode = msgspec.json.Decoder(_Chunk).decode

    def __init__(self, plan: Plan, board: Board, bodies: list[bytes]):
        self._plan, self._board, self._bodies = plan, board, bodies

    @staticmethod
    def body(plan: Plan, request: Request) -> bytes:
        content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt}]
        if request.image:
            data = base64.b64encode(Path(request.image).read_bytes()).decode()
            content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
        message = {
            "model": plan.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.0,
        } | request.sampling
        return msgspec.json.encode(message)

    async def __call__(self, index: int, _: Request, seen: Seen) -> None:
        headers = "Content-Type: application/json\r\n"
        async with posted(self._plan.address, "/v1/chat/completions", self._bodies[index], headers) as reader:
            async for data in events(reader):
                if data == b"[DONE]":
                    return
                chunk = self._decode(data)
                if chunk.error:
                    raise RuntimeError(str(chunk.error))
                if any(choice.delta.get("content") for choice in chunk.choices):
                    self._board.arrived(index, 1)
                if chunk.usage:
                    seen.counts = {
                        "prompt_tokens": chunk.usage.get("prompt_tokens", chunk.usage.get("input_tokens", 0)),
                        "output_tokens": chunk.usage.get("completion_tokens", chunk.usage.get("output_tokens", 0)),
                        "cached_tokens": (chunk.usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
                    }


class _Token(msgspec.Struct):
    tokenCount: int = 0  # noqa: N815 # the contract's JSON name


class _Progress(msgspec.Struct):
    stage: str = ""


class _Usage(msgspec.Struct):
    promptTokens: int = 0  # noqa: N815 # the contract's JSON name
    cachedTokens: int = 0  # noqa: N815 # the contract's JSON name
    outputTokens: int = 0  # noqa: N815 # the contract's JSON name


class _Completed(msgspec.Struct):
    usage: _Usage


class _Event(msgspec.Struct):
    token: _Token | None = None
    progress: _Progress | None = None
    completed: _Completed | None = None


class _gateway:  # noqa: N801 # a protocol's name
    """Mondrian over SSE."""

    _decode = msgspec.json.Decoder(_Event).decode

    def __init__(self, plan: Plan, board: Board, bodies: list[bytes]):
        self._plan, self._board, self._bodies = plan, board, bodies

    @staticmethod
    def body(plan: Plan, request: Request) -> bytes:
        config: dict[str, Any] = {
            "prompt": request.prompt,
            "sampling": {"maxTokens": request.max_tokens} | request.sampling,
        }
        if request.image:
            config["images"] = [{"data": base64.b64encode(Path(request.image).read_bytes()).decode()}]
        if plan.token_interval_s is not None:
            config["delivery"] = {"tokenInterval": f"{plan.token_interval_s}s"}
        return msgspec.json.encode({"config": config})

    async def __call__(self, index: int, _: Request, seen: Seen) -> None:
        headers = "Content-Type: application/json\r\n"
        async with posted(self._plan.address, "/v1/analyze", self._bodies[index], headers) as reader:
            async for data in events(reader):
                event = self._decode(data)
                if event.token is not None:
                    self._board.arrived(index, event.token.tokenCount)
                elif event.progress is not None:
                    seen.stages.setdefault(event.progress.stage, self._board.now_s())
                elif event.completed is not None:
                    usage = event.completed.usage
                    seen.counts = {
                        "prompt_tokens": usage.promptTokens,
                        "cached_tokens": usage.cachedTokens,
                        "output_tokens": usage.outputTokens,
                    }


def main(plan_file: str, run_file: str) -> None:
    """Run the plan in one file and write what was seen to the other."""
    plan = msgspec.json.decode(Path(plan_file).read_bytes(), type=Plan)
    Path(run_file).write_bytes(asyncio.run(run_plan(plan)))


if __name__ == "__main__":
    main(*sys.argv[1:])
