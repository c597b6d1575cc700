"""The process in which ``llm-tutorial doctor`` makes its checks: ``python -m llm_tutorial.diagnostics SECONDS``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from llm_tutorial.diagnostics.checks import findings

__all__: list[str] = []


def _main(seconds: float) -> None:
    """Write a JSON object a line: a check that begins, a finding, and at last that all is done."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print does not get in between

    def tell(**event: object) -> None:
        print(json.dumps(event), file=channel, flush=True)

    for finding in findings(seconds, on_begin=lambda name: tell(begin=name)):
        tell(finding=asdict(finding))
    tell(done=True)
    os._exit(0)  # a check that hangs is left behind in its thread


if __name__ == "__main__":
    _main(float(sys.argv[1]))
