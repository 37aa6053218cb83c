"""The image decoder: the server's side of the image process, which it keeps running."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import msgspec
import structlog

from mondrian_server.child import Child, python
from mondrian_server.errors import InternalError, InvalidImage, MondrianError, ShuttingDown, StartupError
from mondrian_server.framing import AsyncChannel
from mondrian_server.images.observing import UNOBSERVED, DecodingObserver, Refusal
from mondrian_server.images.protocol import MEBIBYTE, Configure, Decode, Decoded, FromImages, ImageLimits, Refused
from mondrian_server.pictures import Picture

COMMAND = python("mondrian_server.images.process")
"""What starts an image process."""

MAX_ATTEMPTS = 2
"""How many processes may die of one image before it is refused: the first may have been killed from outside."""

MAX_START_FAILURES = 3
"""How many processes in a row may fail to start before those who wait are told."""

_START_BACKOFF_S = 0.2
_START_BACKOFF_MAX_S = 10.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_Answer: TypeAlias = Picture | MondrianError


@dataclass(eq=False, slots=True, kw_only=True)
class _Request:
    """One image that somebody waits for."""

    id: int
    data: bytes
    field: str
    answer: asyncio.Future[_Answer]
    attempts: int = 0

    def settle(self, answer: _Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class ImageDecoder:
    """Normalises images in a process of their own, first come, first served.

    An image that outlasts its limit, or ends the process twice, is refused. The process is replaced, and the other
    images are sent to its successor: those who wait for them notice only the time.
    """

    def __init__(
        self, limits: ImageLimits, *, command: Sequence[str] = COMMAND, observer: DecodingObserver = UNOBSERVED
    ):
        """Use `command` to start the process."""
        self._limits = limits
        self._observer = observer
        self._command = command
        self._waiting: deque[_Request] = deque()
        self._ids = itertools.count(1)
        self._news = asyncio.Event()
        self._starts: asyncio.Future[bool] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the image process, or None while there is none that is ready."""
        return self._pid

    @property
    def waiting(self) -> int:
        """The images that somebody waits for, the one being decoded included."""
        return len(self._waiting)

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def start(self) -> None:
        """Start the process and wait until it takes images; raises StartupError where it does not."""
        starts = self._starts = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep_a_process(), name="image decoder")
        try:
            if not await starts:
                raise StartupError("the image process does not start")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the process; those who still wait are told that the server is ending."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._tell_all(ShuttingDown("the server is ending"))

    async def normalise(self, data: bytes, *, field: str) -> Picture:
        """Return the picture of an image file; raises InvalidImage, naming `field`, where it is not accepted.

        A caller that is cancelled takes its image out of the queue, or leaves its decoding to come to nothing.
        """
        if len(data) > self._limits.max_image_bytes:
            self._observer.image_refused(Refusal.TOO_MANY_BYTES)
            raise InvalidImage(_too_many_bytes(len(data), self._limits.max_image_bytes), field=field)
        if self._keeper is None:
            raise ShuttingDown("the server is ending")
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        request = _Request(id=next(self._ids), data=data, field=field, answer=future)
        self._waiting.append(request)
        self._news.set()
        try:
            answer = await future
        finally:
            self._waiting.remove(request)
        if isinstance(answer, MondrianError):
            raise answer
        return answer

    async def _keep_a_process(self) -> None:
        failures = 0
        while True:
            failures = 0 if await self._use_a_process() else failures + 1
            self._tell_start(ready=not failures)
            if failures >= MAX_START_FAILURES:
                self._tell_all(InternalError("images cannot be decoded at present: the image process does not start"))
            if failures:
                await asyncio.sleep(min(_START_BACKOFF_S * 2**failures, _START_BACKOFF_MAX_S))

    async def _use_a_process(self) -> bool:
        """Start a process and send it images until it ends or must be ended; return whether it came to be ready."""
        try:
            child = await Child.start(self._command)
        except OSError as error:
            _log.error("image process cannot be started", error=str(error))
            return False
        async with child:
            channel = await AsyncChannel[FromImages].open(child.end, FromImages)
            try:
                ready = await self._is_ready(channel)
                if ready:
                    self._pid = child.pid
                    self._tell_start(ready=True)
                    await self._serve(channel)
            finally:
                self._pid = None
                await channel.close()
            self._observer.image_process_ended()
            _log.warning("image process ended", pid=child.pid, status=await child.kill(), was_ready=ready)
            return ready

    async def _is_ready(self, channel: AsyncChannel[FromImages]) -> bool:
        channel.send(Configure(limits=self._limits))
        try:
            async with asyncio.timeout(self._limits.start_limit_s):
                return await channel.receive() is not None
        except (TimeoutError, msgspec.MsgspecError):
            return False

    async def _serve(self, channel: AsyncChannel[FromImages]) -> None:
        """Send images, one at a time, until the process is gone or has outlasted a limit."""
        while True:
            # One `receive` at all times, so that the end of an idle process is news as well.
            frame = asyncio.create_task(channel.receive())
            frame.add_done_callback(lambda _: self._news.set())
            try:
                request = await self._next_request(frame)
                if request is None or not await self._decode(request, channel, frame):
                    return
            finally:
                frame.cancel()

    async def _next_request(self, frame: asyncio.Task[FromImages | None]) -> _Request | None:
        """Return the first image that still waits, or None when the process ends before there is one."""
        while True:
            self._news.clear()
            if frame.done():
                _result(frame)
                return None
            request = next((request for request in self._waiting if not request.answer.done()), None)
            if request is not None:
                return request
            await self._news.wait()

    async def _decode(
        self, request: _Request, channel: AsyncChannel[FromImages], frame: asyncio.Task[FromImages | None]
    ) -> bool:
        """Have one image decoded; return whether the process can go on."""
        request.attempts += 1
        began_at = asyncio.get_running_loop().time()
        channel.send(Decode(id=request.id, data=request.data))
        done, _ = await asyncio.wait({frame}, timeout=self._limits.decode_limit_s)
        if not done:
            self._refuse(
                request,
                Refusal.TOO_SLOW,
                f"decoding the image took longer than the {self._limits.decode_limit_s:g} s allowed",
            )
            return False
        match _result(frame):
            case Decoded(id=request.id, picture=picture):
                self._observer.image_decoded(asyncio.get_running_loop().time() - began_at)
                request.settle(picture)
                return True
            case Refused(id=request.id, message=message):
                self._refuse(request, Refusal.NOT_ACCEPTED, message)
                return True
            case _:
                if request.attempts >= MAX_ATTEMPTS:
                    self._refuse(request, Refusal.DEADLY, _deadly(self._limits))
                return False

    def _refuse(self, request: _Request, why: Refusal, message: str) -> None:
        self._observer.image_refused(why)
        request.settle(InvalidImage(message, field=request.field))

    def _tell_start(self, *, ready: bool) -> None:
        if self._starts is not None and not self._starts.done():
            self._starts.set_result(ready)

    def _tell_all(self, error: MondrianError) -> None:
        for request in self._waiting:
            request.settle(error)


def _result(frame: asyncio.Task[FromImages | None]) -> FromImages | None:
    """Return the frame, or None where the process is gone or no longer speaks the protocol."""
    try:
        return frame.result()
    except msgspec.MsgspecError:
        return None


def _deadly(limits: ImageLimits) -> str:
    memory = limits.memory_limit_bytes // MEBIBYTE
    return f"the image cannot be decoded: it ends the decoder, or needs more memory than the {memory:,} MiB allowed"


def _too_many_bytes(count: int, limit: int) -> str:
    return f"the image has {count / MEBIBYTE:,.1f} MiB; at most {limit / MEBIBYTE:,.1f} MiB are accepted"
