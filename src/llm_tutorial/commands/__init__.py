"""The commands of ``llm-tutorial``, one module each; nothing else in the package imports them."""
