"""The exercises' own examples: each is what its check takes it for."""

from collections import Counter

import exercise_answers
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from llm_tutorial.checkpoints import load_gpt2_tokenizer
from llm_tutorial.exercises import inside, pretraining, reuse, scaling, tokenization, training_well
from llm_tutorial.optimizers import muon_parameter_groups

SIZES = ((11, 7, 6, 2), (5, 4, 8, 3))


def untrained(vocabulary, positions, width, layers):
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers,
                                      n_head=2, bos_token_id=None, eos_token_id=None))


def test_the_numbers_of_parameters_are_those_of_the_library():
    for sizes in SIZES:
        model = untrained(*sizes)
        assert sum(weight.numel() for weight in model.parameters()) == pretraining._parameters(*sizes)
        [muon, _] = muon_parameter_groups(model, muon_lr=1.0, adamw_lr=1.0)
        shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        assert training_well._muon_weights(shapes) == sum(weight.numel() for weight in muon["params"])


def test_the_numbers_of_weights_of_a_block_are_those_of_the_library():
    for sizes in ((8, 4, 2, 16), (576, 9, 3, 1536), (4096, 32, 8, 14336)):
        config = LlamaConfig(**dict(zip(("hidden_size", "num_attention_heads", "num_key_value_heads",
                                         "intermediate_size"), sizes, strict=True)))
        with torch.device("meta"):
            block = LlamaDecoderLayer(config, layer_idx=0)
        assert sum(weight.numel() for weight in block.parameters()) == inside._block_weights(*sizes)


def test_a_vector_is_rotated_as_in_a_llama():
    assert torch.allclose(exercise_answers.rotate_by_the_library(torch.arange(6.0), 5, 100.0),
                          inside._rotate(torch.arange(6.0), 5, 100.0).float())


def test_the_heads_to_choose_from_are_causal_and_no_two_of_them_are_near_each_other():
    for [attention] in inside._HEADS:
        assert torch.allclose(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))
        assert not attention.triu(1).any()
        first, second = inside._looks(attention, lambda n: n - 1).mean(dim=-1).flatten().topk(2).values
        assert 0.05 < first - second < 0.25


def test_the_gradient_of_the_whole_batch_is_the_weighted_mean():
    weight, inputs = torch.ones(3, requires_grad=True), torch.arange(12.0).reshape(4, 3).sin()
    gradients = [torch.autograd.grad((part @ weight).square().mean(), weight)[0] for part in (inputs[:3], inputs[3:])]
    whole = torch.autograd.grad((inputs @ weight).square().mean(), weight)[0]
    assert torch.allclose(scaling._weighted_sum(gradients, [3, 1]) / 4, whole)


def test_the_merged_matrix_gives_the_same_as_both_paths_of_a_layer():
    for W, A, B, alpha in reuse._MERGED:
        x = torch.randn(W.shape[1], generator=torch.Generator().manual_seed(0))
        assert torch.allclose(reuse._merged(W, A, B, alpha) @ x, W @ x + alpha / len(A) * (B @ (A @ x)), atol=1e-4)


def test_the_most_frequent_pairs_have_no_ties():
    for words in tokenization._WORDS:
        first, second = tokenization._pair_counts(words).most_common(2)
        assert first[1] > second[1], words


def test_every_word_to_cut_has_one_shortest_cut_and_all_kinds_of_words_occur():
    kinds = Counter()
    for word, known in tokenization._FEWEST[:-1]:
        right, taken = tokenization._shortest(word, known), tokenization._greedy(word, known)
        cuts = list(exercise_answers.all_cuts(word, known)) or [["[UNK]"]]
        assert [cut for cut in cuts if len(cut) == len(cuts[0])] == [right]
        assert taken == exercise_answers.greedy(word, known)
        kinds["unknown" if right == ["[UNK]"] else "stuck" if taken == ["[UNK]"] else
              "longer" if len(taken) > len(right) else "greedy"] += 1
    assert set(kinds) == {"unknown", "stuck", "longer", "greedy"}


def test_the_characters_of_bytes_are_those_of_gpt2_and_the_bytes_are_those_of_its_texts():
    gpt2 = load_gpt2_tokenizer()
    assert exercise_answers.byte_table() == tokenization._BYTES
    assert {entry for entry in gpt2.get_vocab() if len(entry) == 1} == set(tokenization._BYTES)
    for text in ("Die Straße führt zum Äquator.", "语言模型\t很有趣 🎉", "".join(map(chr, range(0x180)))):
        assert tokenization._bytes_back(gpt2.tokenize(text)).decode() == text
