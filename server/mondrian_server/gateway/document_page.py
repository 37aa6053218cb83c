"""The document's page: the OpenAPI document as plain HTML, for people."""

from html import escape
from typing import Any

from mondrian_server.gateway.answers import pretty

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 code { font-size: 1.1rem } section { border-top: 1px solid #8884; padding: .5rem 0 }
table { border-collapse: collapse; width: 100% } td { padding: .2rem .8rem .2rem 0; vertical-align: top }
pre { overflow-x: auto; background: #8881; padding: .8rem } .method { text-transform: uppercase; font-weight: 700 }
"""
"""The page's style sheet, served beside it."""


def document_page(document: dict[str, Any]) -> str:
    """Return the page."""
    info = document["info"]
    routes = "".join(
        _operation(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_json(schema)}</details>'
        for name, schema in document["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{escape(info["title"])}: HTTP</title><link rel="stylesheet" href="/docs/style.css">'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_prose(info['description'])}"
        f'<p><a href="/openapi.json">openapi.json</a></p>{routes}<h2>Messages</h2>{schemas}</html>'
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}<td>{_text(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{_text(one['description'])}<td>{_kinds(one)}"
        for status, one in sorted(operation["responses"].items())
    )
    body = operation.get("requestBody", {})
    asked = f"<p>{_text(body.get('description', ''))} {_kinds(body)}</p>" if body else ""
    return (
        f'<section><h2><span class="method">{escape(method)}</span> <code>{escape(path)}</code></h2>'
        f"{_prose(operation.get('description', ''))}{asked}<table>{parameters}</table>"
        f"<details><summary>Answers</summary><table>{answers}</table></details></section>"
    )


def _kinds(entry: dict[str, Any]) -> str:
    return ", ".join(
        f"<code>{escape(kind)}</code> {_link(value['schema'])}" for kind, value in entry.get("content", {}).items()
    )


def _link(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""


def _prose(text: str) -> str:
    return "".join(f"<p>{_text(part)}</p>" for part in text.strip().split("\n\n") if part)


def _text(text: str) -> str:
    """Return a text with what stands between back-ticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _json(schema: dict[str, Any]) -> str:
    return f"<pre>{escape(pretty(schema))}</pre>"
