"""The page: one screen with a prompt, a picture that is replaced at every step, and the settings.

Layout and wiring only. What a setting may be stands in controls.py, what the frame shows in live.py; the
public API is added to the same Blocks, but shares none of the page's widgets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from api.gradio.endpoints import AGAIN, add_endpoints, find_job, stop_job
from api.gradio.patches import no_app, pass_value_through
from api.pictures import FOLDER, PictureFiles
from api.start_job import start_job
from pipeline.errors import InvalidRequest, StepwiseError
from pipeline.families import FAMILIES
from pipeline.parameters import PARAMETERS, parameters
from ui.coming import coming, still_coming
from ui.controls import ASPECTS, SLIDERS, choices, controls, model_slider, sizes, summary
from ui.live import live_value, refused, unknown
from ui.setup_card import setup_card
from ui.theme import THEME

if TYPE_CHECKING:
    from jobs.queue import Queue

log = logging.getLogger("stepwise")

ASSETS = Path(__file__).parent / "assets"
EXAMPLES = [
    "a fox on a blue background",
    "a red apple",
    "a rocket to the left of a tulip",
    'a sign that says "OPEN"',
    "a snowman above a penguin",
]
HEAD = """<div class="brand">{logo}
<div><h1>Stepwise</h1><p>Write what you want to see and watch it being drawn.</p></div></div>"""
ICON = '<link rel="icon" type="image/svg+xml" href="favicon.ico">'  # Gradio serves it by that name
IN_HEAD = ("visit.js", "pictures.js", "fields.js")
HISTORY = """<h2>Your pictures</h2><ul aria-label="Your pictures"></ul>
<p class="none">What you draw on this visit is kept here.
Click a picture to use its prompt, settings and seed again.</p>"""
WHO = """<b></b> <form action="logout" method="post"><button>Log out</button></form>"""
SETTINGS = tuple(parameter.name for parameter in parameters(but={"prompt", "job"}))
LONGEST_SEED = 100
_WHOLE = re.compile(r"-?\d+")
LOOK = 2.0
"""Seconds between two looks at what is coming, as long as something is."""
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@no_app()
def build_page(queue: Queue, login: bool = False) -> gr.Blocks:
    """The page and the API over this queue.

    Args:
        login: whether who sees the page is logged in; then it says as whom, and how to log out.
    """
    engine = queue.engine
    models = {model["id"]: model for model in queue.models()}
    specs = {spec.id: spec for spec in engine.catalogue}
    off = {name: FAMILIES[spec.family].guidance_threshold for name, spec in specs.items()}
    needs = {name: engine.requirements(spec) for name, spec in specs.items()}
    words = {name: summary(spec, engine.plan(spec)) for name, spec in specs.items()}
    by_model = {
        name: controls(model, model["defaults"]["guidance"] > off[name], words[name], needs[name])
        for name, model in models.items()
    }
    first = engine.default_model
    names = list(by_model[first])

    def of(name: str) -> dict[str, Any]:
        return by_model[first][name]

    def label(name: str) -> str:
        return PARAMETERS[name].label

    with gr.Blocks(title="Stepwise") as demo:
        with gr.Row(elem_id="top"):
            gr.HTML(HEAD.format(logo=_read("favicon.svg")), apply_default_css=False, elem_id="head")
            if login:
                gr.HTML(
                    value="",
                    html_template=WHO,
                    js_on_load=_WHO,
                    apply_default_css=False,
                    elem_id="who",
                    min_width=0,
                )
            gr.DuplicateButton(
                "Duplicate", size="sm", elem_id="duplicate", visible=bool(os.environ.get("SPACE_ID"))
            )
        with gr.Row(elem_id="ask"):
            prompt = gr.Textbox(
                EXAMPLES[0],
                label=label("prompt"),
                show_label=False,
                container=False,
                placeholder="What do you want to see?",
                lines=1,
                max_lines=4,
                scale=1,
                elem_id="prompt",
            )
            draw = gr.Button("Draw", variant="primary", elem_id="draw")
            gr.Button("Stop", variant="stop", elem_id="stop")  # page.js hears it
        with gr.Row(equal_height=False, elem_id="board"):
            with gr.Column(scale=7, min_width=320, elem_id="stage"):
                live = gr.HTML(
                    value={},
                    html_template=_read("live.html"),
                    js_on_load=_read("live.js"),
                    apply_default_css=False,
                    elem_id="live",
                )
            with gr.Column(scale=5, min_width=300, elem_id="side"):
                model = gr.Dropdown(
                    choices(models), value=first, label=label("model"), filterable=False, elem_id="model"
                )
                # The engine says of an unknown one which there are; Gradio would say it in its own words.
                pass_value_through(model)
                about = gr.HTML(**of("about"), apply_default_css=False, elem_id="about")
                ready = gr.HTML("", visible=False, apply_default_css=False, elem_id="coming")
                with gr.Accordion("Settings", open=False, elem_id="settings"):
                    negative_prompt = gr.Textbox(
                        label=label("negative_prompt"),
                        placeholder="What the picture should not show",
                        elem_id="negative",
                        **of("negative_prompt"),
                    )
                    aspect = gr.Radio(list(ASPECTS), label="Aspect", elem_id="aspect", **of("aspect"))
                    area = gr.Radio(label="Area", elem_id="area", **of("area"))
                    with gr.Row():
                        width = model_slider("width", **of("width"))
                        height = model_slider("height", **of("height"))
                    sliders = {name: model_slider(name, **of(name)) for name in SLIDERS}
                    with gr.Row(elem_id="seed"):
                        # Text, not a number: an empty gr.Number turns into 0 once shown (Gradio 6.31).
                        seed = gr.Textbox(
                            label=label("seed"), placeholder="random", max_lines=1, min_width=120
                        )
                        dice = gr.Button("🎲 Roll", elem_id="dice", size="sm", min_width=92)
                    images = model_slider("images", **of("images"))
                with gr.Column(elem_id="examples"):
                    gr.Examples(EXAMPLES, prompt, label="Try", api_visibility="private")
                history = gr.HTML(
                    value=None,
                    html_template=HISTORY,
                    js_on_load=_read("history.js"),
                    apply_default_css=False,
                    elem_id="history",
                )
        if card := setup_card(engine.catalogue, needs):
            with gr.Accordion("What the other models need", open=False, elem_id="owner"):
                gr.HTML(card, apply_default_css=False, elem_id="setup")

        add_endpoints(demo, queue)

        part = {
            "about": about, "aspect": aspect, "area": area, "width": width, "height": height, **sliders,
            "images": images, "negative_prompt": negative_prompt,
        }  # fmt: skip
        files = PictureFiles(queue.folder.logs)
        started = gr.Textbox(visible=False)  # the id of the drawing, which the browser makes
        widgets = part | {"model": model, "seed": seed}
        values = [started, *(widgets[name] for name in SETTINGS)]

        async def run(prompt: str, *settings: Any) -> AsyncIterator[dict[str, Any]]:
            values = {"prompt": prompt, **dict(zip(("job", *SETTINGS), settings, strict=True))}
            async for value in _draw(queue, files, values, off):
                yield value

        async def resume(event: gr.EventData) -> AsyncIterator[dict[str, Any]]:
            async for value in _resume(queue, files, _job_of(event)):
                yield value

        async def halt(event: gr.EventData) -> None:
            await stop_job(queue, _job_of(event))

        def look() -> tuple[Any, Any]:
            models = queue.models()
            words = coming(models)
            return gr.update(value=words, visible=bool(words)), gr.Timer(active=still_coming(models))

        news = gr.Timer(LOOK, active=False)
        for event in (demo.load, news.tick):
            event(look, None, [ready, news], queue=False, **PRIVATE)

        going = gr.on([prompt.submit, draw.click], run, [prompt, *values], live, js=_BEGIN, **PRIVATE)
        again = live.resume(resume, None, live, **PRIVATE)
        for following in (going, again):
            following.failure(None, js="() => window.stepwise.lost()", api_visibility="private")
        halted = live.halt(halt, queue=False, **PRIVATE)
        halted.failure(None, js="() => window.stepwise.unheard()", api_visibility="private")

        # Nothing below needs a request: each model's settings are in the page, see settings.js.
        demo.load(None, js=_settings(first, models, by_model, off), api_visibility="private")
        demo.load(None, None, prompt, js=_PROMPT, api_visibility="private")
        parts = [part[name] for name in names]
        history.reuse(
            None,
            None,
            [prompt, model, seed, *parts],
            js="() => window.stepwise.settings.again(window.stepwise.chosen)",
            api_visibility="private",
        )
        model.input(
            None, model, parts, js="(model) => window.stepwise.settings.of(model)", api_visibility="private"
        )
        for preset in (aspect, area):
            preset.input(
                None,
                [aspect, area, model],
                [aspect, area, width, height],
                js="(aspect, area, model) => window.stepwise.settings.size(aspect, area, model)",
                api_visibility="private",
            )
        for side in (width, height):
            side.input(None, None, [aspect, area], js="() => [null, null]", api_visibility="private")
        sliders["guidance"].input(
            None,
            [sliders["guidance"], model],
            negative_prompt,
            js="(guidance, model) => window.stepwise.settings.negative(guidance, model)",
            api_visibility="private",
        )
        dice.click(None, None, seed, js="() => window.stepwise.settings.seed()", api_visibility="private")
    return demo


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` is given for this page."""
    return {
        "theme": THEME,
        "css": _read("style.css"),
        "js": _read("page.js"),
        "head": ICON + "".join(f"<script>{_read(name)}</script>" for name in IN_HEAD),
        "favicon_path": ASSETS / "favicon.svg",
        "allowed_paths": [FOLDER],
        "footer_links": ["api", "settings"],
        "run_history": False,
        "ssr_mode": False,
        "show_error": True,
    }


