"""Hugging Face's and SentencePiece's tokenizers give the same tables."""

import pytest
from transformers import BertTokenizer

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.vocabularies import (
    HUMAN_RIGHTS,
    TEKKEN_COUNTS,
    cut_table,
    encode,
    entries,
    first_entries,
    merge_list,
    pieces,
    pre_tokenize,
    text_sizes,
    token_counts,
    train_sentencepiece,
    unharmed,
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


def test_no_special_token_is_added(bert):
    assert bert("The cats")["input_ids"] == [2, 7, 5, 6, 3]
    assert encode(bert, "The cats") == [7, 5, 6]
    assert pieces(bert, "The cats 🎉") == ["the", "cat", "##s", "[UNK]"]


def test_ids_and_pieces_of_sentencepiece_agree(sentencepiece):
    ids, cut = encode(sentencepiece, "the cat"), pieces(sentencepiece, "the cat")
    assert [sentencepiece.id_to_piece(i) for i in ids] == cut
    assert "".join(cut) == "▁the▁cat"


def test_pieces_show_the_byte_alphabet(gpt2):
    assert pieces(gpt2, "Swimming at the beach is") == ["Sw", "imming", "Ġat", "Ġthe", "Ġbeach", "Ġis"]
    assert encode(gpt2, "Swimming at the beach is") == [10462, 27428, 379, 262, 10481, 318]


def test_cut_table_says_what_is_lost(bert, gpt2, sentencepiece):
    texts = {"capital": "The cat", "small": "the cat"}
    assert cut_table(gpt2, texts)["decoded again"].tolist() == ["the same", "the same"]
    table = cut_table(bert, texts)
    assert list(table.index) == ["capital", "small"]
    assert table.loc["capital"].tolist() == ["the | cat", 2, "'the cat'"]
    assert table.loc["small", "decoded again"] == "the same"
    assert cut_table(sentencepiece, {"two": "the  cat"})["decoded again"].tolist() == ["'the cat'"]


def test_cut_table_counts_other_tokenizers_beside(bert, gpt2):
    table = cut_table(gpt2, {"small": "the cats"}, beside={"BERT": bert})
    assert table.loc["small"].tolist() == ["the | Ġcats", 2, "the same", 3]
    assert table.columns[-1] == "BERT's count"


def test_words_before_the_merges(bert, gpt2):
    assert pre_tokenize(gpt2, "I'll  pay 12\n") == ["I", "'ll", "Ġ", "Ġpay", "Ġ12", "Ċ"]
    assert pre_tokenize(bert, "Ärger, Straße") == ["arger", ",", "straße"]
    assert pre_tokenize(gpt2, "") == []


def test_counts_are_sums_over_the_texts(bert, gpt2):
    texts = {"both": iter(["the cat", "cats"]), "one": ["é cat"]}
    counts = token_counts({"bert": bert, 2: gpt2}, texts)
    assert counts.to_dict() == {"both": {"bert": 4, 2: len(gpt2.tokenize("the cat")) + len(gpt2.tokenize("cats"))},
                                "one": {"bert": 2, 2: len(gpt2.tokenize("é cat"))}}


def test_unharmed_texts_are_counted(bert, gpt2, sentencepiece):
    texts = iter(["the cat", "The cat", "the  cat"])
    assert unharmed({"bert": bert, "gpt2": gpt2, "sentencepiece": sentencepiece}, texts) == {
        "bert": 1, "gpt2": 3, "sentencepiece": 1}


def test_sizes_in_three_units():
    sizes = text_sizes({"all": iter(["zwei  Wörter", "x"]), "none": []})
    assert sizes["all"].to_dict() == {"words": 3, "characters": 13, "bytes": 14}
    assert sizes["none"].tolist() == [0, 0, 0]


def test_merges_are_in_the_order_learned(gpt2):
    merges = merge_list(gpt2)
    assert merges[:2] == [("Ġ", "t"), ("Ġ", "a")]
    assert len(merges) == len(gpt2) - 257
    small = gpt2.train_new_from_iterator(LINES, 270, show_progress=False)
    assert len(merge_list(small)) == len(small) - 257


def test_wordpiece_has_no_merges(bert):
    with pytest.raises(ValueError, match="BertTokenizer has a model of type WordPiece, which has no merges: give a"):
        merge_list(bert)


def test_entries_are_in_the_order_of_the_ids(gpt2, sentencepiece):
    assert [gpt2.convert_tokens_to_ids(entry) for entry in entries(gpt2)] == list(range(len(gpt2)))
    assert entries(sentencepiece)[:3] == ["<unk>", "<s>", "</s>"]
    assert len(entries(sentencepiece)) == 40


def test_the_first_entries_are_the_tokenizer_trained_at_that_size(gpt2):
    large, small = (gpt2.train_new_from_iterator(LINES, size, show_progress=False) for size in (280, 270))
    cut = first_entries(large, 270)
    assert len(cut) == 270
    assert all(encode(cut, text) == encode(small, text) for text in [*LINES, *HUMAN_RIGHTS.values()])


def test_a_piece_crosses_a_space_only_if_it_may(sentencepiece):
    across = train_sentencepiece(LINES, 60, model_type="bpe", split_by_whitespace=False)
    assert not [entry for entry in entries(sentencepiece) if "▁" in entry[1:]]
    assert [entry for entry in entries(across) if "▁" in entry[1:]]


def test_one_sentence_in_five_languages():
    assert list(HUMAN_RIGHTS) == list(TEKKEN_COUNTS) == ["English", "German", "Finnish", "Chinese", "Hindi"]
    assert all(0 < TEKKEN_COUNTS[language] < len(text) for language, text in HUMAN_RIGHTS.items())
    assert all("  " not in text for text in HUMAN_RIGHTS.values())
