"""Tiny, seeded models and tokenizers, built in memory, and the settings that every test runs with."""

import pytest
import torch
from datasets import Dataset, DatasetDict
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

# Models this small gain nothing from a second thread, and lose much when the machine is busy.
torch.set_num_threads(1)

SENTENCES = [
    "life is like a box of chocolates.",
    "the swimming pool at the beach is a great way to cool down.",
    "a language model reads the text from left to right.",
    "the box at the beach is like a pool of text.",
]


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """Bundled data only, on the CPU, in fp32."""
    monkeypatch.setenv("LLM_TUTORIAL_SOURCE", "offline")
    monkeypatch.setenv("LLM_TUTORIAL_DEVICE", "cpu")
    monkeypatch.setenv("LLM_TUTORIAL_PRECISION", "fp32")


@pytest.fixture(scope="session")
def masked_tokenizer():
    words = sorted({word for sentence in SENTENCES for word in sentence.rstrip(".").split()})
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "##s", *words]
    return BertTokenizer(vocab={entry: index for index, entry in enumerate(entries)}, model_max_length=32)


@pytest.fixture(scope="session")
def causal_tokenizer():
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=288, special_tokens=["<|endoftext|>"], show_progress=False)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end, pad_token=end, model_max_length=64)


@pytest.fixture
def masked_lm(masked_tokenizer):
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(
        vocab_size=len(masked_tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32, initializer_range=0.5)).eval()


@pytest.fixture
def causal_lm(causal_tokenizer):
    torch.manual_seed(0)
    end = causal_tokenizer.eos_token_id
    # Weights spread wide, so that the best tokens stand apart.
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=len(causal_tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=end, eos_token_id=end, pad_token_id=end)).eval()


@pytest.fixture
def chunks(causal_tokenizer):
    """Ten training and seven validation chunks of 16 ids, without the padding token."""
    torch.manual_seed(0)
    ids = torch.randint(1, len(causal_tokenizer), (17, 16)).tolist()
    return DatasetDict({"train": Dataset.from_dict({"input_ids": ids[:10]}),
                        "valid": Dataset.from_dict({"input_ids": ids[10:]})})
