"""Which components are where: on the device while they fit, then in host memory, then gone.

The budgets are bytes of the device and of its host (hardware.Device); the least recently used component goes
first. A component that several models share counts once, and stays while any of them is drawn.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.hooks.group_offloading import GroupOffloadingHook

from pipeline.devices.hardware import Device
from pipeline.weights.component import Component
from pipeline.weights.pinned_copy import HostCopy, tensors_of

Tier = Literal["device", "host"]
_OFFLOADING_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
"""What apply_group_offloading (diffusers 0.42) registers; it has no function of its own to take them back."""


@dataclass(frozen=True)
class Resident:
    """A component in memory: its name, its bytes, and where it is."""

    name: str
    size: int
    tier: Tier


class _Loaded:
    """A component's module, and its copy in host memory once it has left the device. outside: while its
    blocks are streamed, the tensors that belong to none of them."""

    def __init__(self, component: Component, module: torch.nn.Module) -> None:
        self.component, self.module = component, module
        self.size = sum(tensor.nbytes for tensor in tensors_of(module))
        self.tier: Tier = "device"
        self.streamed = False
        self.outside: list[torch.Tensor] = []
        self.copy: HostCopy | None = None


class Residency:
    """The components in the memory of one device and its host. Used by one thread at a time: the one whose
    turn it is on the device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._loaded: OrderedDict[tuple[str, ...], _Loaded] = OrderedDict()

    def contents(self) -> list[Resident]:
        """What is in memory, least recently used first."""
        return [Resident(one.component.name, one.size, one.tier) for one in self._loaded.values()]

    def ready(
        self, wanted: Mapping[str, Component], anywhere: bool = False, streamed: Iterable[str] = ()
    ) -> bool:
        """Whether `bring` would find these components as they are drawn with. Any thread may ask.

        Args:
            wanted, streamed: as of `bring`.
            anywhere: in host memory will do, too.
        """
        for name, component in wanted.items():
            if not (self._ready(component, name in streamed) or (anywhere and component.key in self._loaded)):
                return False
        return True

    def bring(
        self,
        wanted: Mapping[str, Component],
        room: int,
        report: Callable[[int, int], None],
        alone: bool = False,
        streamed: Iterable[str] = (),
    ) -> dict[str, torch.nn.Module]:
        """Makes these components ready to be used on the device.

        Args:
            wanted: components by their names in the pipeline.
            room: bytes of the device to keep free beside them, for drawing.
            report: called with (done, total) before each one that must be read or moved, and after the last;
                may raise Stopped.
            alone: nothing else stays on the device.
            streamed: names of those that stay in host memory and visit the device block by block.

        Returns:
            Their modules, by the same names.

        Raises:
            Stopped, from `report`; what reading a component raises. What was ready stays ready.
        """
        for loaded in self._loaded.values():
            if loaded.streamed and loaded.copy is not None:
                loaded.copy.to_host()  # a drawing that ended amid its blocks left some on the device, too
        keys = {component.key for component in wanted.values()}
        for key in [component.key for component in wanted.values() if component.key in self._loaded]:
            self._loaded.move_to_end(key)
        streamed = {name for name in streamed if name in wanted}
        missing = [name for name in wanted if not self._ready(wanted[name], name in streamed)]
        self._make_room(
            keys, room + sum(wanted[name].size for name in missing if name not in streamed), alone
        )
        for done, name in enumerate(missing):
            report(done, len(missing))
            if name in streamed:
                self._stream(wanted[name], keys)
            else:
                self._place(wanted[name])
        if missing:
            report(len(missing), len(missing))
        for name in streamed:
            for tensor in self._loaded[wanted[name].key].outside:
                tensor.data = tensor.data.to(self._device.torch_device)
        return {name: self._loaded[component.key].module for name, component in wanted.items()}

    def free(self) -> None:
        """Gives what nobody uses any more back to the device."""
        gc.collect()
        if self._device.torch_device.type == "cuda":
            torch.cuda.empty_cache()

    def _ready(self, component: Component, streamed: bool) -> bool:
        loaded = self._loaded.get(component.key)
        return loaded is not None and (loaded.streamed if streamed else loaded.tier == "device")

    def _place(self, component: Component) -> None:
        """Onto the device, from host memory or from its files."""
        loaded = self._loaded.get(component.key)
        if loaded is None:
            module = component.read(self._device.torch_device)
            loaded = self._loaded[component.key] = _Loaded(component, module)
        elif loaded.tier == "host":
            if loaded.streamed:
                _stop_streaming(loaded.module)
                loaded.streamed, loaded.outside = False, []
            assert loaded.copy is not None
            loaded.copy.to_device(self._device.torch_device)
            loaded.tier = "device"
        self._loaded.move_to_end(component.key)

    def _stream(self, component: Component, keep: set[tuple[str, ...]]) -> None:
        """Into host memory, with hooks that take its blocks to the device as they are needed."""
        loaded = self._loaded.get(component.key)
        if loaded is None:
            module = component.read(torch.device("cpu"))
            loaded = self._loaded[component.key] = _Loaded(component, module)
            loaded.tier = "host"
        if loaded.copy is None:
            self._make_host_room(loaded.size, keep)
            loaded.copy = HostCopy(loaded.module)
        loaded.copy.to_host()
        loaded.tier, loaded.streamed = "host", True
        blocks = any(isinstance(child, torch.nn.ModuleList) for child in loaded.module.children())
        apply_group_offloading(
            loaded.module,
            onload_device=self._device.torch_device,
            offload_device=torch.device("cpu"),
            offload_type="block_level" if blocks else "leaf_level",
            num_blocks_per_group=1 if blocks else None,
            use_stream=self._device.torch_device.type == "cuda",
            low_cpu_mem_usage=True,  # our copy is pinned already: diffusers needn't make one of its own
        )
        loaded.outside = _outside(loaded.module) if blocks else []
        self._loaded.move_to_end(component.key)

    def _make_room(self, keep: set[tuple[str, ...]], needed: int, alone: bool) -> None:
        """Moves what was used longest ago off the device until `needed` bytes fit its budget."""
        budget = self._device.memory
        if not budget and not alone:
            return
        for key, loaded in list(self._loaded.items()):
            used = sum(one.size for one in self._loaded.values() if one.tier == "device")
            if not alone and used + needed <= budget:
                return
            if key not in keep and loaded.tier == "device":
                self._leave(key, loaded, keep)

    def _leave(self, key: tuple[str, ...], loaded: _Loaded, keep: set[tuple[str, ...]]) -> None:
        """Off the device: to host memory where it fits there, else gone."""
        if loaded.copy is None:
            if not (loaded.component.movable and self._make_host_room(loaded.size, keep)):
                self._drop(key)
                return
            loaded.copy = HostCopy(loaded.module)
        loaded.copy.to_host()
        loaded.tier = "host"

    def _make_host_room(self, needed: int, keep: set[tuple[str, ...]]) -> bool:
        """Makes room in host memory for `needed` bytes, if its budget is as large as that: copies of what is
        on the device anyway go first, then whole components, each used longest ago first."""
        budget = self._device.host_memory
        if needed > budget:
            return False
        used = sum(one.copy.size for one in self._loaded.values() if one.copy is not None)
        for tier in ("device", "host"):
            for key, one in list(self._loaded.items()):
                if used + needed <= budget:
                    return True
                if one.copy is None or one.tier != tier or (tier == "host" and key in keep):
                    continue
                used -= one.copy.size
                if tier == "device":
                    one.copy = None
                else:
                    self._drop(key)
        return used + needed <= budget

    def _drop(self, key: tuple[str, ...]) -> None:
        del self._loaded[key]
        gc.collect()  # hooks and modules refer to each other: their memory would wait for the collector


def _outside(module: torch.nn.Module) -> list[torch.Tensor]:
    """The tensors outside the blocks, now in nobody's care: diffusers (0.42) would take them to the device
    and back to other, unpinned memory in every forward (0.45 GB of Medium's position table alone)."""
    hook = HookRegistry.check_if_exists_or_initialize(module).get_hook(_OFFLOADING_HOOKS[0])
    if not isinstance(hook, GroupOffloadingHook):
        return []
    group = hook.group
    tensors = [*group.parameters, *group.buffers]
    tensors += [tensor for one in group.modules for tensor in tensors_of(one)]
    group.modules, group.parameters, group.buffers = [], [], []
    return tensors


def _stop_streaming(module: torch.nn.Module) -> None:
    registry = HookRegistry.check_if_exists_or_initialize(module)
    for name in _OFFLOADING_HOOKS:
        registry.remove_hook(name, recurse=True)
