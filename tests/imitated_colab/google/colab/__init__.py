"""An imitation of what a notebook finds in a Colab session: the module that it looks for, with the Drive part."""

from google.colab import drive

__all__ = ["drive"]
