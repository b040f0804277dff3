"""What ZeroGPU's library does to Gradio, and what pipeline/executors/zerogpu.py uses of it, is still so. Why
the app is started by `Blocks.launch` stands here: see docs/library-patches.md.
"""

from __future__ import annotations

from tests.contracts.source import assert_unchanged, module_source, source


def test_spaces_starts_its_part_in_launch_and_nowhere_else() -> None:
    start = module_source("spaces.zero")
    assert "gradio.one_launch(startup)" in start
    assert "torch.pack()" in start and "client.startup_report()" in start
    assert "gr.Blocks.launch = launch" in source("spaces.zero.gradio", "one_launch")
    assert "mount_gradio_app" not in start + module_source("spaces.zero.gradio")


def test_spaces_looks_for_the_servers_port_where_launch_puts_it() -> None:
    port = source("spaces.zero.gradio", "get_server_port")
    assert "getattr(blocks, 'server', None)" in port and "return server.config.port" in port
    assert "self.server = server" in source("gradio.blocks", "Blocks.launch")
    assert "blocks.server = " not in source("gradio.routes", "mount_gradio_app")


def test_a_second_of_a_gpu_costs_what_this_function_says() -> None:
    assert_unchanged(
        "pipeline/executors/zerogpu.py: get_duration_seconds",
        {"spaces.zero.client:get_duration_seconds": "397bc57b818f"},
    )
