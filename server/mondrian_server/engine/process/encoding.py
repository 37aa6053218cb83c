"""Encoding: pictures become features, on the CPU beside the decoding, by threads of their own."""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from mondrian_server.engine.process.beat import Operations
from mondrian_server.engine.process.embedding import Features, encode
from mondrian_server.engine.process.loading import Encodes, LoadedModel
from mondrian_server.engine.process.mlx_internals import pace_vision
from mondrian_server.engine.process.preparation import PictureInputs

_LOG = logging.getLogger(__name__)

_MOST_LANES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A picture's features as `row` ordered them, and how long they took; None: it failed."""

    row: int
    scope: str
    digest: bytes
    features: Features | None
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    row: int
    scope: str
    picture: PictureInputs


class Encoder:
    """Encodes pictures, each by itself: its features do not depend on what else runs.

    Where MLX computes on the CPU it does one operation after the other in each stream, so a picture that is encoded
    between two decode steps stops every running row, and leaves a core idle. There, up to two threads encode, each
    with a stream of its own, while the MLX thread decodes. On other devices pictures are encoded by the MLX thread:
    one device does the work of all streams.
    """

    def __init__(self, model: LoadedModel, operations: Operations, deliver: Callable[[Encoded], None]):
        """Call `deliver` with each picture that was ordered, on the thread that has encoded it."""
        self._model = model
        self._operations = operations
        self._deliver = deliver
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        on_cpu = mx.default_device().type == mx.DeviceType.cpu
        self._lanes = min(_MOST_LANES, os.cpu_count() or 1) if on_cpu else 0
        if on_cpu:
            pace_vision(model.model)

    def start(self) -> None:
        """Start the threads; they live as long as the process."""
        for number in range(self._lanes):
            threading.Thread(target=self._run, name=f"encoder {number}", daemon=True).start()

    @property
    def most(self) -> int:
        """How many pictures may be ordered at once: one for each thread, and the next one."""
        return self._lanes + 1

    def order(self, row: int, scope: str, picture: PictureInputs) -> None:
        """Have a picture encoded, now or on another thread."""
        order = _Order(row=row, scope=scope, picture=picture)
        if self._lanes and self._model.encodes is not Encodes.WHOLE:  # Nobody knows what state an unknown model keeps.
            self._orders.put(order)
        else:
            self._deliver(self._outcome(order))

    def _run(self) -> None:
        with mx.stream(mx.new_stream(mx.default_device())):
            while True:
                self._deliver(self._outcome(self._orders.get()))

    def _outcome(self, order: _Order) -> Encoded:
        began = time.monotonic()
        try:
            with self._operations.running("encode image"):
                features = encode(self._model, order.picture)
        except Exception:  # The row fails alone; the thread has other pictures to encode.
            _LOG.exception("a picture of row %d could not be encoded", order.row)
            features = None
        took_s = time.monotonic() - began
        digest = order.picture.digest
        return Encoded(row=order.row, scope=order.scope, digest=digest, features=features, took_s=took_s)
