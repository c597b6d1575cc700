"""The choice of device and precision."""

import os
import subprocess
import sys

import pytest
import torch

from llm_tutorial import device
from llm_tutorial.device import pick_device, usable_cores


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that CUDA GPUs of a given compute capability are there, and a PyTorch built for some architectures."""

    def pretend(*capability: int, architectures: str = "sm_75 sm_80", count: int = 1) -> None:
        monkeypatch.delenv("LLM_TUTORIAL_DEVICE", raising=False)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", architectures.split)

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
    monkeypatch.setenv("LLM_TUTORIAL_PRECISION", "auto")
    device = pick_device()
    assert (device.name, device.bf16, device.fp16) == ("cuda", bf16, fp16)
    assert "compute capability" in device.reason


@pytest.mark.parametrize(("capability", "architectures", "name"), [
    ((6, 0), "sm_75 sm_80 compute_80", "cpu"),
    ((8, 6), "sm_75 sm_80", "cuda"),
    ((9, 0), "sm_80 sm_86", "cpu"),
    ((12, 0), "sm_80 compute_90", "cuda"),
])
def test_a_gpu_without_kernels_in_this_pytorch_is_left_for_the_cpu_with_the_reason(
    cuda, monkeypatch, capability, architectures, name
):
    cuda(*capability, architectures=architectures)
    device, lacking = pick_device(), "has no kernels for the GPU's compute capability {}.{}".format(*capability)
    assert (device.name, lacking in device.reason) == (name, name == "cpu")
    if name == "cpu":
        monkeypatch.setenv("LLM_TUTORIAL_DEVICE", "cuda")
        with pytest.raises(ValueError, match=lacking):
            pick_device()


def test_an_amd_gpu_is_used_without_a_look_at_its_architectures(cuda, monkeypatch):
    cuda(9, 0, architectures="gfx90a gfx942")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert pick_device().name == "cuda"


def test_the_reason_says_that_one_of_several_gpus_is_used(cuda):
    cuda(7, 5, count=2)
    assert "there are 2, and one process uses one" in pick_device().reason


@pytest.mark.parametrize("found", [{"avx512_bf16": True}, {"avx512_bf16": False}, None])
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
    ("LLM_TUTORIAL_DEVICE", "cuda", "'cuda', but PyTorch .* can use only cpu here .no GPU was found.: use one"),
    ("LLM_TUTORIAL_PRECISION", "fp8", "'fp8' is unknown: use auto or fp32"),
])
def test_unknown_or_absent_values_are_named_with_a_remedy(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        pick_device()


def test_importing_the_package_loads_no_heavy_library():
    code = "import sys, llm_tutorial; print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("contents", "cores"), [
    ({"cpu.max": "max 100000\n"}, 8),
    ({"cpu.max": "150000 100000\n"}, 2),
    ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
])
def test_threads_follow_the_cores_of_the_process_and_the_quota_of_its_container(tmp_path, monkeypatch, contents, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu").mkdir()
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


def test_pytorch_gets_no_more_threads_than_there_are_cores_for(monkeypatch):
    given = []
    monkeypatch.setattr(device, "usable_cores", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    pick_device()
    assert given == [3]
