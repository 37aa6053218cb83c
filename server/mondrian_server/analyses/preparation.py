"""Preparation: the pictures of an analysis, made of its images or read back once the engine has a place for it.

Until then its images wait in the log, not in memory: what hundreds of waiting analyses hold is the log's business, and
a small file that unfolds to many pixels costs nothing before its turn.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from mondrian_server import errors
from mondrian_server.analyses.analysis import Analysis
from mondrian_server.analyses.scheduler import Scheduler
from mondrian_server.analyses.turns import Turns
from mondrian_server.log.interface import EventLog
from mondrian_server.pictures import Picture

_log = structlog.stdlib.get_logger(__name__)


class Decoder(Protocol):
    """What turns an image's bytes into a picture."""

    async def normalise(self, data: bytes, *, field: str) -> Picture:
        """Return the picture; raises InvalidImage naming `field`."""
        ...


class Preparation:
    """Prepares one analysis at a time; the callers take turns."""

    def __init__(
        self, log: EventLog, decoder: Decoder, scheduler: Scheduler, *, release: Callable[[Analysis], None]
    ) -> None:
        """Prepare for a scheduler; `release` is told when the images of an analysis need no more room."""
        self._log = log
        self._decoder = decoder
        self._scheduler = scheduler
        self._release = release
        self._turns = Turns()

    def begin(self, analysis: Analysis) -> None:
        """Set the preparation going, unless it goes on from an earlier row."""
        if analysis.preparation is None:
            analysis.preparation = asyncio.create_task(self._prepare(analysis))

    async def _prepare(self, analysis: Analysis) -> None:
        """Give the scheduler the pictures; a bad image ends the analysis, and a log that cannot be read puts it off."""
        pictures: Sequence[Picture] = ()
        error: errors.MondrianError | None = None
        try:
            async with self._turns.turn(analysis.caller):
                pictures = await self._pictures(analysis)
        except errors.MondrianError as known:
            error = known
        except Exception:
            _log.exception("images could not be prepared", analysis=analysis.name)
            error = errors.InternalError("the images could not be prepared")
        analysis.preparation = None
        if isinstance(error, errors.LogUnavailable):
            self._scheduler.put_back(analysis)
        elif error is not None:
            analysis.fail(error)
        elif not analysis.ended:
            self._release(analysis)
            self._scheduler.prepared(analysis, pictures)

    async def _pictures(self, analysis: Analysis) -> Sequence[Picture]:
        """Return the pictures that the log has, or make them of its image files."""
        images = await self._log.images(analysis.name)
        if len(images.files) + len(images.pictures) != analysis.spec.image_count:
            raise errors.InternalError("the images are gone")
        if not images.files:
            return images.pictures
        normalise = self._decoder.normalise
        pictures = [await normalise(f, field=f"config.images[{i}].data") for i, f in enumerate(images.files)]
        with contextlib.suppress(errors.LogUnavailable):  # Whoever needs them again has the files to decode.
            await self._log.put_pictures(analysis.name, pictures)
        return pictures
