"""The log in SQLite: one file, one connection, one thread that owns it."""

from mondrian_server.log.sqlite.database import inspect_file
from mondrian_server.log.sqlite.log import SqliteLog
from mondrian_server.log.sqlite.options import SqliteOptions

__all__ = ["SqliteLog", "SqliteOptions", "inspect_file"]
