"""A visitor: what a person does on the page, and what the server holds of it."""

import re
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Page, expect

from mondrian.v1 import analysis_pb2 as pb
from mondrian.v1 import analysis_service_pb2 as service_pb
from tests.service.calls import Connection

SAMPLES = Path(__file__).parents[2] / "models" / "mondrian-tiny" / "samples"
RED = SAMPLES / "composition-red.jpg"
LONG_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody at a page."""

    page: Page

    async def ask(self, prompt: str, *, picture: Path | None = RED, advisor: str = "No advisor") -> None:
        """Fill in the form and send it."""
        if picture is not None:
            await self.page.get_by_label("Choose a photo").set_input_files(picture)
        await self.page.get_by_role("radio", name=advisor).check()
        await self.page.get_by_label("What do you want to know?").fill(prompt)
        await self.page.get_by_role("button", name="Analyse").click()

    async def until_writing(self, characters: int = 1) -> None:
        """Wait until some of the text stands there."""
        await expect(self.page.locator("#text")).to_have_text(
            re.compile(f".{{{characters},}}", re.DOTALL), timeout=LONG_MS
        )

    async def until_finished(self) -> str:
        """Wait for the end and return the text as it stands on the page."""
        await expect(self.page.locator("#message")).to_have_text("Finished.", timeout=LONG_MS)
        return await self.text()

    async def text(self) -> str:
        """The text on the page."""
        return await self.page.locator("#text").text_content() or ""

    @property
    def name(self) -> str:
        """The analysis that the address names."""
        return self.page.url.partition("#")[2]

    async def until_named(self) -> str:
        """Wait until the address names an analysis, and return its name."""
        await expect(self.page).to_have_url(re.compile("#analyses/.+"), timeout=LONG_MS)
        return self.name


async def list_analyses(server: Connection) -> list[pb.Analysis]:
    """Return all analyses, newest first."""
    request = service_pb.ListAnalysesRequest(page_size=1000)
    return list((await server.analyses.ListAnalyses(request, metadata=server.metadata)).analyses)
