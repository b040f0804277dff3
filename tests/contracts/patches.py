"""Every place where Stepwise reaches into a library's insides: the list in docs/library-patches.md is made of
this one, and the tests beside it look at the library's side of each.
"""

from __future__ import annotations

from dataclasses import dataclass

GRADIO = "api/gradio/patches.py"
GRADIO_TEST = "tests/contracts/test_gradio.py"


@dataclass(frozen=True)
class Patch:
    """library: as pip calls it. file: of ours. code: what stands there, of which the file has it. place: the
    library's side. reason: why it can't be done otherwise. test: the file and function that look at it."""

    library: str
    file: str
    code: str
    place: str
    reason: str
    test: str


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
    Patch(
        "uvicorn",
        "api/server/connections.py",
        "class HeaderTimeoutProtocol(H11Protocol)",
        "`protocols.http.h11_impl.H11Protocol`",
        "no time limit for a request's headers; a body that is no HTTP is answered twice",
        "tests/contracts/test_uvicorn.py::test_the_protocol_is_the_one_that_was_extended",
    ),
    Patch(
        "uvicorn",
        "api/server/forwarded.py",
        "self._proxied.trusted_hosts",
        "`ProxyHeadersMiddleware.trusted_hosts`",
        "believes named proxies, but leaves the headers of everyone else in the request",
        "tests/contracts/test_uvicorn.py::test_the_proxies_middleware_knows_whom_it_trusts",
    ),
    Patch(
        "uvicorn",
        "api/server/shutdown.py",
        'getLogger("uvicorn.error").addFilter',
        "its log",
        "a traceback for each answer that the end of the server cuts",
        "tests/contracts/test_uvicorn.py::test_an_answer_that_is_cut_is_logged_there",
    ),
    Patch(
        "starlette",
        "api/server/prefix_routes.py",
        "self.path_regex = ",
        "`routing.Mount.path_regex`, `Route.path_regex`",
        "a path with a line break goes past them to the routes after",
        "tests/contracts/test_starlette.py::test_a_line_break_goes_past_a_route",
    ),
    Patch(
        "mcp",
        "api/mcp/server.py",
        "server.request_handlers[CallToolRequest] = ",
        "`lowlevel.Server.request_handlers`",
        "the decorator refuses in jsonschema's words, and logs what the client sent",
        "tests/contracts/test_mcp.py::test_tools_are_called_by_this_table",
    ),
    Patch(
        "mcp",
        "api/mcp/transport.py",
        "self._sdk.handle_request",
        "`StreamableHTTPSessionManager`",
        "ends no session by itself, and keeps each session's last request until the next",
        "tests/contracts/test_mcp.py::test_the_transport_takes_what_it_took",
    ),
    Patch(
        "mcp",
        "api/mcp/transport.py",
        'getLogger("mcp.server.streamable_http").addFilter',
        "its log",
        "a traceback for each session that ends in use",
        "tests/contracts/test_mcp.py::test_the_transport_takes_what_it_took",
    ),
    Patch(
        "mcp",
        "api/mcp/http.py",
        "GET_STREAM_KEY",
        "`streamable_http.GET_STREAM_KEY`",
        "a request with this id would take the place of the session's stream",
        "tests/contracts/test_mcp.py::test_the_transport_takes_what_it_took",
    ),
    Patch(
        "spaces",
        "pipeline/executors/zerogpu.py",
        "from spaces.zero.client import get_duration_seconds",
        "`zero.client.get_duration_seconds`",
        "what a size of GPU costs has no public name",
        "tests/contracts/test_spaces.py::test_a_second_of_a_gpu_costs_what_this_function_says",
    ),
    Patch(
        "authlib",
        "api/auth/openid.py",
        "class Discovered(StarletteOAuth2App)",
        "`StarletteOAuth2App.load_server_metadata`",
        "takes all of the provider's document for arguments of its HTTP client",
        "tests/contracts/test_authlib.py::test_metadata_is_loaded_as_it_was",
    ),
    Patch(
        "authlib",
        "api/auth/openid.py",
        "self._app.framework.get_state_data",
        "`framework.get_state_data`",
        "there is no function for whether this browser began a login",
        "tests/contracts/test_authlib.py::test_metadata_is_loaded_as_it_was",
    ),
    Patch(
        "diffusers",
        "pipeline/families",
        "pipe._execution_device",
        "`DiffusionPipeline._execution_device`",
        "the device that `__call__` itself uses; there is no public name for it",
        "tests/contracts/test_diffusers.py::test_a_pipeline_says_on_which_device_it_runs",
    ),
    Patch(
        "diffusers",
        "pipeline/sampling/preview.py",
        "scheduler.step = ",
        "`step` of a job's own scheduler",
        "the step callback sees latents, not the velocity that a preview is made of",
        "tests/contracts/test_diffusers.py::test_a_scheduler_steps_as_previews_expect",
    ),
    Patch(
        "diffusers",
        "pipeline/weights/residency.py",
        "_OFFLOADING_HOOKS = ",
        "the names of `apply_group_offloading`'s hooks, `GroupOffloadingHook.group`",
        "there is no function to take the hooks back",
        "tests/contracts/test_diffusers.py::test_offloading_hooks_have_these_names_and_can_be_taken_back",
    ),
    Patch(
        "diffusers",
        "pipeline/weights/component.py",
        "SINGLE_FILE_LOADABLE_CLASSES[",
        "`loaders.single_file_model.SINGLE_FILE_LOADABLE_CLASSES`",
        "there is no function to look at a single file without loading it",
        "tests/contracts/test_diffusers.py::test_single_files_are_converted_by_this_table",
    ),
    Patch(
        "huggingface_hub",
        "pipeline/weights/download.py",
        '"huggingface_hub.snapshot_download"',
        "the name of `snapshot_download`'s progress bar",
        "of its two bars of bytes one counts what crossed the network, which may be compressed",
        "tests/contracts/test_huggingface_hub.py::test_a_snapshots_bar_has_this_name",
    ),
    Patch(
        "python",
        "api/server/shutdown.py",
        "atexit._run_exitfuncs()",
        "`atexit._run_exitfuncs`",
        "`os._exit` runs nothing that was registered, and the interpreter's own end aborts in C++ threads",
        "tests/contracts/test_python.py::test_what_was_registered_for_the_end_can_be_run",
    ),
    Patch(
        "python",
        "api/gradio/unread.py",
        "class Messages(asyncio.Queue[Any])",
        "`asyncio.Queue._init`, `._put`, `._get`, `._queue`",
        "Gradio puts messages in without waiting, so that the queue itself has to leave some out",
        "tests/contracts/test_python.py::test_a_queues_storage_can_be_replaced",
    ),
)


def patches_table() -> str:
    """A Markdown table: a row for each."""
    rows = [("library", "in it", "our file", "why", "what tells that it has moved"), ("---",) * 5]
    rows += [
        (
            f"{one.library} {VERSIONS[one.library]}",
            one.place,
            f"`{one.file}`",
            one.reason,
            f"`{one.test.partition('::')[2]}`",
        )
        for one in PATCHES
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


VERSIONS = {
    "gradio": "6.31.0",
    "uvicorn": "0.54.0",
    "starlette": "1.10.0",
    "mcp": "1.30.0",
    "spaces": "0.51.3",
    "authlib": "1.9.10",
    "diffusers": "0.42.1",
    "huggingface_hub": "2.4.0",
    "python": "3.11",
}
"""For which the patches were written; requirements.txt pins them."""
