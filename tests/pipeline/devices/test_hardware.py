"""Each machine draws with the device and the dtype that work there, and says truly what a model lacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.catalog.catalogue import read_catalogue
from pipeline.devices import hardware
from pipeline.engine import Engine
from pipeline.weights import requirements
from tests.support.tiny import ROOT

GIB = 2**30


def fake_gpu(monkeypatch: pytest.MonkeyPatch, name: str, major: int, memory: int) -> None:
    """Stands in for torch's view of a GPU, which the test machine lacks."""
    properties = SimpleNamespace(major=major, minor=0, total_memory=memory, name=name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(hardware, "free_gpu_memory", lambda: memory)


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    "name, major, dtype",
    [("Tesla T4", 7, "float16"), ("Tesla V100", 7, "float16"), ("NVIDIA A10G", 8, "bfloat16"),
     ("NVIDIA L4", 8, "bfloat16"), ("NVIDIA H200", 9, "bfloat16"), ("RTX PRO 6000", 12, "bfloat16")],
)  # fmt: skip
def test_a_card_without_fast_bf16_draws_in_fp16(
    monkeypatch: pytest.MonkeyPatch, name: str, major: int, dtype: str
) -> None:
    fake_gpu(monkeypatch, name, major, 24 * GIB)
    device = hardware.accelerator()
    assert (device.kind, device.dtype, device.name) == ("cuda", dtype, name)
    assert device.torch_dtype is getattr(torch, dtype)


def test_a_machine_without_gpu_draws_in_fp32_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    device = hardware.accelerator()
    assert (device.kind, device.dtype) == ("cpu", "float32")


def test_an_apple_machine_draws_in_fp16_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * GIB)
    device = hardware.accelerator()
    assert (device.kind, device.dtype) == ("mps", "float16")
    assert (device.memory, device.host_memory) == (12 * GIB, 0)


def test_the_owner_can_choose_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA L4", 8, 24 * GIB)
    assert hardware.accelerator(hardware.Wanted("cpu")).kind == "cpu"


def test_sketch_stays_on_the_cpu_whatever_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    models = read_catalogue(ROOT / "models.yaml")
    assert hardware.device_for(models["sketch"]).kind == "cpu"
    assert hardware.device_for(models["sd3.5-medium"]).kind == "cuda"


def test_without_gpu_the_big_models_are_listed_with_the_true_reason_and_sketch_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_gpu(monkeypatch)
    monkeypatch.setattr(requirements, "get_token", lambda: None)
    engine = Engine(read_catalogue(ROOT / "models.yaml"))
    listed = {model["id"]: model for model in engine.models()}
    assert [name for name, model in listed.items() if model["available"]] == ["sketch"]
    assert engine.default_model == "sketch"
    for name in ("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium"):
        assert "this machine has none" in listed[name]["reason"]
        assert "HF_TOKEN" in listed[name]["reason"]
    assert "this machine has none" in listed["z-image-turbo"]["reason"]
    assert "HF_TOKEN" not in listed["z-image-turbo"]["reason"]


def test_with_a_large_gpu_and_a_token_the_best_model_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    monkeypatch.setattr(requirements, "get_token", lambda: "a token")
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda _: SimpleNamespace(free=500 * 10**9))
    engine = Engine(read_catalogue(ROOT / "models.yaml"))
    assert engine.default_model == "sd3.5-large"
    assert all(model["available"] for model in engine.models())


def reason_on(monkeypatch: pytest.MonkeyPatch, card: int, host: int) -> str:
    """Why SD3.5 Large can't run on a card with so many GiB, beside so many GB of host memory."""
    fake_gpu(monkeypatch, "GeForce", 8, card * GIB)
    monkeypatch.setattr(hardware, "free_host_memory", lambda: host * 10**9)
    monkeypatch.setattr(requirements, "get_token", lambda: "a token")
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda _: SimpleNamespace(free=500 * 10**9))
    return Engine(read_catalogue(ROOT / "models.yaml")).models()[0]["reason"] or ""


def test_a_gpu_that_is_too_small_is_named_with_its_memory_and_what_would_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reason = reason_on(monkeypatch, card=6, host=8)
    assert "Needs 8 GB of GPU memory, or 27 GB of free host memory beside less of it" in reason
    assert "GeForce has 6 GB" in reason
    assert "HF_TOKEN" not in reason


