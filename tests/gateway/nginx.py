"""nginx: Debian's, as an ordinary process in front of a gateway, with its default buffering."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from tests.conditions import eventually
from tests.gateway.face import Face, facing, free_port
from tests.installed import installed

# Nothing of the proxy's defaults is changed but what an ordinary user may not write or bind.
CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_max_body_size 40m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {url}; }}
  }}
}}
"""


@contextlib.asynccontextmanager
async def behind_nginx(folder: Path, face: Face) -> AsyncGenerator[Face]:
    """Run nginx in front of a gateway, and give a client of it."""
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, port=port, url=face.url))
    with (folder / "nginx-stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            installed("nginx", package="nginx-light"),
            "-p",
            str(folder),
            "-c",
            str(configuration),
            stdout=errors,
            stderr=errors,
        )
    try:
        async with facing(port) as proxied:
            await eventually(proxied.ready)
            yield proxied
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
