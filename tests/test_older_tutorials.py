"""Every row of the page on older tutorials: what the old line does today, and that the new line works."""

import ast
import builtins
import re
from pathlib import Path

import pytest
import torch
import transformers
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, Trainer, TrainingArguments

PAGE = Path(__file__).resolve().parents[1].joinpath("notebooks", "OLDER_TUTORIALS.md").read_text(encoding="utf-8")
ROWS = [re.split(r" \| |<br>→ ", line[2:-2]) for line in PAGE.splitlines() if line.startswith("| `")]
FILES = {"my.txt": "a\nb\n", "wikipedia/wikipedia.py": "", "wikimedia/wikipedia/20231101.en/0.txt": "a\n",
         "wikimedia/wikipedia/README.md": "---\nconfigs: [{config_name: 20231101.en, data_files: '*/*.txt'}]\n---\n"}


class Names(dict):
    def __missing__(self, name):
        return getattr(builtins if hasattr(builtins, name) else transformers, name)


@pytest.fixture
def names(tmp_path, monkeypatch, causal_tokenizer, masked_tokenizer, causal_lm, masked_lm):
    """What the lines of the page use: tiny models, in folders that have the names of repositories, and tiny data."""
    monkeypatch.chdir(tmp_path)
    in_fp16 = GPT2LMHeadModel(causal_lm.config).half()
    for folder, parts in {"gpt2": (causal_tokenizer, causal_lm), "bert": (masked_tokenizer, masked_lm),
                          "stored-in-fp16": [in_fp16], "old-bin": [causal_lm.config]}.items():
        [part.save_pretrained(folder) for part in parts]
    torch.save(causal_lm.state_dict(), "old-bin/pytorch_model.bin")
    torch.save(causal_lm, "whole_model.pt")
    for name, text in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    load, ids, args = AutoModelForCausalLM.from_pretrained, torch.arange(5, 9)[None], TrainingArguments(use_cpu=True)
    return Names(
        model=causal_lm, bert=masked_lm, ids=ids, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        tokenizer=AutoTokenizer.from_pretrained("gpt2", chat_template="{{ messages[0].content }}",
                                               trust_remote_code=False), torch=torch,
        bert_tokenizer=masked_tokenizer, chat=[{"role": "user", "content": "Hi"}], load_dataset=load_dataset,
        Path=Path, args=args, load=load, trainer=Trainer(load("gpt2"), args),
        four_tokens=[{"input_ids": ids[0], "labels": ids[0]}], true_loss=causal_lm(ids, labels=ids).loss.item())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("old", "today", "new"), ROWS, ids=[row[0].strip("`") for row in ROWS])
def test_the_page_says_what_happens(names, old, today, new):
    if refusal := re.match(r"`(\w+Error)(?:: (.+?))?`", today):
        with pytest.raises(Exception, match=refusal[2] and re.escape(refusal[2])) as caught:
            exec(old.strip("`"), {}, names)
        assert refusal[1] in [kind.__name__ for kind in caught.type.__mro__]
    else:
        exec(old.strip("`"), {}, names)
    for expression, value in re.findall(r"`([^`]+)` is `([^`]+)`", today):
        assert repr(eval(expression, {}, names)) == value
    for code in re.findall(r"`([^`]+)`", new):
        if not isinstance(getattr(ast.parse(code).body[0], "value", None), ast.Name):
            exec(code, {}, names)  # a name alone, such as that of a package, is no code
