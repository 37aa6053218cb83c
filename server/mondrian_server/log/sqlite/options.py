"""How an SQLite log is kept, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """How the log is kept.

    full_synchronous: flush at each commit, so that a power cut takes nothing back; else only a crash of the process
        takes nothing back.
    keep_images: keep the images of ended analyses until they expire.
    max_file_bytes: how large the file may grow, the write-ahead log not counted; 0: as large as the disk.
    tail_events: how many of an active analysis's newest events are held in memory at least, and twice as many at most.
    retry_s, retry_max_s: after which time a failed transaction is tried again, at first and at most.
    idle_s: after which time without work the file is looked at and gives back space.
    """

    full_synchronous: bool = False
    keep_images: bool = False
    max_file_bytes: int = 0
    tail_events: int = 1024
    retry_s: float = 0.1
    retry_max_s: float = 2.0
    idle_s: float = 1.0
