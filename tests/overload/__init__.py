"""Overload: a server that is asked for ten times what it can do."""
