"""The one mode in which stored outputs are made and compared; kernels inherit it from this process."""

import os

from llm_tutorial.commands.run import REFERENCE_ENVIRONMENT

os.environ.update(REFERENCE_ENVIRONMENT)
