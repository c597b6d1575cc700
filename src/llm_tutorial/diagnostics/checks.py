"""All checks of the doctor in their order, each with a time limit of its own."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from llm_tutorial.diagnostics import (
    caches,
    devices,
    frontend,
    interfaces,
    needs,
    sources,
    trackers,
    variables,
    versions,
)
from llm_tutorial.diagnostics.finding import Finding, one_line
from llm_tutorial.redaction import redacted

__all__ = ["Check", "all_checks", "findings", "outcome"]


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        name: what stands in the report where the check itself fails.
        run: makes the findings.
        share: how much of the time for all it may take; what hangs leaves the rest to the others.
    """

    name: str
    run: Callable[[], Iterable[Finding]]
    share: float = 1 / 3


def all_checks() -> list[Check]:
    """Return the checks: what needs no library first, so that it is told whatever the libraries do."""
    return [
        Check("Python", versions.python_version),
        Check("packages", versions.package_versions),
        Check("proxy", variables.proxy_findings),
        Check("certificates", variables.certificate_findings),
        Check("HF_ variables", variables.hub_variable_findings),
        Check("bundled data", caches.bundled_data),
        Check("kernel", frontend.kernel_findings),
        *(Check(f"import {name}", partial(versions.import_library, name), 2 / 3) for name in versions.IMPORTED),
        Check("modules", versions.own_modules),
        Check("interfaces", interfaces.keyword_findings),
        Check("loading", interfaces.loading_findings),
        Check("widgets", frontend.widget_findings),
        Check("trackers", trackers.tracker_findings),
        Check("device", devices.device_findings),
        Check("source", sources.chosen_source),
        Check("hub", sources.hub_repositories, 1 / 2),
        Check("offline causal", caches.offline_causal),
        Check("disk", caches.cache_folders),
        Check("leftovers", caches.leftovers),
        Check("needs", needs.need_findings),
    ]


def findings(seconds: float, *, on_begin: Callable[[str], object] | None = None) -> Iterator[Finding]:
    """Make one check after the other; one that breaks or hangs is itself a finding, and the next one follows.

    Args:
        seconds: how long all of them may take; those that have not begun by then are named in one finding.
        on_begin: gets the name of each check when it begins.
    """
    end = time.monotonic() + seconds
    checks = all_checks()
    for position, check in enumerate(checks):
        left = end - time.monotonic()
        if left <= 0:
            names = ", ".join(missed.name for missed in checks[position:])
            yield Finding("FAIL", "time", f"after {seconds:.0f} s not checked yet: {names}", _more_time(seconds))
            return
        if on_begin:
            on_begin(check.name)
        for finding in outcome(check, min(check.share * seconds, left)):
            yield replace(finding, detail=redacted(finding.detail, os.environ),
                          remedy=redacted(finding.remedy, os.environ))


def outcome(check: Check, seconds: float) -> list[Finding]:
    """Return the findings of a check that runs in a thread of its own, which is left behind if it does not end."""
    results: queue.Queue[list[Finding]] = queue.Queue()
    threading.Thread(target=lambda: results.put(_collected(check)), daemon=True).start()
    try:
        return results.get(timeout=seconds)
    except queue.Empty:
        return [Finding("FAIL", check.name, f"not finished within {seconds:.0f} s", _more_time(seconds))]


def _collected(check: Check) -> list[Finding]:
    """Run a check to its end; what it found before it broke counts."""
    found: list[Finding] = []
    try:
        found.extend(check.run())
    except ImportError as error:  # reported above as a failure
        found.append(Finding("note", check.name, f"not checked, because a library is missing: {one_line(error)}"))
    except (Exception, SystemExit) as error:  # whatever is wrong with this installation, the report goes on
        # The package's own errors, of these two kinds, say what to do.
        remedy = "" if isinstance(error, OSError | ValueError) else f"install again: {versions.INSTALL}"
        found.append(Finding("FAIL", check.name, f"{type(error).__name__}: {one_line(error)}", remedy))
    return found


def _more_time(seconds: float) -> str:
    return f"close other programs, or give it more time: llm-tutorial doctor --seconds {max(60, round(4 * seconds))}"
