"""Helpers behind the tutorial notebooks: loading models, decoding, chunked tokenisation and training."""

__all__ = ["__version__"]

__version__ = "0.1.0"
