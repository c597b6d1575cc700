"""Vectors of texts, rows of questions and answers, and LoRA, each against another way to get them."""

import re

import peft
import pytest
import torch
from torch.nn.functional import normalize
from transformers import LlamaConfig, LlamaForCausalLM

from llm_tutorial import finetuning

TEMPLATE = ("{% for m in messages %}{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
            "{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}assistant\n{% endif %}")
PAIRS = [("what is a box?", "a pool of chocolates."), ("the beach?", "life.")]


@pytest.fixture
def chat_tokenizer(causal_tokenizer):
    causal_tokenizer.chat_template = TEMPLATE
    yield causal_tokenizer
    causal_tokenizer.chat_template = None


@pytest.fixture
def llama(causal_tokenizer):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(causal_tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)).eval()


def test_vectors_equal_those_of_each_text_alone(masked_lm, masked_tokenizer):
    texts = ["life is like a box of chocolates.", "pool", "the swimming pool at the beach is a great way"]
    alone = []
    for text in texts:
        inputs = masked_tokenizer(text, truncation=True, max_length=8, return_tensors="pt")
        with torch.no_grad():
            alone.append(masked_lm.bert(**inputs).last_hidden_state[0].mean(dim=0))
    found = finetuning.embed(masked_lm.train(), masked_tokenizer, texts, max_length=8, batch_size=2)
    assert torch.allclose(found, normalize(torch.stack(alone), dim=-1), atol=1e-5)
    assert masked_lm.training


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("model", ["causal_lm", "llama"])
def test_lora_equals_peft(model, request):
    """With equal A and B, the outputs, the gradients and the merged matrices are equal."""
    ours = request.getfixturevalue(model)
    theirs = type(ours)(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    weights = finetuning.add_lora(ours, rank=3, alpha=6)
    config = peft.LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=model == "causal_lm")
    theirs = peft.get_peft_model(theirs, config).eval()
    theirs_of = dict(theirs.base_model.model.named_modules())
    for name, module in ours.named_modules():
        if isinstance(module, finetuning.LoRA):
            torch.nn.init.normal_(module.B)
            theirs_of[name].lora_A["default"].weight.data.copy_(module.A.data)
            theirs_of[name].lora_B["default"].weight.data.copy_(module.B.data)
    ids = torch.arange(12).view(2, 6)
    outputs = [each(input_ids=ids, labels=ids) for each in (ours, theirs)]
    assert torch.allclose(outputs[0].logits, outputs[1].logits, atol=1e-4)
    for output in outputs:
        output.loss.backward()
    gradients = [weight.grad for name, weight in theirs.named_parameters() if weight.requires_grad]
    assert len(gradients) == len(weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert torch.allclose(weight.grad, gradient, atol=1e-4)
    assert sum(weight.grad is not None for weight in ours.parameters()) == len(weights)
    finetuning.merge_lora(ours)
    merged = theirs.merge_and_unload().state_dict()
    assert ours.state_dict().keys() == merged.keys()
    assert all(torch.allclose(weight, merged[name], atol=1e-5) for name, weight in ours.state_dict().items())


def test_lora_around_some_layers_changes_nothing_at_the_start(causal_lm):
    ids = torch.arange(8)[None]
    before = causal_lm(input_ids=ids).logits
    finetuning.add_lora(causal_lm, rank=2, alpha=4, targets=["c_attn"])
    assert torch.equal(causal_lm(input_ids=ids).logits, before)
    assert sum(weight.requires_grad for weight in causal_lm.parameters()) == 2 * causal_lm.config.n_layer


def test_labels_are_those_of_the_assistants_tokens(chat_tokenizer):
    for row, (question, answer) in zip(finetuning.chat_dataset(chat_tokenizer, PAIRS), PAIRS, strict=True):
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        whole = chat_tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
        assert row["input_ids"] == whole["input_ids"]
        labels = [i if of_answer else -100
                  for i, of_answer in zip(whole["input_ids"], whole["assistant_masks"], strict=True)]
        assert row["labels"] == labels
        assert row["labels"][-1] == chat_tokenizer.eos_token_id


def test_padding_does_not_change_the_loss(chat_tokenizer, causal_lm):
    rows = list(finetuning.chat_dataset(chat_tokenizer, PAIRS))
    total = count = 0
    for row in rows:
        labels = torch.tensor([row["labels"]])
        tokens = (labels[:, 1:] != -100).sum().item()
        total += causal_lm(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss.item() * tokens
        count += tokens
    batch = finetuning.padded_batch(rows, padding=5)
    assert batch["attention_mask"].sum() == sum(len(row["input_ids"]) for row in rows)
    assert causal_lm(**batch).loss.item() == pytest.approx(total / count, abs=1e-4)


BAD = {
    "-100": lambda _t, _m: finetuning.padded_batch([{"input_ids": [1, 2], "labels": [-100, -100]}], 0),
    "no chat template": lambda t, _m: finetuning.chat_dataset(t, PAIRS),
    "writes no answer": lambda t, _m: finetuning.chat_dataset(t, PAIRS),
    "all labels would be": lambda t, _m: finetuning.chat_dataset(t, [("a pool " * 30, "life")], 20),
    "lose its end": lambda t, _m: finetuning.chat_dataset(t, [("a", "the beach " * 30)], 50),
    "rank=0": lambda _t, m: finetuning.add_lora(m, 0, 1),
    "rank=33": lambda _t, m: finetuning.add_lora(m, 33, 1),
    "targets=['q']": lambda _t, m: finetuning.add_lora(m, 2, 1, ["q"]),
    "LoRA already": lambda _t, m: [finetuning.add_lora(m, 2, 1) for _ in "ab"],
    "at least two": lambda _t, _m: finetuning.class_numbers(["a", "a"], ["a", "b"]),
    "all of them among": lambda _t, _m: finetuning.class_numbers(["a", "c"], ["a", "b"]),
    "0 texts": lambda t, m: finetuning.embed(m, t, []),
    "max_length=65": lambda t, m: finetuning.embed(m, t, ["a"], max_length=65),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_input_is_named(message, chat_tokenizer, causal_lm):
    templates = {"no chat template": None, "writes no answer": "{{ messages[0].content }}"}
    chat_tokenizer.chat_template = templates.get(message, TEMPLATE)
    with pytest.raises(ValueError, match=re.escape(message.replace("-", "−"))):
        BAD[message](chat_tokenizer, causal_lm)
    assert all(weight.requires_grad for weight in causal_lm.parameters()) or message == "LoRA already"
