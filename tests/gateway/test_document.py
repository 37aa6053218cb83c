"""The document: schemathesis reads it and looks for answers that it does not tell."""

import asyncio
import re
import sys
from pathlib import Path

import httpx

from tests.gateway.face import Face, facing
from tests.scripted_engine import Life, command
from tests.service.calls import settings_for, started

MONDRIAN_JS = Path(__file__).parents[2] / "clients" / "web" / "mondrian.js"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance"
)


async def test_no_answer_is_undocumented_and_none_is_500(tmp_path: Path) -> None:
    """Good and bad requests made from the document itself meet no 500, and no status, type or shape beside it."""
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0", max_waiting_analyses=100_000)
    engine = command([Life(tokens=2, step_s=0.001)], tmp_path / "starts")
    async with started(settings, engine_command=engine) as up:
        assert up.service.gateway is not None
        url = f"http://127.0.0.1:{up.service.gateway.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "12"),
            *("--generation-deterministic", "--no-color", "--workers", "1", "--request-timeout", "20"),
            *("--suppress-health-check", "all"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 100)
        assert process.returncode == 0, output.decode()
        async with facing(up.service.gateway.port) as face:
            assert (await face.http.get("/readyz")).status_code == httpx.codes.OK


async def test_our_client_asks_with_parameters_that_exist(face: Face) -> None:
    """mondrian.js puts nothing in a query that the document does not know: what is unknown would be passed over."""
    used = set(re.findall(r'query\.(?:set|append)\("(\w+)"|\?(\w+)=', MONDRIAN_JS.read_text()))
    operations = (await face.http.get("/openapi.json")).json()["paths"].values()
    known = {
        one["name"]
        for operation in operations
        for method in operation.values()
        for one in method.get("parameters", ())
        if one["in"] == "query"
    }
    assert {"pageSize", "pageToken", "states"} == {first or second for first, second in used} <= known
