"""Which device and precision to compute with, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import transformers

__all__ = ["Device", "pick_device", "set_seed"]


@dataclass(frozen=True)
class Device:
    """A device and how to use it.

    Attributes:
        name: ``"cuda"``, ``"mps"`` or ``"cpu"``, as ``Module.to`` takes it.
        bf16: whether training in bfloat16 autocast is fast here.
        reason: why this device and this precision, in words.
        fp16: whether to train in float16 autocast instead, as older CUDA GPUs do.
    """

    name: str
    bf16: bool
    reason: str
    fp16: bool = False


def pick_device() -> Device:
    """Return the fastest device present: a CUDA GPU, Apple's GPU, or the CPU.

    ``LLM_TUTORIAL_DEVICE`` (``cpu``, ``cuda``, ``mps``) overrides the choice, ``LLM_TUTORIAL_PRECISION=fp32`` rules
    half precision out, as the reproducible outputs stored in the notebooks need.

    Raises:
        ValueError: one of the two variables holds an unknown value, or names a device that is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = os.environ.get("LLM_TUTORIAL_DEVICE", "").strip().lower()
    if wanted and wanted not in present:
        raise ValueError(f"LLM_TUTORIAL_DEVICE={wanted!r} is unknown: use one of {', '.join(present)}, or unset it.")
    if wanted and not present[wanted]:
        raise ValueError(f"LLM_TUTORIAL_DEVICE={wanted!r}, but PyTorch {torch.__version__} finds no such device here: "
                         "unset the variable, or set it to cpu.")
    name = wanted or next(name for name, there in present.items() if there)
    why = "set by LLM_TUTORIAL_DEVICE" if wanted else {
        "cuda": "a CUDA GPU is present", "mps": "Apple's GPU is present", "cpu": "no GPU was found"}[name]
    precision = os.environ.get("LLM_TUTORIAL_PRECISION", "").strip().lower() or "auto"
    if precision not in {"auto", "fp32"}:
        raise ValueError(f"LLM_TUTORIAL_PRECISION={precision!r} is unknown: use auto or fp32, or unset it.")
    if precision == "fp32":
        return Device(name, False, f"{why}; fp32 set by LLM_TUTORIAL_PRECISION")
    bf16, detail = _fast_bf16(name)
    return Device(name, bf16, f"{why}; {detail}", fp16=name == "cuda" and not bf16)


def _fast_bf16(name: str) -> tuple[bool, str]:
    """Whether bfloat16 has hardware of its own; PyTorch's own check also counts slow emulation."""
    if name == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return major >= 8, f"compute capability {major}.{minor} {'has' if major >= 8 else 'lacks'} bf16 units"
    if name == "mps":
        return False, "fp32 is the safe choice on MPS"
    # PyTorch publishes no such check for CPUs; an older or newer release may lack these names.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    found = any(getattr(torch.cpu, check, lambda: False)() for check in checks)
    return found, f"the CPU {'has' if found else 'lacks'} bf16 instructions"


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices), so that what follows is repeatable on this machine.

    Raises:
        ValueError: the seed is not an integer from 0 to 2**32 - 1, which is what NumPy takes.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r} is not an integer from 0 to {2**32 - 1}.")
    transformers.set_seed(seed)
