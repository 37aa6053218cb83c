"""Tests of Mondrian: real processes, real sockets, the embedded model. Each folder is a package."""
