"""What happens under two real processes, which talk over gloo: one launch, whose results several tests look at.

Run by PyTorch's launcher, this file is what each of the two does; it writes what it saw into a file of its own.
"""

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

BATCH = 4
DOCUMENTS = 16  # per file, each of which is exactly one chunk
CONTEXT = 32


@functools.cache
def results() -> list[dict]:
    """Return what the two processes saw, by scenario."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        environment = os.environ | {
            "LLM_TUTORIAL_SOURCE": "offline", "LLM_TUTORIAL_DEVICE": "cpu", "LLM_TUTORIAL_PRECISION": "fp32",
            "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                   "--log-dir", f"{folder}/logs", __file__, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr[-5000:]
        return [json.loads(Path(folder, f"seen-{rank}.json").read_text()) for rank in range(2)]


def text_of(number: int) -> str:
    return f"document {number:03} ".ljust(CONTEXT - 1, "x")


def write_files(folder: Path) -> None:
    import pandas as pd

    for name, numbers in (("a", range(DOCUMENTS)), ("b", range(DOCUMENTS, 2 * DOCUMENTS)), ("c", range(2 * DOCUMENTS))):
        rows = [{"id": str(number), "url": "", "title": f"title {number}", "text": text_of(number)}
                for number in numbers]
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


def main(folder: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    from llm_tutorial.device import Device
    from llm_tutorial.presets import PRESETS
    from llm_tutorial.pretraining import _arguments, _trainer
    from llm_tutorial.reporting import quiet
    from llm_tutorial.splits import TrainingData
    from llm_tutorial.streams import packed_stream
    from llm_tutorial.training import preset_tokenizer

    quiet()
    # Bytes and the end-of-text token: a character is a token.
    preset = replace(PRESETS["smoke"], vocabulary=257, context_length=CONTEXT, batch=BATCH,
                     max_steps=2 * DOCUMENTS // BATCH)
    tokenizer = preset_tokenizer(preset, [text_of(0)])
    own = [[*tokenizer(text_of(number))["input_ids"], tokenizer.eos_token_id] for number in range(2 * DOCUMENTS)]
    valid = Dataset.from_dict({"input_ids": own[:8]})

    def trainer(name, train, preset=preset, **changes):
        arguments = _arguments(preset, folder / name, Device("cpu", False, ""), BATCH // 2, 2, len(valid), **(
            {"save_steps": 100, "logging_steps": 1} | changes))
        return _trainer(preset, TrainingData({"train": train, "valid": valid}, tokenizer, name), arguments, 2)

    class Seen(TrainerCallback):
        """The numbers of the documents in each step's share, as the model is given them."""

        def __init__(self, model):
            self.steps = []
            model.register_forward_pre_hook(self.note, with_kwargs=True)

        def note(self, module, args, kwargs):
            if module.training:
                texts = tokenizer.batch_decode(kwargs["input_ids"])
                self.steps.append([int(text.split()[1]) for text in texts])

    def digest(model):
        return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()

    found = {}
    for name, files in (("two files", "ab"), ("one file", "c")):
        stream = packed_stream([str(folder / f"{file}.parquet") for file in files], tokenizer, CONTEXT, buffer_size=8)
        training = trainer(name, stream)
        seen = Seen(training.model)
        training.train()
        found[name] = seen.steps

    training = trainer("muon", Dataset.from_dict({"input_ids": own}))
    seen = Seen(training.model)
    training.train()
    found["muon"] = {
        "wrapper": type(training.model_wrapped).__name__, "optimizer": type(training.optimizer.optimizer).__name__,
        "weights": digest(training.model), "seen": seen.steps,
        "losses": [entry["loss"] for entry in training.state.log_history if "loss" in entry],
        "validation": training.evaluate()["eval_loss"]}

    reciting = replace(preset, max_steps=300, stop_at=0.9, learning_rate=2e-2, muon_lr=2e-2)
    rows = torch.randint(0, 250, (BATCH, CONTEXT), generator=torch.Generator().manual_seed(0)).tolist()
    training = trainer("recited", Dataset.from_dict({"input_ids": rows}), reciting, lr_scheduler_type="constant",
                       eval_strategy="no")
    training.train()
    found["recited"] = {"step": training.state.global_step, "weights": digest(training.model)}

    try:
        trainer("infinite", Dataset.from_dict({"input_ids": own}), replace(preset, learning_rate=1e30)).train()
    except FloatingPointError as error:
        found["infinite"] = str(error)
    torch.distributed.barrier()
    (folder / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
