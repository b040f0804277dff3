"""What pipeline/ uses of diffusers beside what it promises is still there."""

from __future__ import annotations

import inspect

import diffusers
import torch
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.hooks.group_offloading import GroupOffloadingHook
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

from pipeline.weights.residency import _OFFLOADING_HOOKS
from tests.contracts.source import source


def test_a_pipeline_says_on_which_device_it_runs() -> None:
    for name in ("StableDiffusion3Pipeline", "ZImagePipeline"):
        kind = getattr(diffusers, name)
        assert isinstance(inspect.getattr_static(kind, "_execution_device"), property)
        assert "device = self._execution_device" in inspect.getsource(kind.__call__)


def test_a_scheduler_steps_as_previews_expect() -> None:
    kind = diffusers.FlowMatchEulerDiscreteScheduler
    assert list(inspect.signature(kind.step).parameters)[:4] == ["self", "model_output", "timestep", "sample"]
    scheduler = kind()
    scheduler.set_timesteps(2)
    sample, velocity = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    scheduler.step(velocity, scheduler.timesteps[0], sample)
    # What `watch` reads after a step: the noise level that the step began with.
    assert scheduler.step_index == 1
    assert scheduler.sigmas[scheduler.step_index - 1] == 1


def test_offloading_hooks_have_these_names_and_can_be_taken_back() -> None:
    module = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(2, 2)]), torch.nn.Linear(2, 2))
    cpu = torch.device("cpu")
    apply_group_offloading(
        module, onload_device=cpu, offload_device=cpu, offload_type="leaf_level", low_cpu_mem_usage=True
    )
    names = {
        name for one in module.modules() for name in getattr(one, "_diffusers_hook", HookRegistry(one)).hooks
    }
    assert names and names <= set(_OFFLOADING_HOOKS)
    hook = HookRegistry.check_if_exists_or_initialize(module[1]).get_hook(_OFFLOADING_HOOKS[0])
    assert isinstance(hook, GroupOffloadingHook)
    assert {"modules", "parameters", "buffers"} <= vars(hook.group).keys()
    for name in _OFFLOADING_HOOKS:
        HookRegistry.check_if_exists_or_initialize(module).remove_hook(name, recurse=True)
    left = {
        name for one in module.modules() for name in getattr(one, "_diffusers_hook", HookRegistry(one)).hooks
    }
    assert not left
    text = source("diffusers.hooks.group_offloading", "apply_group_offloading")
    assert "def remove_group_offloading" not in text


def test_single_files_are_converted_by_this_table() -> None:
    for name in ("SD3Transformer2DModel", "ZImageTransformer2DModel"):
        convert = SINGLE_FILE_LOADABLE_CLASSES[name]["checkpoint_mapping_fn"]
        given = inspect.signature(convert).parameters
        assert "checkpoint" in given
        assert "config" in given or any(one.kind is one.VAR_KEYWORD for one in given.values())
