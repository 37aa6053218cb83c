"""The gateway of a server that runs: whether it answers over HTTP."""

import contextlib
import http.client

from mondrian_server.doctor.certificates import trusting_context

_ANSWER_LIMIT_S = 5.0


def answers(address: str, *, with_tls: bool) -> bool:
    """Return whether a gateway of ours answers at an address, `host:port`."""
    host, _, port = address.rpartition(":")
    if port == "0":
        return False
    connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_LIMIT_S)
    if with_tls:
        connection = http.client.HTTPSConnection(host, int(port), timeout=_ANSWER_LIMIT_S, context=trusting_context())
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    return False
