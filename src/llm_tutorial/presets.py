"""The recipes: how large a model is and how it is trained, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads the presets' fields without waiting for PyTorch
    from llm_tutorial.device import Device

__all__ = ["PRESETS", "Preset", "pick_preset"]


@dataclass(frozen=True)
class Preset:
    """One recipe: how large the model is and how it is trained.

    Attributes:
        vocabulary: entries of a tokenizer trained on the texts themselves; None for GPT-2's own 50,257.
        muon_lr: Muon's learning rate for the matrices inside the blocks; None trains everything with AdamW.
        embedding_std: standard deviation of the embeddings before training; None leaves GPT-2's 0.02.
        activation, attention: names of the library for how a step is computed, not for what.
        dropout: GPT-2's default of 0.1 works against memorising.
        max_steps: stop after so many steps; None trains all ``epochs``.
        stop_at: stop earlier once this share of the training chunks is recited; None never checks.
    """

    name: str
    layers: int
    width: int
    heads: int
    batch: int
    epochs: int
    learning_rate: float
    vocabulary: int | None = None
    muon_lr: float | None = None
    embedding_std: float | None = None
    activation: str = "gelu_new"
    attention: str = "sdpa"
    dropout: float = 0.0
    warmup: float = 0.05
    context_length: int = 128
    max_steps: int | None = None
    stop_at: float | None = None


PRESETS = {preset.name: preset for preset in (
    # 50 documents by heart in half a minute on two cores: a small model and few steps, each of which goes far.
    Preset("cpu", layers=2, width=256, heads=4, vocabulary=4096, embedding_std=0.1,
           activation="gelu_pytorch_tanh", attention="eager",
           batch=16, epochs=7, learning_rate=1e-2, muon_lr=2e-2, stop_at=0.95),
    # The full GPT-2 (124 M parameters) with the library's optimiser.
    Preset("cuda", layers=12, width=768, heads=12, batch=8, epochs=100, learning_rate=1e-4, stop_at=0.95),
    # The recipe of the CPU, in fp32.
    Preset("mps", layers=2, width=256, heads=4, vocabulary=4096, embedding_std=0.1,
           activation="gelu_pytorch_tanh", attention="eager",
           batch=16, epochs=7, learning_rate=1e-2, muon_lr=2e-2, stop_at=0.95),
    # For tests: it only has to run.
    Preset("smoke", layers=2, width=64, heads=2, vocabulary=512,
           batch=4, epochs=1, learning_rate=2e-3, muon_lr=5e-3, max_steps=20),
)}


def pick_preset(preset: str | Preset | Device) -> Preset:
    """Return the preset of this name, or the one made for this device; a ``Preset`` is returned as it is.

    Raises:
        ValueError: there is no preset of this name.
    """
    if isinstance(preset, Preset):
        return preset
    name = preset if isinstance(preset, str) else preset.name
    if name not in PRESETS:
        raise ValueError(f"Unknown preset {name!r}: use one of {', '.join(PRESETS)}.")
    return PRESETS[name]
