"""An imitation of what a notebook finds in a Colab session: the module that it looks for."""
