"""The gateway: real HTTP on real sockets, over a real service."""
