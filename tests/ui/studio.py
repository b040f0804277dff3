"""The page as a person uses it: what can be seen and pressed, by its names. Tests say what should happen."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

from PIL import Image
from playwright.sync_api import ConsoleMessage, Error, Locator, Page, expect

SLOW = 240_000
"""Milliseconds that a drawing may take on a busy core."""


class Studio:
    """One tab with the page open."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.allowed: list[str] = []
        self.troubles: list[str] = []
        page.on("pageerror", self._failed)
        page.on("console", self._heard)
        self.prompt = page.get_by_label("Prompt", exact=True)
        self.draw_button = page.get_by_role("button", name="Draw", exact=True)
        self.stop_button = page.get_by_role("button", name="Stop", exact=True)
        self.frame = page.locator("#live .frame")
        self.pictures = page.locator("#live .grid img")
        self.line = page.locator("#live .line")
        self.notes = page.locator("#live .notes")
        self.history = page.locator("#history button")
        self.downloads = page.locator("#live .downloads a")

    def _failed(self, error: Error) -> None:
        self.troubles.append(f"page error: {error}")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.troubles.append(f"console error: {message.text}")

    def allow(self, pattern: str, *, reason: str) -> None:
        """Console errors that this test causes on purpose."""
        assert reason
        self.allowed.append(pattern)

    def unexplained(self) -> list[str]:
        """Console and page errors that no `allow` names."""
        return [words for words in self.troubles if not any(re.search(one, words) for one in self.allowed)]

    def open(self) -> Studio:
        self.page.goto(self.url)
        expect(self.draw_button).to_be_visible(timeout=SLOW)
        expect(self.page.locator("#live .frame")).to_be_visible()
        self.page.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
        return self

    def leave(self) -> None:
        """Makes the tab as good as new for the next one who opens the page in it."""
        self.page.remove_listener("pageerror", self._failed)
        self.page.remove_listener("console", self._heard)
        self.page.unroute_all(behavior="ignoreErrors")
        self.page.mouse.move(0, 0)
        self.page.goto(f"{self.url}/robots.txt")  # of the same origin, and so of the same sessionStorage
        self.page.evaluate("sessionStorage.clear()")

    # Settings.

    def open_settings(self) -> None:
        fold = self.page.get_by_role("button", name="Settings ▼")
        if fold.get_attribute("aria-expanded") != "true":
            fold.click()
            # Gradio (6.31) mounts what is folded away when it is opened, and for an instant puts the widgets'
            # first values over what is typed there; nothing on the page tells when that has passed, but
            # that the browser has nothing left to do.
            self.page.wait_for_timeout(400)
            self.page.evaluate("() => new Promise((idle) => requestIdleCallback(idle))")

    def close_settings(self) -> None:
        fold = self.page.get_by_role("button", name="Settings ▼")
        if fold.get_attribute("aria-expanded") == "true":
            fold.click()

    def number(self, name: str) -> Locator:
        """The number field of a slider."""
        return self.page.get_by_label(f"number input for {name}")

    def set(self, **numbers: float) -> None:
        """Sets sliders by name: steps=4, width=128."""
        self.open_settings()
        for name, value in numbers.items():
            self.number(name.capitalize()).fill(str(value))
            self.number(name.capitalize()).blur()

    def make_quick(self) -> None:
        """Settings with which a drawing takes about a second."""
        self.set(width=128, height=128, steps=6)

    @property
    def seed(self) -> Locator:
        return self.page.get_by_role("textbox", name="Seed", exact=True)

    def choose_model(self, name: str | re.Pattern[str]) -> None:
        self.page.get_by_role("combobox", name="Model").click()
        self.page.get_by_role("option", name=name).click()

    # Drawing.

    def draw(self, prompt: str | None = None) -> None:
        """Presses Draw and waits for the finished picture."""
        if prompt is not None:
            self.prompt.fill(prompt)
        job = "(document.querySelector('#live [data-job], #live[data-job]')?.dataset.job ?? '')"
        before = self.page.evaluate(job)
        self.draw_button.click()
        self.page.wait_for_function(f"before => {job} !== before", arg=before, timeout=SLOW)
        self.wait_for("finished")

    def wait_for(self, state: str) -> None:
        """Until the drawing is running, finished, stopped or failed."""
        expect(self.page.locator(f"#live [data-state={state}], #live[data-state={state}]")).to_have_count(
            1, timeout=SLOW
        )
        if state != "running":
            expect(self.draw_button).to_be_visible(timeout=SLOW)
        if state == "finished":  # until the file is decoded, what was there before stays: another's, maybe
            self.page.wait_for_function(
                """() => {
                  const image = document.querySelector("#live .grid img"), src = image?.getAttribute("src");
                  return src?.includes("file=") && src === image.dataset.src;
                }""",
                timeout=SLOW,
            )

    def wait_for_step(self, step: int) -> None:
        """Until at least this step is done and its preview shown."""
        self.page.wait_for_function(
            """step => {
              const done = document.querySelector("#live .line")?.textContent.match(/step (\\d+)/)?.[1] ?? 0;
              return +done >= step && document.querySelector("#live .grid img").src.startsWith("data:");
            }""",
            arg=step,
            timeout=SLOW,
        )

    @property
    def job(self) -> str:
        """The id of the job in the frame."""
        return self.page.locator("#live [data-job], #live[data-job]").first.get_attribute("data-job") or ""

    def shown(self, index: int = 0) -> Image.Image:
        """The picture in the frame, as its file or preview has it."""
        return self.decode(self.pictures.nth(index).get_attribute("src") or "")

    def fetch(self, source: str) -> bytes:
        """What an address in the page stands for."""
        if source.startswith("data:"):
            return base64.b64decode(source.split(",", 1)[1])
        answer = self.page.request.get(f"{self.url}/{source}")
        assert answer.ok, f"{source}: {answer.status}"
        return answer.body()

    def decode(self, source: str) -> Image.Image:
        return Image.open(io.BytesIO(self.fetch(source))).convert("RGB")

    def recipe(self, index: int = 0) -> dict[str, Any]:
        """The request that the finished PNG carries."""
        png = Image.open(io.BytesIO(self.fetch(self.pictures.nth(index).get_attribute("src") or "")))
        return json.loads(png.info["stepwise"])["request"]

    def watch(self, selector: str, reading: str) -> None:
        """Records, at every change inside `selector`, what the JavaScript `reading` of it gives, without
        repeats; `seen` gives the record."""
        self.page.evaluate(
            f"""selector => {{
              const node = document.querySelector(selector), read = () => {reading};
              window.seen = [];
              const note = () => {{ const now = read(); if (now && now !== seen.at(-1)) seen.push(now); }};
              new MutationObserver(note).observe(node, {{
                subtree: true, childList: true, characterData: true, attributes: true }});
            }}""",
            selector,
        )

    def seen(self) -> list[str]:
        return self.page.evaluate("window.seen")


class NamedStudio(Studio):
    """A tab whose server has a name that the browser alone knows (tests/support/browser.py)."""

    def fetch(self, source: str) -> bytes:
        encoded = self.page.evaluate(
            """async (source) => {
              const bytes = new Uint8Array(await (await fetch(source)).arrayBuffer());
              return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
            }""",
            source,
        )
        return base64.b64decode(encoded)
