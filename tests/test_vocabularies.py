"""Hugging Face's and SentencePiece's tokenizers give the same tables."""

import io

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import BertTokenizer

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.vocabularies import cut_table, encode, merge_list, pieces, text_sizes, token_counts

LINES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"] * 20


@pytest.fixture(scope="module")
def sentencepiece():
    model = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=model, vocab_size=40, model_type="bpe",
                               num_threads=1, minloglevel=2)
    return SentencePieceProcessor(model_proto=model.getvalue())


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


def test_counts_are_sums_over_the_texts(bert, gpt2):
    texts = {"both": iter(["the cat", "cats"]), "one": ["é cat"]}
    counts = token_counts({"bert": bert, 2: gpt2}, texts)
    assert counts.to_dict() == {"both": {"bert": 4, 2: len(gpt2.tokenize("the cat")) + len(gpt2.tokenize("cats"))},
                                "one": {"bert": 2, 2: len(gpt2.tokenize("é cat"))}}


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
