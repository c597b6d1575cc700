"""``python -m llm_tutorial`` is the same as ``llm-tutorial``."""

from llm_tutorial.cli import main

raise SystemExit(main())
