"""Helpers behind the tutorial notebooks: loading models, decoding, chunked tokenization and training."""

__all__ = ["__version__"]

__version__ = "0.2.0"
