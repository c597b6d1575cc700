"""The choice of device and precision."""

import subprocess
import sys

import pytest
import torch

from llm_tutorial.device import pick_device


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that a CUDA GPU of a given compute capability is there."""

    def pretend(*capability: int) -> None:
        monkeypatch.delenv("LLM_TUTORIAL_DEVICE")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return pretend


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_the_environment_overrides_the_choice(cuda, monkeypatch):
    cuda(8, 0)
    assert pick_device().name == "cuda"
    monkeypatch.setenv("LLM_TUTORIAL_DEVICE", " CPU ")
    device = pick_device()
    assert (device.name, device.reason.split(";")[0]) == ("cpu", "set by LLM_TUTORIAL_DEVICE")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("mps", "name", "reason"), [
    (False, "cpu", "no GPU was found"), (True, "mps", "Apple's GPU is present"),
])
def test_without_cuda_apples_gpu_or_the_cpu_is_picked(monkeypatch, mps, name, reason):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setenv("LLM_TUTORIAL_DEVICE", "")
    device = pick_device()
    assert (device.name, device.bf16, device.fp16) == (name, False, False)
    assert reason in device.reason


@pytest.mark.parametrize(("capability", "bf16", "fp16"), [((7, 5), False, True), ((8, 0), True, False)])
def test_cuda_trains_in_bf16_from_capability_8_on_and_in_fp16_before(cuda, monkeypatch, capability, bf16, fp16):
    cuda(*capability)
    device = pick_device()
    assert (device.name, device.bf16, device.fp16) == ("cuda", False, False)
    assert "fp32 set by LLM_TUTORIAL_PRECISION" in device.reason
    for precision in ("auto", ""):
        monkeypatch.setenv("LLM_TUTORIAL_PRECISION", precision)
        device = pick_device()
        assert (device.name, device.bf16, device.fp16) == ("cuda", bf16, fp16)
        assert "compute capability" in device.reason


@pytest.mark.parametrize("found", [{"avx512_bf16": True}, {"amx_bf16": True}, {"avx512_bf16": False}, None])
def test_bf16_on_the_cpu_follows_the_instructions_it_has(monkeypatch, found):
    monkeypatch.setenv("LLM_TUTORIAL_PRECISION", "auto")
    if found is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    device = pick_device()
    assert (device.bf16, device.fp16) == (bool(found and any(found.values())), False)
    assert ("finds no bf16" in device.reason) is not device.bf16


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("variable", "value", "message"), [
    ("LLM_TUTORIAL_DEVICE", "cuda", "'cuda', but PyTorch .* finds only cpu here: use one of these, or unset"),
    ("LLM_TUTORIAL_PRECISION", "fp8", "'fp8' is unknown: use auto or fp32"),
])
def test_unknown_or_absent_values_are_named_with_a_remedy(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        pick_device()


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, llm_tutorial; print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
