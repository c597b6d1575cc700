"""Tokenizers side by side: Hugging Face's and SentencePiece's have different calls, but give the same tables here."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import GPT2Tokenizer, PreTrainedTokenizerBase

from llm_tutorial.decoding import check_characters

__all__ = ["HUMAN_RIGHTS", "TEKKEN_COUNTS", "cut_table", "encode", "entries", "first_entries", "merge_list", "pieces",
           "pre_tokenize", "text_sizes", "token_counts", "train_sentencepiece", "unharmed"]

AnyTokenizer = PreTrainedTokenizerBase | SentencePieceProcessor

# The first article of the Universal Declaration of Human Rights, in the official translations of the United Nations.
HUMAN_RIGHTS = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
               "conscience and should act towards one another in a spirit of brotherhood.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
              "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki "
               "ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä.",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा "
             "की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
}

# Tokens of these sentences in Tekken, Mistral's byte-level BPE for many languages (131,072 entries). Counted with
# tiktoken 0.14 and the file tekken_240911.json of the package mistral-common 1.13.1, without special tokens.
TEKKEN_COUNTS = {"English": 33, "German": 36, "Finnish": 56, "Chinese": 39, "Hindi": 60}


def encode(tokenizer: AnyTokenizer, text: str) -> list[int]:
    """Return the ids of ``text``, without added tokens such as BERT's ``[CLS]`` and ``[SEP]``."""
    check_characters(text)
    if isinstance(tokenizer, SentencePieceProcessor):
        return tokenizer.encode(text)
    return tokenizer.encode(text, add_special_tokens=False)


def pieces(tokenizer: AnyTokenizer, text: str) -> list[str]:
    """Return the pieces of ``text`` as the vocabulary writes them, such as ``Ġthe``, ``##ing`` or ``▁a``.

    SentencePiece returns unknown pieces as they are in the text, the others return their unknown token.
    """
    if isinstance(tokenizer, SentencePieceProcessor):
        check_characters(text)
        return tokenizer.encode(text, out_type=str)
    return tokenizer.convert_ids_to_tokens(encode(tokenizer, text))


def pre_tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """Return the words that the tokenizer cuts ``text`` into, after its normalization, before it looks for pieces."""
    backend = tokenizer.backend_tokenizer
    normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]


def cut_table(
    tokenizer: AnyTokenizer, texts: Mapping[str, str], *, beside: Mapping[str, AnyTokenizer] | None = None,
) -> pd.DataFrame:
    """Return for each named text its pieces, their number, and the decoded text if it differs.

    One more column for each tokenizer of ``beside`` has its number of pieces.
    """
    rows = []
    for text in texts.values():
        cut, again = pieces(tokenizer, text), tokenizer.decode(encode(tokenizer, text))
        rows.append((" | ".join(cut), len(cut), "the same" if again == text else repr(again)))
    table = pd.DataFrame(rows, columns=["pieces", "count", "decoded again"], index=list(texts))
    for name, other in (beside or {}).items():
        table[f"{name}'s count"] = [len(encode(other, text)) for text in texts.values()]
    return table


def token_counts(tokenizers: Mapping[object, AnyTokenizer], texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return how many tokens each tokenizer (row) needs for each collection of texts (column)."""
    return pd.DataFrame({
        name: {key: sum(len(encode(tokenizer, text)) for text in collection) for key, tokenizer in tokenizers.items()}
        for name, collection in texts.items()
    })


def text_sizes(texts: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return words (between spaces), characters and UTF-8 bytes (rows) of each collection of texts (column)."""
    return pd.DataFrame({
        name: {"words": sum(len(text.split()) for text in collection),
               "characters": sum(map(len, collection)),
               "bytes": sum(len(text.encode()) for text in collection)}
        for name, collection in texts.items()
    })


def unharmed(tokenizers: Mapping[object, AnyTokenizer], texts: Sequence[str]) -> dict[object, int]:
    """Return for each tokenizer how many of the texts its ids decode to exactly."""
    return {key: sum(tokenizer.decode(encode(tokenizer, text)) == text for text in texts)
            for key, tokenizer in tokenizers.items()}


def merge_list(tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """Return the merges of a byte-pair encoding, in the order learned."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] != "BPE":
        raise ValueError(f"{type(tokenizer).__name__} has a model of type {model['type']}, which has no merges: "
                         "give a byte-pair encoding such as GPT-2's.")
    return [tuple(pair) for pair in model["merges"]]


def entries(tokenizer: AnyTokenizer) -> list[str]:
    """Return the vocabulary, in the order of the ids."""
    if isinstance(tokenizer, SentencePieceProcessor):
        return [tokenizer.id_to_piece(number) for number in range(len(tokenizer))]
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


def first_entries(tokenizer: GPT2Tokenizer, size: int) -> GPT2Tokenizer:
    """Return the byte-level BPE that has only the first ``size`` entries of ``tokenizer``, and the merges for them.

    The tokenizer is one that ``train_new_from_iterator`` made: its end-of-text token and 256 bytes come first.
    """
    vocabulary = {entry: number for number, entry in enumerate(entries(tokenizer)[:size])}
    return GPT2Tokenizer(vocab=vocabulary, merges=merge_list(tokenizer)[: size - 257])


def train_sentencepiece(texts: Iterable[str], size: int, **options: object) -> SentencePieceProcessor:
    """Train a SentencePiece model with ``size`` entries; ``options`` are those of ``SentencePieceTrainer.train``.

    One thread: with another number of threads, the unigram model differs slightly.
    """
    model = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, vocab_size=size, num_threads=1,
                               minloglevel=2, **options)
    return SentencePieceProcessor(model_proto=model.getvalue())
