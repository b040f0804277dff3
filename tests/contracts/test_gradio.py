"""What api/gradio/patches.py and others replace in Gradio, or use of it, is still as it was written for."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import route_utils, utils
from gradio.block_function import BlockFunction
from gradio.context import LocalContext
from gradio.queueing import Event, Queue
from gradio.routes import App
from gradio_client.utils import construct_args

from api.gradio.patches import TASK_NAME_SEPARATOR, no_app, queue_of, running_events
from tests.contracts.source import assert_unchanged, module_source, source
from tests.support.tiny import ROOT

PATCHES = "api/gradio/patches.py"


def greet(name: str, times: int = 1) -> str:
    return name * times


@pytest.fixture
def page() -> gr.Blocks:
    """A page with one endpoint and one widget."""
    with no_app():
        with gr.Blocks() as made:
            gr.api(greet, api_name="greet")
            gr.Slider(0, 10)
        made.queue(max_size=7)
    return made


def function_of(page: gr.Blocks) -> BlockFunction:
    return next(one for one in page.fns.values() if one.api_name == "greet")


def test_a_page_makes_apps_that_launch_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    create = App.create_app
    monkeypatch.setattr(
        App, "create_app", lambda *given, **named: made.append(create(*given, **named)) or made[-1]
    )
    for expected, around in ((3, contextlib.nullcontext()), (0, no_app())):
        made.clear()
        with around:
            with gr.Blocks() as page:
                gr.Slider(0, 10)
            page.queue()
        assert len(made) == expected
        assert (page.app is None) == (expected == 0)
    assert "self.server_app = self.app = App.create_app(" in source("gradio.blocks", "Blocks.launch")
    assert module_source("gradio.blocks").count("App.create_app(") == 3


def test_the_queue_is_where_it_was(page: gr.Blocks) -> None:
    queue = queue_of(page)
    assert isinstance(queue, Queue)
    assert queue.max_size == 7
    assert queue.event_queue_per_concurrency_id == {}
    assert queue.active_jobs == []
    queue.create_event_queue_for_fn(function_of(page))
    (waiting,) = queue.event_queue_per_concurrency_id.values()
    assert (waiting.queue, waiting.current_concurrency) == ([], 0)


def test_events_and_functions_have_their_ids_where_they_were(page: gr.Blocks) -> None:
    function = function_of(page)
    assert page.fns[function._id] is function
    request: Any = object()
    event = Event("session", function, request, None)
    assert len(event._id) == 32
    assert (event.session_hash, event.fn, event.request, event.alive) == ("session", function, request, True)


def test_a_task_is_named_by_its_session_and_event(page: gr.Blocks) -> None:
    queue = queue_of(page)

    async def named() -> set[str]:
        task = asyncio.ensure_future(asyncio.sleep(0))
        utils.set_task_name(task, "a session", 3, "an event", False)
        queue._asyncio_tasks.add(task)
        return running_events(queue)

    assert asyncio.run(named()) == {"an event"}
    assert f'name.split("{TASK_NAME_SEPARATOR}")' in source("gradio.utils", "cancel_tasks")


def test_messages_are_put_and_taken_as_the_replacement_expects() -> None:
    assert "LRUCache(2000)" in source("gradio.queueing", "Queue.__init__")
    assert_unchanged(
        f"{PATCHES}: replace_messages",
        {
            "gradio.queueing:Queue.send_message": "dbd9a4b8763b",
            "gradio.queueing:Queue.clean_events": "d463bf27ebef",
            "gradio.utils:LRUCache": "e59c1c93382d",
            "gradio.routes:queue_data_helper": "0f261ed7fef9",
        },
    )


def test_a_call_joins_the_queue_by_push_alone() -> None:
    assert list(inspect.signature(Queue.push).parameters) == ["self", "body", "request", "username"]
    assert module_source("gradio.routes").count("_queue.push(") == 1
    assert_unchanged(f"{PATCHES}: wrap_push", {"gradio.queueing:Queue.push": "0ac2d66e1cf1"})


def test_the_queue_sleeps_where_it_did() -> None:
    assert (
        source("gradio.queueing", "Queue.start_processing").count("asyncio.sleep(self.sleep_when_free)") == 3
    )
    assert module_source("gradio.queueing").count("asyncio.sleep(") == 7
    assert_unchanged(
        f"{PATCHES}: replace_sleep, stop_progress_updates",
        {
            "gradio.queueing:Queue.start_processing": "1588c9806a02",
            "gradio.queueing:Queue.start_progress_updates": "73693428ed7d",
        },
    )


def test_a_session_writes_down_how_every_widget_looks() -> None:
    assert "deep link" in source("gradio.state_holder", "SessionState.__init__")
    assert_unchanged(
        f"{PATCHES}: keep_no_widget_configs",
        {
            "gradio.state_holder:SessionState.__init__": "6299be367cb9",
            "gradio.state_holder:SessionState._update_config": "a0d602986557",
            "gradio.state_holder:SessionState._update_value_in_config": "89f3ec69a692",
            "gradio.state_holder:SessionState.__setitem__": "fce4e3193c5b",
        },
    )


def test_files_are_downloaded_by_these_functions() -> None:
    assert "processing_utils.async_ssrf_protected_download(" in source(
        "gradio.blocks", "Block.async_move_resource_to_block_cache"
    )
    assert_unchanged(
        f"{PATCHES}: refuse_file_addresses",
        {
            "gradio.processing_utils:async_ssrf_protected_get": "53b3e790242a",
            "gradio.processing_utils:async_ssrf_protected_download": "4b5781350fad",
            "gradio.processing_utils:async_move_files_to_cache": "6abad44364c5",
        },
    )


def test_an_outputs_own_folder_is_left_alone(page: gr.Blocks) -> None:
    (output,) = function_of(page).outputs
    assert isinstance(output.GRADIO_CACHE, str)
    assert output.temp_files == set()
    assert_unchanged(
        f"{PATCHES}: keep_file_paths",
        {"gradio.blocks:Block.async_move_resource_to_block_cache": "55b3d4efc2cc"},
    )


def test_gr_api_takes_neither_words_nor_a_validator(page: gr.Blocks) -> None:
    assert (
        not {"validator", "info", "label", "examples", "inputs"} & inspect.signature(gr.api).parameters.keys()
    )
    function = function_of(page)
    assert function.validator is None
    name = function.inputs[0]
    assert {"info", "type"} & name._api_info.keys()
    name.label, name.example_payload = "name", lambda: "Ann"
    name._api_info = {**name._api_info, "additional_description": "Who is greeted."}
    page.config = page.get_config_file()
    given, _ = page.get_api_info()["named_endpoints"]["/greet"]["parameters"]
    assert (given["label"], given["example_input"]) == ("name", "Ann")
    assert "Who is greeted." in str(given)


def test_an_endpoint_calls_its_function_by_this_attribute(page: gr.Blocks) -> None:
    function = function_of(page)
    assert function.fn is greet
    function.fn = lambda name, times=1: "replaced"
    answer = asyncio.run(page.process_api(function, ["Ann", 2]))
    assert answer["data"] == ["replaced"]


def test_widgets_refuse_by_preprocess_and_subclasses_write_files() -> None:
    with gr.Blocks():
        slider = gr.Slider(0, 10)
    with pytest.raises(gr.Error):
        slider.preprocess(11)
    assert "create_or_modify_pyi(component_class" in source("gradio.component_meta", "ComponentMeta.__new__")


def test_the_api_pages_snippets_are_kept_and_pipe_into_read() -> None:
    assert "if not app.api_info:" in module_source("gradio.routes")
    assert "self.api_info = None" in source("gradio.routes", "App.__init__")
    assert "| read EVENT_ID; " in module_source("gradio_client.snippet")


def test_launch_starts_its_server_by_start_server() -> None:
    launch = source("gradio.blocks", "Blocks.launch")
    assert launch.count("http_server.start_server(") == 1
    assert "app=self.app," in launch
    assert "uvicorn.Config" not in launch
    assert_unchanged(
        f"{PATCHES}: replace_start_server; api/server/listening.py: Server",
        {
            "gradio.http_server:start_server": "9f58500037c0",
            "gradio.http_server:Server": "d1211c50d9e0",
        },
    )


def test_an_events_traces_are_in_these_tables(page: gr.Blocks) -> None:
    queue = queue_of(page)
    assert queue.pending_event_ids_session == {}
    assert queue.event_ids_to_events == {}
    text = source("gradio.routes", "App.__init__")
    assert "self.iterators: " in text and "self.iterators_to_reset" in text
    assert_unchanged(
        "api/gradio/queue.py: Sessions.tidy, ._free_slots",
        {
            "gradio.queueing:Queue.process_events": "42890da0448d",
            "gradio.queueing:Queue.reset_iterators": "d0970a6d264b",
        },
    )


def test_the_context_of_a_request_is_where_spaces_reads_it() -> None:
    assert LocalContext.request.get(None) is None
    assert LocalContext.blocks.get(None) is None
    assert LocalContext.event_id.get(None) is None
    assert "LocalContext.blocks.get(None)" in module_source("spaces.zero.gradio")
    assert "LocalContext" in module_source("spaces.utils")


def test_a_wrong_parameter_is_told_in_these_words() -> None:
    parameters: Any = [
        {"label": "name", "parameter_name": "name", "parameter_has_default": False, "parameter_default": None}
    ]
    with pytest.raises(TypeError, match=r"^Parameter `other` is not a valid key-word argument"):
        construct_args(parameters, (), {"other": 1, "name": "Ann"})
    with pytest.raises(TypeError, match=r"^No value provided for required argument: name$"):
        construct_args(parameters, (), {})
    assert "client_utils.construct_args(" in module_source("gradio.routes")


SETTINGS = """
import os
os.environ["GRADIO_TEMP_DIR"] = "/nowhere/gradio"
import app
import gradio as gr
from gradio import component_meta, routes
with gr.Blocks() as page:
    pass