def _job_of(event: gr.EventData) -> Any:
    """Return the job that the page names, or None where a program sends something else."""
    try:
        return event.job
    except (AttributeError, TypeError):  # what it sends has no such key, or isn't an object
        return None


async def _draw(
    queue: Queue, files: PictureFiles, values: dict[str, Any], off: dict[str, float]
) -> AsyncIterator[dict[str, Any]]:
    try:
        job = await asyncio.to_thread(queue.check, _request(values, off))
        following = await start_job(queue, job, "page")
    except InvalidRequest as error:
        yield refused(values["job"], str(error), error.problems)
        return
    except StepwiseError as error:
        yield refused(values["job"], str(error))
        return
    except Exception:
        log.exception("A drawing that the page asked for could not be begun.")
        yield refused(
            values["job"], "The server failed at this drawing before it had begun; its log says how."
        )
        return
    async for event in following.events(repeat_after=AGAIN):
        yield live_value(event, files)


async def _resume(queue: Queue, files: PictureFiles, job: Any) -> AsyncIterator[dict[str, Any]]:
    following = await find_job(queue, job)
    if following is None:
        yield unknown(job)
        return
    async for event in following.events(repeat_after=AGAIN):
        yield live_value(event, files)


_WHO = """const name = window.gradio_config?.username ?? "", who = element.querySelector("b");
who.textContent = who.title = name;
element.querySelector("form").addEventListener("submit", () => window.stepwise.visit.out());"""
"""As text: a name is whatever its owner chose."""
_BEGIN = "(prompt, job, ...settings) => [prompt, window.stepwise.begin(), ...settings]"
_PROMPT = """() => {
  const value = window.stepwise.visit.prompt;
  return { __type__: "update", ...(value === null ? {} : { value }) };
}"""
"""What was in the field when the tab was last left: an empty update leaves the field as it is."""


