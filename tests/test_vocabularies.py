"""Hugging Face's and SentencePiece's tokenizers through the same calls; the tables stand in lesson 7."""

import pytest
from transformers import BertTokenizer

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.vocabularies import (
    HUMAN_RIGHTS,
    cut_table,
    encode,
    first_entries,
    merge_list,
    pieces,
    train_sentencepiece,
)

LINES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 20


@pytest.fixture(scope="module")
def sentencepiece():
    return train_sentencepiece(LINES, 40, model_type="bpe")


@pytest.fixture(scope="module")
def gpt2():
    return load_gpt2_tokenizer()


@pytest.fixture(scope="module")
def bert():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##s", "the"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def test_ids_and_pieces_have_no_added_tokens_whatever_the_library(bert, gpt2, sentencepiece):
    assert encode(bert, "The cats") == [7, 5, 6]
    assert pieces(bert, "The cats 🎉") == ["the", "cat", "##s", "[UNK]"]
    assert pieces(gpt2, "Swimming at the beach is") == ["Sw", "imming", "Ġat", "Ġthe", "Ġbeach", "Ġis"]
    assert encode(gpt2, "Swimming at the beach is") == [10462, 27428, 379, 262, 10481, 318]
    cut = pieces(sentencepiece, "the cat")
    assert [sentencepiece.id_to_piece(i) for i in encode(sentencepiece, "the cat")] == cut
    assert "".join(cut) == "▁the▁cat"
    assert pieces(sentencepiece, "🎉")[-1] == "🎉", "as it is in the text"


def test_half_of_a_character_is_named(bert, gpt2, sentencepiece):
    for tokenizer in (bert, gpt2, sentencepiece):
        for call in (encode, pieces, lambda tokenizer, text: cut_table(tokenizer, {"mine": text})):
            with pytest.raises(ValueError, match=r"holds '\\ud83d', which is half of a character: write the whole"):
                call(tokenizer, "well done \ud83d")


def test_merges_are_in_the_order_learned_and_wordpiece_has_none(gpt2, bert):
    merges = merge_list(gpt2)
    assert merges[:2] == [("Ġ", "t"), ("Ġ", "a")]
    assert len(merges) == len(gpt2) - 257
    with pytest.raises(ValueError, match="BertTokenizer has a model of type WordPiece, which has no merges: give a"):
        merge_list(bert)


def test_the_first_entries_are_the_tokenizer_trained_at_that_size(gpt2):
    large, small = (gpt2.train_new_from_iterator(LINES, size, show_progress=False) for size in (280, 270))
    cut = first_entries(large, 270)
    assert len(cut) == 270
    assert all(encode(cut, text) == encode(small, text) for text in [*LINES, *HUMAN_RIGHTS.values()])
