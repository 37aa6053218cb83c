"""The page in a real browser, on the embedded model: a picture in, stages, tokens and the right answer out."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, expect

from mondrian.v1 import analysis_pb2 as pb
from tests.browser.chromium import window
from tests.browser.visitor import LONG_MS, RED, Visitor, list_analyses
from tests.service.calls import Running

STAGES = ["Queue", "Load", "Prepare", "Look", "Read", "Write", "Finish"]


async def test_a_picture_gets_the_right_answer(browser: Browser, up: Running, address: str) -> None:
    """An uploaded picture goes through the stages, and the text on the page is the server's, and right."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await visitor.ask("Which colour dominates?")
        text = await visitor.until_finished()
        analysis = await up.get(await visitor.until_named())
        assert text == analysis.text
        assert "red" in text
        assert [await step.text_content() for step in await page.locator("#stages li").all()] == STAGES
        assert await page.locator("#stages li").nth(5).get_attribute("data-is") == "done"
        await expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
        await expect(page.locator("#tokens")).to_have_text(str(analysis.completed.usage.output_tokens))
        await expect(page.locator("#plot rect").first).to_be_attached()


async def test_an_advisor_is_asked(browser: Browser, up: Running, address: str) -> None:
    """The advisor's card decides whose instructions apply, and is remembered for the next time."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await visitor.ask("Describe this image.", advisor="Ansel")
        await visitor.until_finished()
        assert (await up.get(visitor.name)).config.advisor == "advisors/ansel"
        await expect(page.get_by_text("asked of Ansel")).to_be_visible()
        await page.goto(address)
        await expect(page.get_by_role("radio", name="Ansel")).to_be_checked()


async def test_a_sample_is_a_picture_too(browser: Browser, address: str) -> None:
    """A sample is chosen with one press, and nothing need be uploaded by hand."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await page.get_by_role("button", name="shapes red circle").click()
        await expect(page.get_by_role("img", name="Your picture, shapes-red-circle.png")).to_be_visible()
        await visitor.ask("How many shapes?", picture=None)
        assert "one" in (await visitor.until_finished()).lower()


@pytest.mark.parametrize("way", ["drop", "paste"])
async def test_a_picture_can_be_dropped_and_pasted(browser: Browser, address: str, way: str) -> None:
    """A file that is dropped or pasted stands on the easel."""
    async with window(browser) as (page, _):
        await page.goto(address)
        await page.evaluate(
            """async (way) => {
              const blob = await (await fetch("samples/composition-red.jpg")).blob();
              const data = new DataTransfer();
              data.items.add(new File([blob], "mine.jpg", { type: "image/jpeg" }));
              const target = document.getElementById("easel");
              const event = way === "drop"
                ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
              target.dispatchEvent(event);
            }""",
            way,
        )
        await expect(page.get_by_role("img", name="Your picture, mine.jpg")).to_be_visible()


