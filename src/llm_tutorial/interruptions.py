"""What Ctrl-C and SIGTERM do to a training: it ends, and says how to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from llm_tutorial.launching import is_main_process
from llm_tutorial.resuming import newest_checkpoint

__all__ = ["interruptible"]


@contextlib.contextmanager
def interruptible(folder: Path, tell: Callable[[str], object]) -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, as Ctrl-C is one, and let the main process tell how to go on.

    Args:
        folder: the run's, where its checkpoints are.
        tell: gets the line.

    Raises:
        KeyboardInterrupt: a signal arrived in the block.
    """
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    arrived: list[int] = []

    def stop(number: int, _frame: object) -> None:
        arrived.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        # A process that waits for another one to answer gets an error from the connection instead.
        if isinstance(error, RuntimeError) and not arrived:
            raise
        # A launcher passes on what the terminal has sent to its processes already: the second must not end this.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        if is_main_process():
            checkpoint = newest_checkpoint(folder, report=lambda _line: None)
            tell("Stopped. " + (f"The same command resumes from {checkpoint}." if checkpoint else
                                "There is no checkpoint yet: the same command begins again."))
        raise KeyboardInterrupt from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
