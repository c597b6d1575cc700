"""Which device and precision to compute with, and why."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Device", "pick_device", "usable_cores"]


@dataclass(frozen=True)
class Device:
    """A device as ``Module.to`` takes it, ``"cuda"``, ``"mps"`` or ``"cpu"``, and the precision to train in.

    Training is in bfloat16 autocast where that is fast, in float16 autocast on older CUDA GPUs, else in float32.
    """

    name: str
    bf16: bool
    reason: str
    fp16: bool = False


def pick_device() -> Device:
    """Return the fastest device: a CUDA GPU for which this PyTorch has kernels, Apple's GPU, or the CPU.

    ``LLM_TUTORIAL_DEVICE`` (``cpu``, ``cuda``, ``mps``) overrides the choice. ``LLM_TUTORIAL_PRECISION=fp32`` rules out
    half precision; the outputs stored in the notebooks need that. PyTorch gets no more threads than ``usable_cores()``.
    """
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    lacking = _lacking_kernels() if torch.cuda.is_available() else "no GPU was found"
    present = {"cuda": not lacking, "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = os.environ.get("LLM_TUTORIAL_DEVICE", "").strip().lower()
    if wanted and not present.get(wanted):
        names = ", ".join(name for name, there in present.items() if there)
        raise ValueError(f"LLM_TUTORIAL_DEVICE={wanted!r}, but PyTorch {torch.__version__} can use only {names} here "
                         f"({lacking or 'no GPU of this kind'}): use one of these, or unset the variable.")
    name = wanted or next(name for name, there in present.items() if there)
    why = "set by LLM_TUTORIAL_DEVICE" if wanted else {
        "cuda": "a CUDA GPU is present", "mps": "Apple's GPU is present", "cpu": lacking}[name]
    if name == "cuda" and (count := torch.cuda.device_count()) > 1:
        why += f"; there are {count}, and one process uses one"
    precision = os.environ.get("LLM_TUTORIAL_PRECISION", "").strip().lower() or "auto"
    if precision not in {"auto", "fp32"}:
        raise ValueError(f"LLM_TUTORIAL_PRECISION={precision!r} is unknown: use auto or fp32, or unset the variable.")
    if precision == "fp32":
        return Device(name, False, f"{why}; fp32 set by LLM_TUTORIAL_PRECISION")
    bf16, detail = _fast_bf16(name)
    return Device(name, bf16, f"{why}; {detail}", fp16=name == "cuda" and not bf16)


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores this process may use: those that it is bound to, or fewer by the quota of its container.

    The quota is in microseconds per period (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):  # of version 2, and of version 1
        with suppress(OSError, ValueError):  # there is none, or "max"
            quota, period = map(int, " ".join((cgroups / name).read_text() for name in names).split())
            cores = min(cores, math.ceil(quota / period)) if quota > 0 else cores
    return cores


def _lacking_kernels() -> str:
    """Why this PyTorch cannot use the first GPU, or an empty text.

    Binary code (sm_80) runs on the same major version from its minor version on, PTX (compute_80) on all newer ones.
    """
    if torch.version.cuda is None:  # an AMD GPU, whose architectures have names
        return ""
    capability = torch.cuda.get_device_capability()
    for kind, number in re.findall(r"(sm|compute)_(\d+)", " ".join(torch.cuda.get_arch_list())):
        built = divmod(int(number), 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return ""
    return "PyTorch {} has no kernels for the GPU's compute capability {}.{}".format(torch.__version__, *capability)


def _fast_bf16(name: str) -> tuple[bool, str]:
    """Whether the device has bfloat16 units; ``torch.cuda.is_bf16_supported`` also accepts slow emulation."""
    if name == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return major >= 8, f"compute capability {major}.{minor} {'has' if major >= 8 else 'lacks'} bf16 units"
    if name == "mps":
        return False, "fp32 is the safe choice on MPS"
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of PyTorch lack the function
    found = any(capabilities.get(key, False) for key in ("avx512_bf16", "amx_bf16"))
    return found, f"PyTorch finds {'' if found else 'no '}bf16 instructions in the CPU"
