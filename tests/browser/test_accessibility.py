"""The page without a mouse and without sight: keyboard, names and roles, what is read out, contrast, small screens."""

import asyncio
import itertools
import re
from functools import partial
from pathlib import Path

import pytest
from playwright.async_api import Browser, FileChooser, Locator, Page, Route, expect

from tests.browser.chromium import window
from tests.browser.conftest import page_address
from tests.browser.visitor import LONG_MS, Visitor
from tests.scripted_engine.program import Life, command
from tests.service.calls import settings_for, started

MOST_STEPS = 60

# The relative luminance and the ratio are those of WCAG 2.2.
CONTRASTS = """(pairs) => {
  const probe = document.body.appendChild(document.createElement("i"));
  const luminance = (name) => {
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3);
    const linear = (part) => part <= 10.31475 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts.map(Number).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return pairs.map(([one, other]) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  });
}"""
TEXTS = [
    ("text", "plane"), ("text", "shade"), ("muted", "plane"), ("muted", "shade"), ("error", "plane"), ("plane", "text"),
    ("on-red", "red"), ("on-red", "red-deep"), ("on-yellow", "yellow"),
]  # fmt: skip
PARTS = [("blue", "plane"), ("red", "plane"), ("focus", "plane"), ("muted", "plane"), ("text", "shade")]

# Controls, and whether each has a name by the browser's own reckoning.
NAMELESS = """() => [...document.querySelectorAll("button, a[href], input, textarea, [role=progressbar], dialog, img")]
  .filter((element) => element.checkVisibility())
  .filter((element) => {
    if (element.tagName === "IMG") return !element.hasAttribute("alt");
    const ids = (element.getAttribute("aria-labelledby") ?? "").split(" ");
    const named = ids.map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const inside = element.textContent + [...element.querySelectorAll("img")].map((image) => image.alt).join("");
    const name = (element.getAttribute("aria-label") ?? "") + named + (element.labels?.[0]?.textContent ?? "") + inside;
    return !name.trim();
  })
  .map((element) => element.outerHTML.slice(0, 200))"""


TELL = """() => {
  window.told = [];
  const region = document.getElementById("announcer");
  new MutationObserver(() => window.told.push(region.textContent)).observe(region, { childList: true });
}"""


async def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until something has the focus."""
    for _ in range(MOST_STEPS):
        await page.keyboard.press("Tab")
        if await target.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not reach {target}")


async def test_everything_works_by_keyboard(browser: Browser, address: str) -> None:
    """A sample, an advisor and a question are chosen, sent, stopped or copied, and asked again, without a mouse."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await tab_to(page, page.get_by_role("button", name="composition red"))
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("img", name="Your picture, composition-red.jpg")).to_be_visible()
        await tab_to(page, page.get_by_role("radio", name="No advisor"))
        await page.keyboard.press("ArrowDown")
        await expect(page.get_by_role("radio", name="Albers")).to_be_checked()
        await tab_to(page, page.get_by_label("What do you want to know?"))
        await page.keyboard.press("ControlOrMeta+a")
        await page.keyboard.type("Which colour dominates?")
        await page.keyboard.press("Enter")
        await expect(page.locator("#result-heading")).to_be_focused()
        assert "red" in await visitor.until_finished()
        await tab_to(page, page.get_by_role("button", name="Copy text"))
        await page.keyboard.press("Shift+Tab")
        await expect(page.get_by_role("button", name="Ask again")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("What do you want to know?")).to_be_focused()


async def test_a_file_is_chosen_by_keyboard(browser: Browser, address: str) -> None:
    """The file chooser opens from the keyboard, and the focus can be seen on its label."""
    async with window(browser) as (page, _):
        opened: asyncio.Future[FileChooser] = asyncio.get_running_loop().create_future()
        # Listened for from the beginning: Chromium must know it before the key is pressed.
        page.once("filechooser", partial(opened.set_result))  # Playwright marks handlers, which a method cannot hold.
        await page.goto(address)
        await tab_to(page, page.get_by_label("Choose a photo"))
        assert await page.locator("#file-label").evaluate("(label) => getComputedStyle(label).outlineStyle") == "solid"
        await page.keyboard.press("Enter")
        chooser = await asyncio.wait_for(opened, LONG_MS / 1000)
        assert not chooser.is_multiple()


