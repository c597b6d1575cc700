"""Tokenizers side by side: Hugging Face's and SentencePiece's have different calls, but give the same tables here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pandas as pd
from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizerBase

__all__ = ["cut_table", "encode", "merge_list", "pieces", "text_sizes", "token_counts"]

AnyTokenizer = PreTrainedTokenizerBase | SentencePieceProcessor


def encode(tokenizer: AnyTokenizer, text: str) -> list[int]:
    """Return the ids of ``text``, without added tokens such as BERT's ``[CLS]`` and ``[SEP]``."""
    if isinstance(tokenizer, SentencePieceProcessor):
        return tokenizer.encode(text)
    return tokenizer.encode(text, add_special_tokens=False)


def pieces(tokenizer: AnyTokenizer, text: str) -> list[str]:
    """Return the pieces of ``text`` as the vocabulary writes them, such as ``Ġthe``, ``##ing`` or ``▁a``.

    SentencePiece returns unknown pieces as they are in the text, the others return their unknown token.
    """
    if isinstance(tokenizer, SentencePieceProcessor):
        return tokenizer.encode(text, out_type=str)
    return tokenizer.convert_ids_to_tokens(encode(tokenizer, text))


def cut_table(tokenizer: AnyTokenizer, texts: Mapping[str, str]) -> pd.DataFrame:
    """Return for each named text its pieces, their number, and the decoded text if it differs."""
    rows = []
    for text in texts.values():
        cut, again = pieces(tokenizer, text), tokenizer.decode(encode(tokenizer, text))
        rows.append((" | ".join(cut), len(cut), "the same" if again == text else repr(again)))
    return pd.DataFrame(rows, columns=["pieces", "count", "decoded again"], index=list(texts))


def token_counts(tokenizers: Mapping[object, AnyTokenizer], texts: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Return how many tokens each tokenizer (row) needs for each collection of texts (column)."""
    collections = {name: list(collection) for name, collection in texts.items()}
    return pd.DataFrame({
        name: {key: sum(len(encode(tokenizer, text)) for text in collection) for key, tokenizer in tokenizers.items()}
        for name, collection in collections.items()
    })


def text_sizes(texts: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Return words (between spaces), characters and UTF-8 bytes (rows) of each collection of texts (column)."""
    sizes = {}
    for name, collection in texts.items():
        collection = list(collection)
        sizes[name] = {"words": sum(len(text.split()) for text in collection),
                       "characters": sum(map(len, collection)),
                       "bytes": sum(len(text.encode()) for text in collection)}
    return pd.DataFrame(sizes)


def merge_list(tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """Return the merges of a byte-pair encoding, in the order learned.

    Raises:
        ValueError: the tokenizer is not a byte-pair encoding.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] != "BPE":
        raise ValueError(f"{type(tokenizer).__name__} has a model of type {model['type']}, which has no merges: "
                         "give a byte-pair encoding such as GPT-2's.")
    return [tuple(pair) for pair in model["merges"]]
