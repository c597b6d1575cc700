"""Where models and articles would come from: the source that was chosen, the hub's cache, and the hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from llm_tutorial.diagnostics.finding import Finding, one_line

__all__ = ["answers_within", "chosen_source", "hub_repositories", "source_or_auto"]

_SECONDS = 5.0  # a request gives up after four


def chosen_source() -> Iterator[Finding]:
    """Report the source of models and data, and who chose it."""
    from llm_tutorial import checkpoints

    try:
        chosen, origin = checkpoints.chosen_source(None)
    except ValueError as error:
        yield Finding("FAIL", "source", one_line(error), "change or unset LLM_TUTORIAL_SOURCE")
    else:
        yield Finding("ok", "source", f"{chosen} ({origin})")


def hub_repositories(seconds: float = _SECONDS) -> Iterator[Finding]:
    """Report for each repository the cache, or whether the hub answers; all requests run at the same time.

    With the source ``offline`` the hub is not asked.

    Args:
        seconds: how long to wait for the answers.
    """
    from llm_tutorial import checkpoints, corpus, hub

    wanted = {repo: (revision, "model") for repo, revision in checkpoints._HUB_CHECKPOINTS.values()}
    wanted[corpus.REPOSITORY] = (corpus.REVISION, "dataset")
    source, asked = source_or_auto(), {}
    for repo, (revision, kind) in wanted.items():
        try:
            kept = hub.cached_snapshot(repo, revision) if kind == "model" else corpus._kept_rows()
        except OSError as error:
            # What is damaged is removed by the look at it and comes anew, except where it may not be removed.
            blocks = source != "offline" and "has been removed" not in str(error)
            yield Finding("FAIL" if blocks else "note", repo, one_line(error))
            continue
        if kept:
            yield Finding("ok", repo, f"in the cache: {kept}")
        elif source == "offline":
            yield Finding("ok", repo, "not in the cache; the hub is not asked, as the source is offline")
        else:
            asked[repo] = partial(hub.why_unreachable, repo, revision, kind)
    for repo, trouble in answers_within(seconds, asked).items():
        if trouble is None:
            yield Finding("ok", repo, "the hub answers; it will be downloaded when it is first used")
        elif source == "hub":
            yield Finding("FAIL", repo, f"not in the cache; hub not reachable: {trouble}",
                          "set LLM_TUTORIAL_SOURCE=auto")
        else:
            yield Finding("note", repo, f"not in the cache; hub not reachable: {trouble}; the offline one is used")


def answers_within(seconds: float, calls: dict[str, Callable[[], str | None]]) -> dict[str, str | None]:
    """Call all at once in threads and return what they said within a deadline, however long one of them takes."""
    answers: dict[str, str | None] = dict.fromkeys(calls, f"no answer within {seconds:g} s")

    def call(name: str) -> None:
        answers[name] = calls[name]()

    threads = [threading.Thread(target=call, args=(name,), daemon=True) for name in calls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(answers)


def source_or_auto() -> str:
    """Return the chosen source, or ``auto`` where the variable is wrong, which is reported by itself."""
    from llm_tutorial import checkpoints

    try:
        return checkpoints.chosen_source(None)[0]
    except ValueError:
        return "auto"
