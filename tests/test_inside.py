"""Lesson 4's own forward passes give the library's logits, also when all weights, biases and norms are drawn anew."""

import ast
import math

import nbformat
import pytest
import torch
from assignments import NOTEBOOKS
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

LESSON = NOTEBOOKS / "solutions" / "04_inside.ipynb"
SIZES = {"vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}


def functions():
    """The functions of the lesson, and its table of activations, without what it computes with them."""
    cells = [cell for cell in nbformat.read(LESSON, as_version=4).cells
             if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", [])]
    statements = [statement for cell in cells if cell.id != "04-colab" for statement in ast.parse(cell.source).body
                  if isinstance(statement, ast.FunctionDef)
                  or (isinstance(statement, ast.Assign) and "ACTIVATIONS" in ast.unparse(statement.targets[0]))]
    names = {"torch": torch, "math": math}
    exec(compile(ast.Module(statements, []), LESSON.name, "exec"), names)
    return names


def bert(**changes):
    return BertForMaskedLM(BertConfig(**SIZES, layer_norm_eps=1e-3, max_position_embeddings=20, **changes))


def gpt2(**changes):
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=50, n_embd=24, n_layer=3, n_head=4, n_positions=20, layer_norm_epsilon=1e-3, **changes))


def llama(**changes):
    return LlamaForCausalLM(LlamaConfig(**{
        **SIZES, "num_key_value_heads": 2, "rms_norm_eps": 1e-3, "max_position_embeddings": 20,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}, **changes}))


@pytest.mark.parametrize(("name", "build", "changes"), [
    ("bert_logits", bert, {}),
    ("bert_logits", bert, {"hidden_act": "gelu_new", "tie_word_embeddings": False}),
    ("gpt2_logits", gpt2, {}),
    ("gpt2_logits", gpt2, {"activation_function": "gelu_pytorch_tanh", "n_inner": 30, "tie_word_embeddings": False}),
    ("llama_logits", llama, {}),
    ("llama_logits", llama, {"num_key_value_heads": 4, "tie_word_embeddings": True, "head_dim": 10}),
    ("llama_logits", llama, {"attention_bias": True, "mlp_bias": True}),
])
def test_logits_by_hand_are_those_of_the_library_with_random_weights_biases_and_norms(name, build, changes):
    torch.manual_seed(0)
    model = build(**changes).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.5)
    ids = torch.randint(50, (11,))
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
    found = functions()[name](ids, model.state_dict(), model.config)
    assert expected.std() > 1e-2
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
