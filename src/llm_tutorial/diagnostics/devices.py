"""What the notebooks compute with: the device, its free memory, and its half precision."""

from __future__ import annotations

from collections.abc import Iterator

from llm_tutorial.diagnostics.finding import Finding, one_line

__all__ = ["device_findings"]


def device_findings() -> Iterator[Finding]:
    """Report the device that the notebooks take, what is free of its memory, and whether bfloat16 is fast."""
    import torch

    from llm_tutorial import device

    try:
        chosen = device.pick_device()
    except ValueError as error:
        yield Finding("FAIL", "device", one_line(error), "change or unset the variable")
        return
    yield Finding("ok", "device", f"{chosen.name} ({chosen.reason}), {torch.get_num_threads()} CPU threads")
    if chosen.name == "cuda":
        free, total = torch.cuda.mem_get_info()
        yield Finding("ok", "GPU memory", f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free on "
                      f"{torch.cuda.get_device_name()}; a batch that does not fit is halved")
    elif chosen.name == "mps":
        total, used = torch.mps.recommended_max_memory(), torch.mps.driver_allocated_memory()
        yield Finding("ok", "GPU memory", f"{(total - used) / 1e9:.1f} of {total / 1e9:.1f} GB free, shared with the "
                      "CPU")
    fast, detail = device._fast_bf16("cpu")
    yield Finding("ok" if fast else "note", "CPU bfloat16", detail)
