"""Tokenizers that another run saved."""

import json

import pytest
from transformers import PreTrainedTokenizerFast

from llm_tutorial.saved_tokenizers import load_saved_tokenizer


@pytest.fixture
def saved(causal_tokenizer, tmp_path):
    causal_tokenizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_it_is_the_tokenizer_that_was_saved(causal_tokenizer, saved):
    found = load_saved_tokenizer(saved, 288)
    assert found.get_vocab() == causal_tokenizer.get_vocab()
    assert found("the box at Ünïcödé")["input_ids"] == causal_tokenizer("the box at Ünïcödé")["input_ids"]
    assert found.pad_token == found.eos_token == "<|endoftext|>"
    assert load_saved_tokenizer(str(saved)).get_vocab() == found.get_vocab()


def test_the_end_of_text_lends_itself_as_padding(causal_tokenizer, tmp_path):
    end = "<|endoftext|>"
    tokens = causal_tokenizer.backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token=end).save_pretrained(tmp_path)
    assert load_saved_tokenizer(tmp_path).pad_token == end


def test_the_folder_may_be_below_the_home_folder(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    monkeypatch.setenv("USERPROFILE", str(saved.parent))
    assert len(load_saved_tokenizer("~/saved")) == 288


@pytest.mark.parametrize("name", ["nowhere", "empty", "saved/tokenizer.json"])
def test_a_missing_one_is_named(saved, name):
    (saved.parent / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{name}.tokenizer\.json does not exist .*name a folder with a saved"):
        load_saved_tokenizer(saved.parent / name)


@pytest.mark.parametrize("damaged", ["", "{", "[]", "{}", "whole"])
def test_a_damaged_one_is_named(saved, damaged):
    file = saved / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8")[:-100] if damaged == "whole" else damaged, encoding="utf-8")
    with pytest.raises(ValueError, match=r"The tokenizer in .*saved cannot be read .*save it again, or name another"):
        load_saved_tokenizer(saved)


def test_code_beside_it_is_not_run(saved, tmp_path):
    settings = saved / "tokenizer_config.json"
    described = json.loads(settings.read_text(encoding="utf-8"))
    described |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
    settings.write_text(json.dumps(described), encoding="utf-8")
    (saved / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"saved cannot be read .*contains custom code.*: save it again, or name"):
        load_saved_tokenizer(saved)
    assert not (tmp_path / "ran").exists()


def test_another_number_of_entries_is_named(saved):
    with pytest.raises(ValueError, match="has 288 entries, but vocabulary=4,096: set the vocabulary to 288, or name"):
        load_saved_tokenizer(saved, 4096)


def test_one_without_an_end_of_text_is_named(causal_tokenizer, tmp_path):
    PreTrainedTokenizerFast(tokenizer_object=causal_tokenizer.backend_tokenizer).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no end-of-text token to put between documents: set its eos_token"):
        load_saved_tokenizer(tmp_path)