async def test_what_was_asked_before_can_be_opened_and_deleted(browser: Browser, up: Running, address: str) -> None:
    """The history shows earlier analyses with their pictures, opens them as they were, and deletes them for good."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await visitor.ask("How is it balanced?")
        text = await visitor.until_finished()
        name = visitor.name
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.get_by_label("What do you want to know?")).to_be_focused()
        item = page.locator(f'#history-list li:has(a[href="#{name}"])')
        await expect(item.locator("img.thumb")).to_be_visible()
        await item.get_by_role("link").click()
        assert await visitor.until_finished() == text
        await expect(page.get_by_role("heading", name="How is it balanced?")).to_be_visible()
        await page.go_back()
        await expect(page.get_by_role("button", name="Analyse")).to_be_visible()
        await item.get_by_role("button", name="Delete").click()
        await expect(item).to_have_count(0)
    assert name not in [one.name for one in await list_analyses(up)]


async def test_the_history_goes_on(browser: Browser, up: Running, address: str) -> None:
    """More of the history is what came before it, each analysis once, and an address that is no text is passed over."""
    for number in range(13):
        config = pb.AnalysisConfig(prompt="Hello.", sampling=pb.Sampling(max_tokens=1))
        await up.create(config, request_id=f"history-{number}")
    async with window(browser) as (page, _):
        await page.goto(f"{address}#%")
        links = page.locator("#history-list a")
        await expect(links).to_have_count(12)
        await page.get_by_role("button", name="Show more").click()
        await expect(page.locator("#history-list a:nth-child(1)").nth(12)).to_be_attached()
        addresses = [await link.get_attribute("href") for link in await links.all()]
        assert len(addresses) == len(set(addresses)) > 12


async def test_nothing_is_asked_of_another_host(browser: Browser, address: str) -> None:
    """Everything that the page loads and calls comes from where the page came from."""
    async with window(browser) as (page, seen):
        visitor = Visitor(page=page)
        await page.goto(address)
        await visitor.ask("Describe this image.")
        await visitor.until_finished()
        hosts = {urlsplit(url).netloc for url in seen.requests if not url.startswith(("blob:", "data:"))}
        assert hosts == {urlsplit(address).netloc}
        assert len(seen.requests) > 20


async def test_a_large_file_is_not_sent(browser: Browser, address: str, tmp_path: Path) -> None:
    """A file above the limit gets a clear message, and nothing leaves the browser."""
    large = tmp_path / "large.jpg"
    large.write_bytes(b"\xff\xd8" + bytes(21 * 2**20))
    async with window(browser) as (page, seen):
        await page.goto(address)
        await page.get_by_label("Choose a photo").set_input_files(large)
        await expect(page.get_by_role("alert").filter(has_text="21.0 MiB")).to_contain_text("at most 20.0 MiB")
        assert await page.locator("#preview").is_hidden()
        assert not [url for url in seen.requests if url.startswith("blob:")]


async def test_no_picture_names_itself(browser: Browser, address: str, tmp_path: Path) -> None:
    """A file that is no picture is refused here where its type says so, and else by the server, which names why."""
    (tmp_path / "notes.txt").write_text("Not a picture.")
    (tmp_path / "broken.png").write_text("Not a picture.")
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await page.get_by_label("Choose a photo").set_input_files(tmp_path / "notes.txt")
        await expect(page.get_by_role("alert").filter(has_text="is not a picture")).to_be_visible()
        await visitor.ask("Describe this image.", picture=tmp_path / "broken.png")
        notice = page.locator("#result-notice")
        await expect(notice).to_contain_text("image", timeout=LONG_MS)
        await expect(page.locator("#message")).to_have_text("It could not be finished.")
        await expect(page.get_by_role("button", name="Ask again")).to_be_visible()


async def test_nothing_to_ask(browser: Browser, address: str) -> None:
    """Without a picture and a question nothing is sent; the page says what is missing, and where."""
    async with window(browser) as (page, _):
        await page.goto(address)
        prompt = page.get_by_label("What do you want to know?")
        await prompt.fill("  ")
        await page.get_by_role("button", name="Analyse").click()
        await expect(prompt).to_be_focused()
        await expect(prompt).to_have_attribute("aria-invalid", "true")
        await expect(page.get_by_role("alert").filter(has_text="Choose a picture")).to_be_visible()


async def test_an_analysis_that_is_gone(browser: Browser, address: str) -> None:
    """A link to an analysis that is not there says so, and leads on."""
    async with window(browser) as (page, _):
        await page.goto(f"{address}#analyses/nothing")
        await expect(page.locator("#result-notice")).to_contain_text("no such analysis")
        await page.get_by_role("button", name="Ask again").click()
        await expect(page.get_by_role("button", name="Analyse")).to_be_visible()


async def test_the_text_can_be_copied(browser: Browser, address: str) -> None:
    """One press puts the whole text on the clipboard."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.goto(address)
        await visitor.ask("Which colour dominates?")
        text = await visitor.until_finished()
        await page.get_by_role("button", name="Copy text").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert await page.evaluate("() => navigator.clipboard.readText()") == text


async def test_text_of_the_model_is_text(browser: Browser, address: str) -> None:
    """What stands in a prompt or an answer is never markup."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await visitor.ask("<img src=x onerror=alert(1)>", picture=RED)
        await visitor.until_finished()
        await expect(page.locator("#result-heading")).to_have_text("<img src=x onerror=alert(1)>")
        assert await page.locator("#result-heading img, #history-list a img[src=x]").count() == 0
