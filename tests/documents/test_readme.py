"""README: what it shows works, and what it lists is all there is."""

import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest

from mondrian_server import errors
from mondrian_server.settings import describe
from tests.service.calls import settings_for, started

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
DOCUMENTS = [ROOT / "README.md", ROOT / "models" / "mondrian-tiny" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


async def test_every_python_example_runs_as_it_stands(tmp_path: Path) -> None:
    """Each Python example of the README ends without an error or a warning, and prints something."""
    shutil.copy(ROOT / "models" / "mondrian-tiny" / "samples" / "composition-red.jpg", tmp_path / "photo.jpg")
    assert len(EXAMPLES) >= 5
    async with started(settings_for(tmp_path / "data")) as running:
        address = f"127.0.0.1:{running.service.port}"
        for example in EXAMPLES:
            status, output, complaints = await run_python(at(example, address), tmp_path)
            assert (status, complaints) == (0, ""), example
            assert output.strip(), example


def at(example: str, address: str) -> str:
    """Return an example that asks the server at `address` instead of the default one."""
    return example.replace('"127.0.0.1:50051"', f'"{address}"').replace("Client()", f'Client("{address}")')


async def run_python(program: str, folder: Path) -> tuple[int | None, str, str]:
    """Run a program in a folder and return its exit status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    return process.returncode, output.decode(), complaints.decode()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(document: Path) -> None:
    """Each relative link of a document leads to something in the repository."""
    text = document.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
    missing = [link for link in links if link and "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_every_reason_is_listed() -> None:
    """The table of errors holds each reason that the server can give, with its code."""
    for kind in error_classes(errors.MondrianError):
        row = next((line for line in README.splitlines() if line.startswith(f"| {kind.code.name} ")), "")
        assert re.search(rf"\b{kind.reason}\b", row), kind


def error_classes(kind: type[errors.MondrianError]) -> set[type[errors.MondrianError]]:
    """Return a class of errors and all below it."""
    return {kind}.union(*(error_classes(child) for child in kind.__subclasses__()))


def test_every_flag_shown_is_a_setting() -> None:
    """The flags and variables of the README's table are those of settings, with their defaults."""
    settings = {setting.flag: setting for setting in describe()}
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `(MONDRIAN_[A-Z_]+)` \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) >= 5
    for flag, variable, default in rows:
        if flag != "--config":
            assert settings[flag].variable == variable
            assert settings[flag].default is None or default == f"`{settings[flag].default}`"


def test_every_make_target_shown_exists() -> None:
    """Each `make` target that a document names is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", document.read_text(encoding="utf-8")))
        assert named <= targets, document
