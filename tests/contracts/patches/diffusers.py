"""Where Stepwise reaches into diffusers."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "0.42.1"

PATCHES = (
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
)
