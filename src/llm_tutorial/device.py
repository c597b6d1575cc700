"""Which device and precision to compute with, and why."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

__all__ = ["Device", "pick_device"]


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
    """Return the fastest device: a CUDA GPU, Apple's GPU, or the CPU.

    ``LLM_TUTORIAL_DEVICE`` (``cpu``, ``cuda``, ``mps``) overrides the choice. ``LLM_TUTORIAL_PRECISION=fp32`` rules out
    half precision; the outputs stored in the notebooks need that.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    wanted = os.environ.get("LLM_TUTORIAL_DEVICE", "").strip().lower()
    if wanted and not present.get(wanted):
        names = ", ".join(name for name, there in present.items() if there)
        raise ValueError(f"LLM_TUTORIAL_DEVICE={wanted!r}, but PyTorch {torch.__version__} finds only {names} here: "
                         "use one of these, or unset the variable.")
    name = wanted or next(name for name, there in present.items() if there)
    why = "set by LLM_TUTORIAL_DEVICE" if wanted else {
        "cuda": "a CUDA GPU is present", "mps": "Apple's GPU is present", "cpu": "no GPU was found"}[name]
    precision = os.environ.get("LLM_TUTORIAL_PRECISION", "").strip().lower() or "auto"
    if precision not in {"auto", "fp32"}:
        raise ValueError(f"LLM_TUTORIAL_PRECISION={precision!r} is unknown: use auto or fp32, or unset the variable.")
    if precision == "fp32":
        return Device(name, False, f"{why}; fp32 set by LLM_TUTORIAL_PRECISION")
    bf16, detail = _fast_bf16(name)
    return Device(name, bf16, f"{why}; {detail}", fp16=name == "cuda" and not bf16)


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