queue = page.queue()._queue
print(queue.ANALYTICS_MAX_EVENTS, queue.ANAYLTICS_CACHE_FREQUENCY > 10**9)
print(routes.DEFAULT_TEMP_DIR, page.analytics_enabled)
print(component_meta.create_or_modify_pyi.__module__)
"""


def test_gradio_reads_the_settings_that_the_app_makes_for_it_before_it_is_imported() -> None:
    assert said_by("import api.server.startup, sys; print('gradio' in sys.modules)") == ["False"]
    assert said_by(SETTINGS) == ["1", "True", "/nowhere/gradio", "False", "api.gradio.interfaces"]


def test_gradio_makes_its_pyi_files_by_a_function_that_nothing_else_needs() -> None:
    made = source("gradio.component_meta", "ComponentMeta.__new__")
    assert "\n        create_or_modify_pyi(component_class, name, events)\n        return" in made
    events = module_source("gradio.blocks_events")
    assert events.count("create_or_modify_pyi") == 2  # imported, and called
    assert "\n        create_or_modify_pyi(BlocksEvents, " in events
    installed = Path(gr.__file__).parent
    for component in (gr.Slider, gr.Gallery, gr.Textbox):
        assert Path(inspect.getfile(component)).with_suffix(".pyi").is_relative_to(installed)
        assert Path(inspect.getfile(component)).with_suffix(".pyi").exists()


def said_by(code: str) -> list[str]:
    """The words that this program prints, in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_only_launch_may_wait_for_a_signal_itself_and_it_is_told_not_to() -> None:
    launch = source("gradio.blocks", "Blocks.launch")
    assert 'os.getenv("GRADIO_DEBUG", "0")' in launch
    assert "not prevent_thread_lock and not is_in_interactive_mode" in launch


def test_gradio_asks_for_the_user_by_the_dependency_that_launch_takes() -> None:
    assert "auth_dependency" in inspect.signature(gr.Blocks.launch).parameters
    assert "user = app.auth_dependency(request)" in source("gradio.routes", "get_current_user")
    assert route_utils.API_PREFIX == "/gradio_api"
