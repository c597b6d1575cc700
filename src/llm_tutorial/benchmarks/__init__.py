"""Measurements behind ``llm-tutorial bench``, one module each; importing the package imports none of them."""

__all__: list[str] = []
