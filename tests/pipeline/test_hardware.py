"""Each machine draws with the device and the dtype that work there, and says truly what a model lacks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline import hardware
from pipeline.catalogue import read_catalogue
from pipeline.engine import Engine
from tests.tiny import ROOT, catalogue, entry, tiny_sd3

GIB = 2**30


@pytest.fixture(autouse=True)
def asked_anew():
    hardware.accelerator.cache_clear()
    yield
    hardware.accelerator.cache_clear()


def fake_gpu(monkeypatch: pytest.MonkeyPatch, name: str, major: int, memory: int) -> None:
    """Stands in for torch's view of a GPU, which the test machine lacks."""
    properties = SimpleNamespace(major=major, minor=0, total_memory=memory, name=name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


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
    device = hardware.accelerator()
    assert (device.kind, device.dtype) == ("mps", "float16")
    assert device.memory > 0


def test_the_owner_can_choose_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA L4", 8, 24 * GIB)
    assert hardware.accelerator("cpu").kind == "cpu"


def test_sketch_stays_on_the_cpu_whatever_gpu_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    models = read_catalogue(ROOT / "models.yaml")
    assert hardware.device_for(models["sketch"]).kind == "cpu"
    assert hardware.device_for(models["sd3.5-medium"]).kind == "cuda"


def test_without_gpu_the_big_models_are_listed_with_the_true_reason_and_sketch_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_gpu(monkeypatch)
    monkeypatch.setattr(hardware, "get_token", lambda: None)
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
    monkeypatch.setattr(hardware, "get_token", lambda: "a token")
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda _: SimpleNamespace(free=500 * 10**9))
    engine = Engine(read_catalogue(ROOT / "models.yaml"))
    assert engine.default_model == "sd3.5-large"
    assert all(model["available"] for model in engine.models())


def test_a_gpu_that_is_too_small_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "Tesla T4", 7, 15 * GIB)
    monkeypatch.setattr(hardware, "get_token", lambda: "a token")
    reason = Engine(read_catalogue(ROOT / "models.yaml")).models()[0]["reason"]
    assert "32 GB" in reason
    assert "Tesla T4 has 16 GB" in reason
    assert "HF_TOKEN" not in reason


def test_too_little_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, "NVIDIA H200", 9, 139 * GIB)
    monkeypatch.setattr(hardware, "get_token", lambda: "a token")
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 10**9))
    reason = Engine(read_catalogue(ROOT / "models.yaml")).models()[0]["reason"]
    assert "Downloads 28 GB" in reason
    assert "5 GB" in reason


def reason(monkeypatch: pytest.MonkeyPatch, model: str, token: str | None, free: float = 500) -> str:
    """Why this model can't run, on a machine with this token and these GB free."""
    monkeypatch.setattr(hardware, "get_token", lambda: token)
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 10**9))
    models = Engine(read_catalogue(ROOT / "models.yaml")).models()
    return next(one["reason"] or "" for one in models if one["id"] == model)


GPUS = "https://huggingface.co/docs/hub/spaces-gpus"


def test_with_a_token_and_no_gpu_the_gpu_alone_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    words = reason(monkeypatch, "sd3.5-medium", "hf_some")
    assert words == f"Needs a GPU with 20 GB of memory; this machine has none. {GPUS}"


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
    engine = Engine(read_catalogue(ROOT / "models.yaml"), device="cpu")
    hardware_need = engine.needs(engine.catalogue["z-image-turbo"])[0]
    assert hardware_need.words == "Needs a GPU with 24 GB of memory; STEPWISE_DEVICE=cpu keeps to the CPU."


def test_whether_a_licence_was_accepted_is_not_claimed_before_the_hub_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "get_token", lambda: "hf_some")
    spec = read_catalogue(ROOT / "models.yaml")["sd3.5-large"]

    def licence() -> hardware.Need:
        return next(need for need in hardware.needs(spec) if need.what == "licence")

    assert (licence().met, licence().known) == (True, False)
    monkeypatch.setattr(hardware, "try_to_load_from_cache", lambda *_, **__: "model_index.json")
    assert (licence().met, licence().known) == (True, True)


def test_the_least_recently_drawn_model_leaves_when_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a GPU with room for two models of three; it computes on the CPU."""

    class Gpu(hardware.Device):
        @property
        def torch_device(self) -> torch.device:
            return torch.device("cpu")

    gpu = Gpu("mps", "float32", 2 * 10**9, "a stand-in")
    monkeypatch.setattr("pipeline.engine.device_for", lambda spec, wanted="auto": gpu)
    monkeypatch.setattr(hardware, "device_for", lambda spec, wanted="auto": gpu)
    source = tiny_sd3(tmp_path / "tiny")
    entries = [entry(source, name, device=None, needs={"gpu_memory": 1}) for name in ("one", "two", "three")]
    engine = Engine(catalogue(tmp_path, *entries))

    def loads(model: str) -> bool:
        events = engine.start(engine.check({"prompt": "a", "model": model})).events()
        return "loading" in [event.phase for event in events]

    assert [loads("one"), loads("two"), loads("one"), loads("two")] == [True, True, False, False]
    loads("one")
    assert loads("three")  # two leaves
    assert not loads("one")
    assert loads("two")