def _request(values: dict[str, Any], off: dict[str, float]) -> dict[str, Any]:
    """The page's widgets as a request: an empty seed is a random one, and a negative prompt that the page
    hides, because this guidance ignores it, isn't sent. What can't be read stays as it is, to be refused."""
    seed, guidance = str(values["seed"] or "").strip(), values["guidance"] or 0
    bound = off.get(values["model"]) if isinstance(values["model"], str) else None
    hidden = bound is not None and isinstance(guidance, int | float) and guidance <= bound
    return {
        **values,
        # No more digits than Python turns into a number; all of them are past the largest seed.
        "seed": int(seed[:LONGEST_SEED]) if _WHOLE.fullmatch(seed) else seed or None,
        "negative_prompt": None if hidden else values["negative_prompt"],
    }


def _settings(first: str, models: dict[str, Any], by_model: dict[str, Any], off: dict[str, float]) -> str:
    """settings.js with what it knows about each model."""
    table = {
        name: {"settings": by_model[name], "sizes": sizes(model), "guidance_off": off[name]}
        for name, model in models.items()
    }
    names = list(next(iter(by_model.values())))
    known = {"FIRST": first, "NAMES": names, "MODELS": table}  # this order: a model's words may be any
    script = _read("settings.js")
    for name, value in known.items():
        script = script.replace(name, json.dumps(value), 1)
    return script


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
