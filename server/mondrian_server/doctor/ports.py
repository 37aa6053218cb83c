"""Ports: whether an address is free to listen on, and who holds it where it is not."""

import contextlib
import errno
import os
import socket

import psutil

from mondrian_server.doctor.finding import Finding, ok, problem


def find_port(check: str, address: str, flag: str, *, ours: bool) -> Finding:
    """Return whether a server could listen at an address, `host:port`; `ours`: a server of ours answers there."""
    host, _, port = address.rpartition(":")
    if ours:
        return ok(check, f"a Mondrian server answers at {address}")
    if port == "0":
        return ok(check, f"any free port of {host} is taken at the start")
    fault = _fault(host.removeprefix("[").removesuffix("]"), int(port))
    if fault is None:
        return ok(check, f"{address} is free")
    if fault == errno.EADDRINUSE:
        text = f"{address} is taken by {_holder(int(port))}, which does not answer as a Mondrian server"
        return problem(check, text, f"end it, or choose another port with {flag}")
    return problem(check, f"{address}: {os.strerror(fault)}", f"choose another address with {flag}")


def _fault(host: str, port: int) -> int | None:
    """Return the system's error for listening there, or None where one can."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            listener.listen()
    except OSError as error:
        return errno.EADDRNOTAVAIL if isinstance(error, socket.gaierror) else error.errno or errno.EIO
    return None


def _holder(port: int) -> str:
    """Return who listens on a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return f"{psutil.Process(one.pid).name()} (process {one.pid})"
    return "another program"
