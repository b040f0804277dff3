"""Drawing on the page: what is seen while a picture comes to be, and how it is stopped."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
from gradio_client import Client
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Route, expect

from tests.support.steps import Steps
from tests.ui.studio import Studio

RESOURCE = "Failed to load resource"


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean difference of two pictures, 0 to 255, at the size of a preview."""
    a, b = a.resize((64, 64)), b.resize((64, 64))
    channels: list[float] = ImageStat.Stat(ImageChops.difference(a, b)).mean
    return sum(channels) / len(channels)


@pytest.mark.sketch
def test_the_page_draws_a_fox_on_a_blue_background_with_no_choice_made(tab: Studio) -> None:
    tab.draw()
    assert tab.recipe()["prompt"] == "a fox on a blue background"
    red, green, blue = tab.shown().resize((16, 16)).tobytes()[-3:]
    assert blue > red and blue > green, (red, green, blue)


def test_typing_a_prompt_and_pressing_enter_draws_it(tab: Studio) -> None:
    tab.make_quick()
    tab.prompt.fill("a red apple")
    tab.prompt.press("Enter")
    tab.wait_for("finished")
    assert tab.recipe()["prompt"] == "a red apple"


@pytest.mark.sketch
def test_at_least_four_different_previews_each_come_nearer_to_the_final_picture(
    tab: Studio, steps: Steps
) -> None:
    tab.open_settings()
    tab.seed.fill("1")  # of some seeds the first preview is nearer already
    steps.hold(1)
    tab.draw_button.click()
    previews = []
    for shown, following in pairwise([1, 7, 14, 21, 28, 28]):
        tab.wait_for_step(shown)
        previews.append(tab.shown())
        steps.hold(following)
    steps.go_on()
    tab.wait_for("finished")
    final = tab.shown()
    distances = [difference(preview, final) for preview in previews]
    assert len({preview.tobytes() for preview in previews}) == 5
    # The last ones differ from the finished picture by the map from latents to colours, not by steps.
    assert all(later < earlier + 0.5 for earlier, later in pairwise(distances)), distances
    assert distances[-1] < distances[0] / 2


def test_the_picture_is_replaced_without_flicker_or_layout_jump(tab: Studio) -> None:
    tab.page.evaluate(
        """() => {
          window.boxes = new Set(); window.gaps = 0; window.shifts = []; let drawn = false;
          const frame = document.querySelector("#live .frame"), image = frame.querySelector("img");
          new PerformanceObserver((list) => {
            for (const shift of list.getEntries())
              if (shift.sources.some(({ node }) => node && (frame.contains(node) || node.contains(frame))))
                shifts.push(shift.value);
          }).observe({ type: "layout-shift" });
          const look = () => {
            const { x, y, width, height } = frame.getBoundingClientRect();
            const shown = image.getBoundingClientRect().width > width - 3 && image.naturalWidth > 0;
            boxes.add([x, y + scrollY, width, height].join());
            drawn ||= !image.hidden;
            if (drawn && (image.hidden || !shown)) gaps++;
            requestAnimationFrame(look);
          };
          requestAnimationFrame(look);
        }"""
    )
    tab.make_quick()
    tab.set(steps=20)
    tab.draw()
    assert tab.page.evaluate("[...boxes].length") == 1
    assert tab.page.evaluate("gaps") == 0
    assert sum(tab.page.evaluate("shifts")) == 0


@pytest.mark.sketch
def test_draw_becomes_stop_and_stop_keeps_the_last_preview_while_another_tab_goes_on(
    open_tab: Callable[..., Studio], steps: Steps
) -> None:
    one = open_tab()
    other = open_tab(context=one.page.context)
    one.set(steps=60)
    other.make_quick()
    steps.hold(4)
    one.draw_button.click()
    expect(one.stop_button).to_be_visible()
    expect(one.draw_button).to_be_hidden()
    one.wait_for_step(4)
    other.prompt.fill("a red apple")
    other.draw_button.click()
    expect(other.line).to_contain_text("Waiting for a turn")
    one.stop_button.click()
    one.wait_for("stopped")
    steps.go_on()
    expect(one.line).to_have_text(re.compile(r"^Stopped · at step \d+/60 · seed \d+$"))
    assert (one.pictures.first.get_attribute("src") or "").startswith("data:image/jpeg")
    kept = one.shown()
    other.wait_for("finished")
    assert other.recipe()["prompt"] == "a red apple"
    assert difference(one.shown(), kept) == 0
    assert one.history.count() == other.history.count() == 1
    assert "fox" in (one.history.first.get_attribute("title") or "")
    assert "apple" in (other.history.first.get_attribute("title") or "")


def test_escape_stops(tab: Studio, steps: Steps) -> None:
    tab.set(steps=60)
    steps.hold(2)
    tab.draw_button.click()
    tab.wait_for_step(2)
    tab.page.keyboard.press("Escape")
    tab.wait_for("stopped")


def test_stop_pressed_before_the_server_answered_stops_as_soon_as_it_has(tab: Studio, steps: Steps) -> None:
    late: list[Route] = []
    tab.set(steps=60)
    steps.hold(1)
    tab.page.route("**/queue/join*", lambda route: late.append(route))
    tab.draw_button.click()
    tab.page.wait_for_timeout(600)  # sooner it would be the second half of a double click
    tab.stop_button.click()
    expect(tab.line).to_have_text("Stopping…")
    for route in late:
        route.continue_()
    tab.wait_for("stopped")


