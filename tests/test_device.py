"""The choice of device and precision, and seeds."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from llm_tutorial.device import pick_device, set_seed


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that a CUDA GPU of a given compute capability is there."""

    def pretend(*capability: int) -> None:
        monkeypatch.delenv("LLM_TUTORIAL_DEVICE")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return pretend


def absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_the_environment_overrides_the_choice(cuda, monkeypatch):
    cuda(8, 0)
    monkeypatch.setenv("LLM_TUTORIAL_DEVICE", " CPU ")
    device = pick_device()
    assert device.name == "cpu"
    assert "LLM_TUTORIAL_DEVICE" in device.reason


def test_without_a_gpu_the_cpu_is_picked(monkeypatch):
    absent(monkeypatch)
    monkeypatch.setenv("LLM_TUTORIAL_DEVICE", "")
    device = pick_device()
    assert (device.name, device.bf16) == ("cpu", False)
    assert "no GPU was found" in device.reason


@pytest.mark.parametrize(("capability", "bf16", "fp16"), [((7, 5), False, True), ((8, 0), True, False)])
@pytest.mark.parametrize("precision", ["auto", ""])
def test_cuda_trains_in_bf16_from_capability_8_on_and_in_fp16_before(
    cuda, monkeypatch, capability, bf16, fp16, precision
):
    cuda(*capability)
    monkeypatch.setenv("LLM_TUTORIAL_PRECISION", precision)
    device = pick_device()
    assert (device.name, device.bf16, device.fp16) == ("cuda", bf16, fp16)
    assert "compute capability" in device.reason


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_fp32_rules_out_both_half_precisions(cuda, capability):
    cuda(*capability)
    device = pick_device()
    assert (device.name, device.bf16, device.fp16) == ("cuda", False, False)
    assert "fp32 set by LLM_TUTORIAL_PRECISION" in device.reason


@pytest.mark.parametrize("supported", [True, False])
def test_bf16_on_the_cpu_follows_the_instructions_it_has(monkeypatch, supported):
    monkeypatch.setenv("LLM_TUTORIAL_PRECISION", "auto")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert pick_device().bf16 is supported


@pytest.mark.parametrize(("variable", "value", "message"), [
    ("LLM_TUTORIAL_DEVICE", "tpu", "'tpu' is unknown: use one of cuda, mps, cpu"),
    ("LLM_TUTORIAL_DEVICE", "cuda", "'cuda', but PyTorch .* finds no such device here: unset the variable"),
    ("LLM_TUTORIAL_PRECISION", "fp8", "'fp8' is unknown: use auto or fp32"),
])
def test_unknown_or_absent_values_are_named_with_a_remedy(monkeypatch, variable, value, message):
    absent(monkeypatch)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        pick_device()


def test_a_seed_repeats_all_three_sources_of_randomness():
    def draw():
        set_seed(7)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002 - the legacy state is seeded

    assert draw() == draw()


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "42"])
def test_a_seed_that_numpy_cannot_take_is_refused(seed):
    with pytest.raises(ValueError, match="is not an integer from 0 to 4294967295"):
        set_seed(seed)


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, llm_tutorial; print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
