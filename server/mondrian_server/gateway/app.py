"""The application: the routes, the page and the guard put together over one connection."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, cast

import grpc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from google.rpc.code_pb2 import Code
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from mondrian_server.gateway.access_log import AccessLog
from mondrian_server.gateway.analyses import Analyses
from mondrian_server.gateway.analysis_routes import analysis_routes
from mondrian_server.gateway.answers import refused
from mondrian_server.gateway.catalogue_routes import catalogue_routes
from mondrian_server.gateway.connection import Connection
from mondrian_server.gateway.document import make_document, methods_of
from mondrian_server.gateway.document_page import STYLE, document_page
from mondrian_server.gateway.event_stream import Streams
from mondrian_server.gateway.guard import Guard
from mondrian_server.gateway.operation_routes import operation_routes
from mondrian_server.gateway.options import GatewayOptions
from mondrian_server.gateway.refusals import Refusal, invalid, refusal

_CORS_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")
_CORS_EXPOSED = ("Content-Location", "Location", "Retry-After")


def create_app(channel: grpc.aio.Channel, streams: Streams, options: GatewayOptions) -> FastAPI:
    """Return the gateway as an ASGI application.

    Args:
        channel: the way to the server; whoever opened it closes it after the application has ended.
        streams: where open streams are kept, for the one who ends the application.
        options: how it looks to its callers.

    """
    app = FastAPI(title="Mondrian", version=version("mondrian-vision"), docs_url=None, redoc_url=None)
    connection = Connection(channel)
    app.include_router(analysis_routes(Analyses(connection, streams, options.limits, keys_needed=options.keys_needed)))
    app.include_router(catalogue_routes(connection, options.limits))
    app.include_router(operation_routes(connection, options.metrics, keys_needed=options.keys_needed))
    _add_document(app)
    _add_error_handlers(app)
    _add_folders(app, options)
    _add_middleware(app, options)
    return app


def _add_document(app: FastAPI) -> None:
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(make_document(app))
        return document

    app.openapi = openapi

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        """Show the document to people, without a script and without another host."""
        return Response(document_page(openapi()), media_type="text/html")

    @app.get("/docs/style.css", include_in_schema=False)
    async def style() -> Response:
        """Give the page's style, which the policy of our pages wants in a file."""
        return Response(STYLE, media_type="text/css")


def _add_folders(app: FastAPI, options: GatewayOptions) -> None:
    if options.samples_folder is not None:
        app.mount("/samples", StaticFiles(directory=options.samples_folder))
    if options.web_folder is not None:
        app.mount("/", StaticFiles(directory=options.web_folder, html=True))


def _add_middleware(app: FastAPI, options: GatewayOptions) -> None:
    # The last one added sees a request first. CORS stands before the guard, so that pages of other origins may read
    # what it refuses, such as a key that is missing.
    app.add_middleware(
        Guard,
        allowed_hosts=options.allowed_hosts,
        cors_origins=options.cors_origins,
        keys_needed=options.keys_needed,
    )
    if options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=_CORS_HEADERS,
            expose_headers=_CORS_EXPOSED,
        )
    app.add_middleware(AccessLog)


def _add_error_handlers(app: FastAPI) -> None:
    async def on_refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refused(error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return refused(_from_validation(request, cast("Sequence[dict[str, Any]]", error.errors())))

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        # What no route takes comes to the page's folder, which does not know the routes.
        methods = methods_of(app.openapi(), request.url.path)
        response = refused(_from_http(405 if methods else error.status_code))
        if response.status_code == 405:
            response.headers["Allow"] = ", ".join(methods or ("GET", "HEAD"))
        return response

    async def on_gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def on_defect(_: Request, __: Exception) -> Response:
        return refused(refusal(500, Code.INTERNAL, "INTERNAL", "the gateway has a defect; see its log"))

    app.add_exception_handler(Refusal, on_refusal)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Exception, on_defect)


def _from_validation(request: Request, faults: Sequence[dict[str, Any]]) -> Refusal:
    fault = faults[0]
    where, *path = fault["loc"]
    if where == "path":
        reason = "MODEL_NOT_FOUND" if request.url.path.startswith("/v1/models/") else "ANALYSIS_NOT_FOUND"
        return refusal(404, Code.NOT_FOUND, reason, "there is none of that name", field="name")
    return invalid(str(fault["msg"]), field=".".join(map(str, path)) or str(where))


def _from_http(status: int) -> Refusal:
    """Return the refusal of a request that has no route."""
    match status:
        case 404:
            return refusal(404, Code.NOT_FOUND, "NO_SUCH_ROUTE", "there is nothing here")
        case 405:
            return refusal(405, Code.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", "this method is not allowed here")
        case _:
            return refusal(status, Code.INVALID_ARGUMENT, "INVALID_REQUEST", "the request cannot be answered")