def test_a_double_click_and_enter_twice_start_one_drawing_each(tab: Studio, steps: Steps) -> None:
    tab.make_quick()
    steps.hold(1)
    joins: list[str] = []
    tab.page.on(
        "request", lambda request: joins.append(request.url) if "/queue/join" in request.url else None
    )
    tab.draw_button.dblclick()
    tab.wait_for_step(1)
    steps.go_on()
    tab.wait_for("finished")
    assert len(joins) == 1
    steps.hold(1)
    tab.prompt.press("Enter")
    tab.prompt.press("Enter")
    expect(tab.stop_button).to_be_visible()
    steps.go_on()
    tab.wait_for("finished")
    expect(tab.history).to_have_count(2)
    assert len(joins) == 2


def test_closing_a_tab_leaves_its_drawing_going_on(
    open_tab: Callable[..., Studio], client: Client, steps: Steps
) -> None:
    closing = open_tab()
    closing.make_quick()
    steps.hold(1)
    closing.draw_button.click()
    closing.wait_for_step(1)
    job = closing.job
    closing.page.close()
    steps.go_on()
    images, info = client.predict(job, api_name="/job")
    assert (info["job"], info["phase"]) == (job, "finished")
    assert images[0]["image"].endswith(".png")


def test_each_phase_is_announced_once(tab: Studio, steps: Steps) -> None:
    tab.make_quick()
    tab.watch("#live .announce", "node.textContent")
    announced = tab.page.locator("#live .announce")
    steps.hold(1)
    tab.draw_button.click()
    tab.wait_for_step(1)
    expect(announced).to_have_text("Drawing.")
    steps.hold("decoding")
    expect(announced).to_have_text("Finishing.")
    steps.go_on()
    tab.wait_for("finished")
    said = tab.seen()
    assert said[-3:] == ["Drawing.", "Finishing.", "Finished."]
    assert len(said) == len(set(said)) <= 5
    expect(tab.page.locator("#live").get_by_role("status")).to_have_text("Finished.")


def test_the_alt_text_is_the_prompt(tab: Studio, steps: Steps) -> None:
    tab.set(steps=60)
    steps.hold(2)
    tab.draw_button.click()
    tab.wait_for_step(2)
    expect(tab.page.get_by_role("img", name="Preview of: a fox on a blue background")).to_be_visible()
    expect(tab.page.get_by_role("progressbar", name="Drawing")).to_be_visible()
    tab.stop_button.click()
    tab.wait_for("stopped")
    expect(tab.page.get_by_role("img", name="a fox on a blue background", exact=True)).to_be_visible()


@pytest.mark.sketch
def test_several_images_stand_in_a_grid_with_a_download_each(tab: Studio) -> None:
    tab.make_quick()
    tab.set(images=3)
    tab.seed.fill("5")
    tab.draw()
    expect(tab.pictures).to_have_count(3)
    expect(tab.downloads).to_have_text(["Download 1", "Download 2", "Download 3"])
    boxes = [tab.pictures.nth(index).bounding_box() for index in range(3)]
    assert len({(round(box["x"]), round(box["y"])) for box in boxes if box}) == 3
    for index in range(3):
        expect(tab.pictures.nth(index)).to_have_attribute("src", re.compile("file="))
        assert tab.recipe(index)["seed"] == 5 + index


@pytest.mark.sketch
def test_download_gives_the_png_with_its_recipe(tab: Studio) -> None:
    tab.make_quick()
    tab.seed.fill("7")
    tab.draw("a red apple")
    with tab.page.expect_download() as download:
        tab.downloads.click()
    assert download.value.suggested_filename == "7.png"
    with Image.open(download.value.path()) as png:
        assert png.format == "PNG" and png.size == (128, 128)
        assert "a red apple" in png.info["parameters"] and "Seed: 7" in png.info["parameters"]


def test_a_lost_connection_gives_draw_back_and_keeps_the_pictures(tab: Studio) -> None:
    tab.allow(RESOURCE, reason="the test cuts the connection")
    tab.make_quick()
    tab.draw()
    tab.page.route("**/queue/join*", lambda route: route.abort(), times=1)
    with tab.page.expect_event("load"):  # Gradio 6.31 loads the page again once the server answers
        tab.draw_button.click()
    expect(tab.draw_button).to_be_visible()
    expect(tab.history).to_have_count(1)
    tab.make_quick()
    tab.draw()
    expect(tab.history).to_have_count(2)


def test_a_full_queue_says_so_and_keeps_the_last_picture(tab: Studio) -> None:
    tab.allow(RESOURCE, reason="the test's server is full")
    tab.make_quick()
    tab.draw()
    before = tab.shown()
    full = {"status": 503, "json": {"detail": "Queue is full."}}
    tab.page.route("**/queue/join*", lambda route: route.fulfill(**full))
    tab.draw_button.click()
    expect(tab.notes).to_contain_text("takes no more drawings now")
    expect(tab.draw_button).to_be_visible()
    expect(tab.downloads).to_have_text("Download")
    assert difference(tab.shown(), before) == 0
