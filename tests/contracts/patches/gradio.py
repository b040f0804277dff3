"""Where Stepwise reaches into Gradio."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "6.31.0"
GRADIO = "api/gradio/patches.py"
GRADIO_TEST = "tests/contracts/test_gradio.py"


def _gradio(code: str, place: str, reason: str, test: str) -> Patch:
    return Patch("gradio", GRADIO, code, place, reason, f"{GRADIO_TEST}::{test}")


PATCHES = (
    _gradio(
        "blocks._queue", "`Blocks._queue`", "the queue has no public name", "test_the_queue_is_where_it_was"
    ),
    _gradio(
        "event._id",
        "`Event._id`",
        "an event's id has no public name",
        "test_events_and_functions_have_their_ids_where_they_were",
    ),
    _gradio(
        "function._id",
        "`BlockFunction._id`",
        "a function's number has no public name",
        "test_events_and_functions_have_their_ids_where_they_were",
    ),
    _gradio(
        "gradio_blocks.App = ",
        "`blocks.App.create_app`",
        "a page makes three apps, in 0.06 s of CPU each, before `launch` makes the one that serves",
        "test_a_page_makes_apps_that_launch_replaces",
    ),
    _gradio(
        "queue.event_queue_per_concurrency_id",
        "`Queue.event_queue_per_concurrency_id`, `.active_jobs`",
        "there is no function for the events that wait or run",
        "test_the_queue_is_where_it_was",
    ),
    _gradio(
        "queue._asyncio_tasks",
        "`Queue._asyncio_tasks`, `utils.set_task_name`",
        "there is no function for the events whose tasks aren't done",
        "test_a_task_is_named_by_its_session_and_event",
    ),
    _gradio(
        "TASK_NAME_SEPARATOR",
        "the separator in a task's name, at which `/cancel` splits it",
        "a session whose name has it would make every `/cancel` fail: such names are refused",
        "test_a_task_is_named_by_its_session_and_event",
    ),
    _gradio(
        "queue.pending_messages_per_session = ",
        "`Queue.pending_messages_per_session`",
        "forgets sessions that wait, and then stops for everyone; keeps unread answers without a bound",
        "test_messages_are_put_and_taken_as_the_replacement_expects",
    ),
    _gradio(
        "queue.push = ",
        "`Queue.push`",
        "one bound for all callers together; nothing is told when a call comes",
        "test_a_call_joins_the_queue_by_push_alone",
    ),
    _gradio(
        "queueing.asyncio = ",
        "`Queue.sleep_when_free`, `queueing.asyncio`",
        "looks for work 1,000 times a second; a larger number makes everyone wait for it",
        "test_the_queue_sleeps_where_it_did",
    ),
    _gradio(
        "queue.start_progress_updates = ",
        "`Queue.start_progress_updates`",
        "looks 100 times a second for news of progress bars that no endpoint here has",
        "test_the_queue_sleeps_where_it_did",
    ),
    _gradio(
        "SessionState.__init__ = ",
        "`SessionState.__init__`, `.config_values`",
        "9 ms and 80 KB in each session, two a call, for deep links that aren't served here",
        "test_a_session_writes_down_how_every_widget_looks",
    ),
    _gradio(
        "setattr(processing_utils, name, refuse)",
        "`processing_utils.async_ssrf_protected_get`, `…_download`",
        "downloads a file that any parameter names, before anything looks at the parameter",
        "test_files_are_downloaded_by_these_functions",
    ),
    _gradio(
        "block.GRADIO_CACHE",
        "`Block.GRADIO_CACHE`, `.temp_files`",
        "copies the files of an output, and keeps a list of them for ever",
        "test_an_outputs_own_folder_is_left_alone",
    ),
    _gradio(
        "block._api_info",
        "`Block._api_info`, `.example_payload`",
        "`gr.api` takes no words for its parameters",
        "test_gr_api_takes_neither_words_nor_a_validator",
    ),
    _gradio(
        "function.validator = ",
        "`BlockFunction.validator`",
        "`gr.api` takes no validator",
        "test_gr_api_takes_neither_words_nor_a_validator",
    ),
    _gradio(
        "function.fn = ",
        "`BlockFunction.fn`",
        "an endpoint isn't told how much of its answer is unread",
        "test_an_endpoint_calls_its_function_by_this_attribute",
    ),
    _gradio(
        "component.preprocess = ",
        "`Component.preprocess` of a widget",
        "refuses in its own words; of a subclass' module Gradio writes a .pyi file",
        "test_widgets_refuse_by_preprocess_and_subclasses_write_files",
    ),
    _gradio(
        "routes.App.api_info = ",
        "`routes.App.api_info`",
        "the API page's snippets keep the address of whoever asked first",
        "test_the_api_pages_snippets_are_kept_and_pipe_into_read",
    ),
    _gradio(
        "routes.generate_code_snippets = ",
        "`routes.generate_code_snippets`",
        "its cURL snippets run in zsh alone",
        "test_the_api_pages_snippets_are_kept_and_pipe_into_read",
    ),
    _gradio(
        "http_server.start_server = ",
        "`http_server.start_server`",
        "takes neither sockets nor a configuration of uvicorn's, and looks at IPv4 alone",
        "test_launch_starts_its_server_by_start_server",
    ),
    Patch(
        "gradio",
        "api/server/listening.py",
        "class Server(http_server.Server)",
        "`http_server.Server.run_in_thread`",
        "takes no sockets, and a start of more than 5 s for a port that is taken",
        f"{GRADIO_TEST}::test_launch_starts_its_server_by_start_server",
    ),
    Patch(
        "gradio",
        "api/gradio/interfaces.py",
        "create_or_modify_pyi",
        "`component_meta.create_or_modify_pyi`",
        "each import makes the .pyi files anew that the wheel brings along, in 0.8 s of CPU",
        f"{GRADIO_TEST}::test_gradio_makes_its_pyi_files_by_a_function_that_nothing_else_needs",
    ),
    Patch(
        "gradio",
        "api/gradio/queue.py",
        "event_queue_per_concurrency_id",
        "`Queue`'s tables of events, `App.iterators`",
        "an event that is cancelled at the wrong moment keeps its place for ever",
        f"{GRADIO_TEST}::test_an_events_traces_are_in_these_tables",
    ),
    Patch(
        "gradio",
        "api/gradio/unread.py",
        "event_ids_to_events",
        "`Event.alive`, `.request`, `.session_hash`; `Queue.event_ids_to_events`",
        "there is no function for whose event it is, and none to end it",
        f"{GRADIO_TEST}::test_an_events_traces_are_in_these_tables",
    ),
    Patch(
        "gradio",
        "api/visitor.py",
        "LocalContext.request.set",
        "`context.LocalContext`",
        "`spaces` reads who asks there, also for routes that aren't Gradio's",
        f"{GRADIO_TEST}::test_the_context_of_a_request_is_where_spaces_reads_it",
    ),
    Patch(
        "gradio",
        "api/gradio/refusals.py",
        "is not a valid key-word argument",
        "the words of two exceptions of `/call/v2`",
        "a parameter that is missing or unknown is answered with 500",
        f"{GRADIO_TEST}::test_a_wrong_parameter_is_told_in_these_words",
    ),
)
