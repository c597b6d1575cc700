"""What each of two processes does that talk over gloo: the command, ended at its ninth step and given again; a stream.

What it saw of the stream goes into ``seen-<rank>.json`` in the folder that it is given first.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

BATCH, DOCUMENTS, CONTEXT = 4, 16, 32  # documents per file; each document is exactly one chunk


def started(*command: str) -> list[subprocess.Popen]:
    """Start Python with the same arguments twice, with what the two need to find each other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    return [subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(2)]


def text_of(number: int) -> str:
    return f"document {number:03} ".ljust(CONTEXT - 1, "x")


def seen_in_a_stream(folder: Path) -> list[list[int]]:
    """Return the documents in each step's share of this process, as the model is given them."""
    import pandas as pd
    from datasets import Dataset

    from llm_tutorial.chunking import packed_dataset, packed_stream
    from llm_tutorial.commands.pretrain import _arguments
    from llm_tutorial.device import pick_device
    from llm_tutorial.reporting import quiet
    from llm_tutorial.training import PRESETS, build_trainer, new_model, preset_tokenizer

    quiet()
    # Bytes and the end-of-text token: a character is a token.
    preset = replace(PRESETS["smoke"], vocabulary=257, context_length=CONTEXT, batch=BATCH,
                     max_steps=2 * DOCUMENTS // BATCH)
    tokenizer = preset_tokenizer(preset, [text_of(0)])
    paths = [str(folder / f"{os.environ['RANK']}-{number}.parquet") for number in (0, 1)]
    for number, path in enumerate(paths):
        rows = range(number * DOCUMENTS, (number + 1) * DOCUMENTS)
        pd.DataFrame({"title": f"title {row}", "text": text_of(row)} for row in rows).to_parquet(path)
    datasets = {"train": packed_stream(paths, tokenizer, CONTEXT, buffer_size=8),
                "valid": packed_dataset(Dataset.from_dict({"text": [text_of(0)] * 8}), tokenizer, CONTEXT)}
    arguments = _arguments(preset, folder / "stream", pick_device(), datasets, processes=2)
    trainer = build_trainer(new_model(preset, tokenizer), arguments, datasets, tokenizer, preset=preset)
    steps = []

    def note(module, _arguments, kwargs):
        if module.training:
            steps.append([int(text.split()[1]) for text in tokenizer.batch_decode(kwargs["input_ids"])])

    trainer.model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train()
    return steps


def interrupted(arguments: list[str]) -> int:
    """Run the command until its ninth step, then once more; return its status."""
    from llm_tutorial import cli
    from llm_tutorial.commands import pretrain

    class Ended(Exception):
        pass

    class EndsAtNine(pretrain.TrainingProgress):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 9:
                raise Ended

    whole, pretrain.TrainingProgress = pretrain.TrainingProgress, EndsAtNine
    with contextlib.suppress(Ended):
        cli.main(arguments)
    pretrain.TrainingProgress = whole
    return cli.main(arguments)


if __name__ == "__main__":
    seen = json.dumps(seen_in_a_stream(Path(sys.argv[1])))
    Path(sys.argv[1], f"seen-{os.environ['RANK']}.json").write_text(seen, encoding="utf-8")
    from torch import distributed

    status = interrupted(sys.argv[2:])  # the command ends what the processes share
    sys.exit(status if not distributed.is_initialized() else "the process group is left open")
