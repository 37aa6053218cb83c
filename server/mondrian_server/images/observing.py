"""Observing: what becomes of images, told to whoever counts it."""

import enum


class Refusal(enum.Enum):
    """Why an image was refused."""

    TOO_MANY_BYTES = "too_many_bytes"
    TOO_SLOW = "too_slow"
    DEADLY = "deadly"
    NOT_ACCEPTED = "not_accepted"


class DecodingObserver:
    """Hears what becomes of images, on the event loop. This one takes no notice; one that counts overrides it."""

    def image_decoded(self, took_s: float) -> None:
        """Hear that an image became a picture, and how long the image process had it in hand."""

    def image_refused(self, why: Refusal) -> None:
        """Hear that an image was refused."""

    def image_process_ended(self) -> None:
        """Hear that an image process is gone and will be replaced."""


UNOBSERVED = DecodingObserver()
"""Where nobody counts."""