def test_a_gpu_that_is_too_small_for_all_of_a_model_runs_it_where_the_host_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert reason_on(monkeypatch, card=6, host=40) == ""


def test_the_owner_can_bound_the_memory_that_models_take(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    device = hardware.accelerator(hardware.Wanted(gpu_memory=23, host_memory=30))
    assert (device.memory, device.host_memory) == (23 * 10**9, 30 * 10**9)


@pytest.mark.parametrize("version", [1, 2])
def test_host_memory_is_what_the_container_may_still_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int
) -> None:
    """The limit is 8 GB, 3 are in use, 1 of them by files just read; the machine itself has far more."""
    names = ("max", "current", "stat")
    key = "inactive_file" if version == 2 else "total_inactive_file"
    for name, text in zip(names, ("8000000000", "3000000000", f"anon 5\n{key} 1000000000"), strict=True):
        (tmp_path / name).write_text(text + "\n")
    missing = ("no such file",) * 3
    ours = tuple(str(tmp_path / name) for name in names)
    monkeypatch.setattr(hardware, "_CGROUPS", (ours, missing) if version == 2 else (missing, ours))
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**12))
    assert hardware.free_host_memory() == 5_400_000_000  # nine tenths of 6 GB


def test_without_a_limit_host_memory_is_what_the_machine_has_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("max", "current", "stat")
    for name, text in zip(names, ("max", "3000000000", "inactive_file 1"), strict=True):
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(hardware, "_CGROUPS", (tuple(str(tmp_path / name) for name in names),))
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**10))
    assert hardware.free_host_memory() == 9_000_000_000


def test_too_little_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    monkeypatch.setattr(requirements, "get_token", lambda: "a token")
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    reason = Engine(read_catalogue(ROOT / "models.yaml")).models()[0]["reason"]
    assert "Downloads 28 GB" in reason
    assert "5 GB" in reason


def reason(monkeypatch: pytest.MonkeyPatch, model: str, token: str | None, free: float = 500) -> str:
    """Why this model can't run, on a machine with this token and these GB free."""
    monkeypatch.setattr(requirements, "get_token", lambda: token)
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 10**9))
    models = Engine(read_catalogue(ROOT / "models.yaml")).models()
    return next(one["reason"] or "" for one in models if one["id"] == model)


GPUS = "https://huggingface.co/docs/hub/spaces-gpus"


def test_with_a_token_and_no_gpu_the_gpu_alone_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    words = reason(monkeypatch, "sd3.5-medium", "hf_some")
    assert (
        words == f"Needs a GPU: 20 GB of its memory are best, 5 GB the least; this machine has none. {GPUS}"
    )


def test_with_a_gpu_and_no_token_the_token_and_the_licence_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    words = reason(monkeypatch, "sd3.5-medium", None)
    assert words == (
        "Needs HF_TOKEN, a token of yours (scope: read). https://huggingface.co/settings/tokens "
        "The token’s account must have accepted the Stability AI Community licence. "
        "https://huggingface.co/stabilityai/stable-diffusion-3.5-medium"
    )
    assert reason(monkeypatch, "z-image-turbo", None) == ""


def test_too_little_disk_alone_is_told_with_what_is_free_and_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    assert reason(monkeypatch, "sd3.5-large", "hf_some", free=27.96) == (
        "Downloads 28 GB on first use; 27.9 GB are free. Set HF_HOME to a folder on a larger disk. "
        "https://huggingface.co/docs/hub/spaces-storage"
    )


def test_a_gpu_that_the_owner_leaves_unused_is_not_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    engine = Engine(read_catalogue(ROOT / "models.yaml"), wanted=hardware.Wanted("cpu"))
    hardware_need = engine.requirements(engine.catalogue["z-image-turbo"])[0]
    assert hardware_need.words == "Needs a GPU; STEPWISE_DEVICE=cpu keeps to the CPU."


def test_whether_a_licence_was_accepted_is_not_claimed_before_the_hub_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements, "get_token", lambda: "hf_some")
    spec = read_catalogue(ROOT / "models.yaml")["sd3.5-large"]

    def licence() -> hardware.Need:
        return next(need for need in requirements.requirements(spec) if need.what == "licence")

    assert (licence().met, licence().known) == (True, False)
    monkeypatch.setattr(requirements, "try_to_load_from_cache", lambda *_, **__: "model_index.json")
    assert (licence().met, licence().known) == (True, True)