async def test_every_control_has_a_name(browser: Browser, address: str) -> None:
    """Buttons, fields, links, pictures and the bar are named, in both views."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await expect(page.get_by_role("button", name="composition red")).to_be_visible()
        assert await page.evaluate(NAMELESS) == []
        await visitor.ask("Describe this image.")
        await visitor.until_finished()
        assert await page.evaluate(NAMELESS) == []


async def test_the_page_is_a_tree_that_can_be_read(browser: Browser, address: str) -> None:
    """Landmarks, headings, groups and their names, as assistive software gets them."""
    async with window(browser) as (page, _):
        await page.goto(address)
        await expect(page.locator("body")).to_match_aria_snapshot(
            """
            - link "Skip to the content"
            - banner:
              - link "Mondrian":
                - heading "Mondrian" [level=1]
            - main:
              - form "Ask about a picture":
                - button "Choose a photo"
                - group "Who looks at it?":
                  - radio "No advisor The model, as it is." [checked]
                  - radio /Ansel/
                - textbox "What do you want to know?": Describe this image.
                - group "Questions to start from":
                  - button "Which colour dominates?"
                - button "Analyse"
            """
        )
        await Visitor(page=page).ask("Describe this image.")
        await Visitor(page=page).until_finished()
        await expect(page.get_by_role("main")).to_match_aria_snapshot(
            """
            - region "Describe this image.":
              - figure:
                - img "The picture that was asked about"
              - heading "Describe this image." [level=2]
              - list "Stages":
                - listitem: Queue
                - listitem: Write
              - progressbar "Progress"
            - region "Earlier":
              - heading "Earlier" [level=2]
            """
        )


async def test_stages_and_the_finished_text_are_read_out(browser: Browser, address: str) -> None:
    """The one live region tells each stage once and the whole text at the end; tokens are not read out one by one."""
    async with window(browser) as (page, _):
        visitor = Visitor(page=page)
        await page.goto(address)
        await page.evaluate(TELL)
        await visitor.ask("Describe this image.")
        text = await visitor.until_finished()
        told: list[str] = await page.evaluate("() => window.told")
        assert told[0] == "Sending the picture"
        assert "Writing the answer" in told
        assert told[-1] == f"Finished. {text}"
        assert len(told) <= 10
        assert await page.locator("#text").evaluate("(text) => text.closest('[aria-live]')") is None


async def test_a_countdown_is_not_read_out(browser: Browser, address: str) -> None:
    """Why the page waits is told once; the seconds that pass are for the eye."""

    async def busy(route: Route) -> None:
        if route.request.method == "POST":
            await route.fulfill(status=503, headers={"Retry-After": "5"})
        else:
            await route.continue_()

    async with window(browser) as (page, _):
        await page.goto(address)
        await page.route(re.compile("/v1/analyses"), busy)
        await page.evaluate(TELL)
        await Visitor(page=page).ask("Describe this image.")
        notice = page.locator("#result-notice")
        await expect(notice).to_contain_text("in 2 s", timeout=LONG_MS)
        assert await page.evaluate("() => window.told") == ["Sending the picture", "The server cannot work at present."]
        assert await notice.evaluate("(notice) => notice.closest('[aria-live], [role=status], [role=alert]')") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrasts_are_enough(browser: Browser, address: str, scheme: str) -> None:
    """Text has at least 4.5 to 1 on its ground, and what must be seen of the parts 3 to 1 (WCAG 2.2 AA)."""
    async with window(browser, scheme=scheme) as (page, _):
        await page.goto(address)
        ratios = await page.evaluate(CONTRASTS, [*TEXTS, *PARTS])
    least = itertools.chain(itertools.repeat(4.5, len(TEXTS)), itertools.repeat(3.0, len(PARTS)))
    weak = {
        pair: round(ratio, 2)
        for pair, ratio, needed in zip([*TEXTS, *PARTS], ratios, least, strict=True)
        if ratio < needed
    }
    assert not weak


@pytest.mark.parametrize("width", [320, 390, 820, 1280, 1920])
async def test_it_fits_every_width(browser: Browser, address: str, width: int) -> None:
    """Nothing hangs out at the side, in either view, from a small phone to a wide screen."""
    async with window(browser, size=(width, 800), phone=width < 500) as (page, _):
        await page.goto(address)
        assert await _overhang(page) <= 0
        await Visitor(page=page).ask("Describe this image in detail. " + "Andeverythinginit" * 12)
        await Visitor(page=page).until_finished()
        assert await _overhang(page) <= 0


async def test_the_end_of_the_text_stays_in_sight(browser: Browser, tmp_path: Path) -> None:
    """On a phone the page follows the writing, and stops to follow a reader who scrolls back."""
    settings = settings_for(tmp_path / "data", http_address="127.0.0.1:0", default_max_tokens=50_000)
    engine = command([Life(tokens=50_000, step_s=0.005, context_tokens=100_000)], tmp_path / "starts")
    async with (
        started(settings, engine_command=engine) as running,
        window(browser, size=(390, 600), phone=True) as (page, _),
    ):
        await page.goto(page_address(running))
        await Visitor(page=page).ask("Go on.")
        await Visitor(page=page).until_writing(1500)
        covered = "() => document.getElementById('text').getBoundingClientRect().bottom > innerHeight"
        await expect(page.locator("#actions")).to_be_in_viewport()
        assert not await page.evaluate(covered)
        await page.evaluate("() => { scrollTo(0, 0); dispatchEvent(new Event('touchmove')); }")
        length = len(await Visitor(page=page).text())
        await Visitor(page=page).until_writing(length + 500)
        assert await page.evaluate("() => scrollY") == 0
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#message")).to_have_text("Stopped.")


async def test_things_to_touch_are_large_enough(browser: Browser, address: str) -> None:
    """On a phone, what is pressed measures at least 36 pixels, and mostly 44."""
    async with window(browser, size=(390, 844), phone=True) as (page, _):
        await page.goto(address)
        await expect(page.get_by_role("button", name="composition red")).to_be_visible()
        heights = await page.evaluate("""() => [...document.querySelectorAll("button, label.button, .card")]
          .filter((one) => one.checkVisibility()).map((one) => one.getBoundingClientRect().height)""")
        assert min(heights) >= 36


async def test_motion_is_reduced_on_request(browser: Browser, address: str) -> None:
    """Who asks the system for less motion sees none that goes on."""
    async with window(browser) as (page, _):
        await page.emulate_media(reduced_motion="reduce")
        await page.goto(address)
        await page.evaluate("() => document.getElementById('text').setAttribute('data-writing', '')")
        caret = "() => getComputedStyle(document.getElementById('text'), '::after').animationIterationCount"
        assert await page.evaluate(caret) == "1"


async def test_the_title_tells_how_far_it_is(browser: Browser, address: str) -> None:
    """The tab's title says when the answer is there, for those who look elsewhere meanwhile."""
    async with window(browser) as (page, _):
        await page.goto(address)
        await Visitor(page=page).ask("Describe this image.")
        await expect(page).to_have_title(re.compile(r"Finished"), timeout=LONG_MS)


async def _overhang(page: Page) -> int:
    return await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
