"""Surprisals against transformers' losses, and coloured text that is readable without colours, styles or scripts."""

import html
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from transformers import pipeline

from llm_tutorial import surprisal
from llm_tutorial.surprisal import pseudo_perplexity, pseudo_surprisals, surprisal_text, token_surprisals

TEXT = "life is like a box of chocolates."
PAIRS = [("Life", None), (" is", 3.21), (" <b>&", 0.0), (" ch", 8.1), ("ocol", 123.0), ("\n", 1.0), ("New", 4.0)]


class Tags(HTMLParser):
    """Which tags, attributes and style declarations there are, and whether all tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.declarations, self.open = set(), set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.declarations += [dict(part.split(":") for part in value.split(";")) for _, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def as_html(pairs, caption="") -> str:
    return surprisal_text(pairs, caption=caption)._repr_mimebundle_()["text/html"]


def without_styles(text: str) -> str:
    return re.sub(r' style="[^"]*"', "", text)


def luminance(colour: str) -> float:
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_token_surprisals_sum_to_the_loss(causal_lm, causal_tokenizer):
    pairs = token_surprisals(causal_lm, causal_tokenizer, TEXT)
    inputs = causal_tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        loss = causal_lm(**inputs, labels=inputs["input_ids"]).loss.item()
    assert [token for token, _ in pairs] == [causal_tokenizer.decode([i]) for i in inputs["input_ids"][0]]
    assert "".join(token for token, _ in pairs) == TEXT
    assert pairs[0][1] is None
    bits = [bits for _, bits in pairs[1:]]
    assert sum(bits) * math.log(2) / len(bits) == pytest.approx(loss, rel=1e-5)


def test_each_token_surprises_given_those_before_it(causal_lm, causal_tokenizer):
    ids = causal_tokenizer(TEXT, return_tensors="pt")["input_ids"]
    pairs = token_surprisals(causal_lm, causal_tokenizer, TEXT)
    for i in (1, 4, len(pairs) - 1):
        with torch.no_grad():
            probability = causal_lm(ids[:, :i]).logits[0, -1].softmax(dim=-1)[ids[0, i]].item()
        assert 2 ** -pairs[i][1] == pytest.approx(probability, rel=1e-4)


def test_a_text_of_one_token_has_no_surprisal(causal_lm, causal_tokenizer):
    assert token_surprisals(causal_lm, causal_tokenizer, "l") == [("l", None)]


def test_pseudo_surprisals_are_those_of_the_fill_mask_pipeline(masked_lm, masked_tokenizer):
    pairs = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)
    tokens = masked_tokenizer.tokenize(TEXT)
    assert [token for token, _ in pairs] == tokens
    fill = pipeline("fill-mask", model=masked_lm, tokenizer=masked_tokenizer, trust_remote_code=False)
    for i, (token, bits) in enumerate(pairs):
        text = masked_tokenizer.convert_tokens_to_string([*tokens[:i], "[MASK]", *tokens[i + 1:]])
        if token.startswith("##"):  # the mask would not be joined to the word
            continue
        [best] = fill(text, targets=[token])
        assert bits == pytest.approx(-math.log2(best["score"]), rel=1e-4)


def test_pseudo_perplexity_is_the_mean_over_one_pass_per_token(masked_lm, masked_tokenizer):
    ids = masked_tokenizer(TEXT, return_tensors="pt")["input_ids"]
    losses = []
    for i in range(1, ids.shape[1] - 1):
        masked, labels = ids.clone(), torch.full_like(ids, -100)
        masked[0, i], labels[0, i] = masked_tokenizer.mask_token_id, ids[0, i]
        with torch.no_grad():
            losses.append(masked_lm(input_ids=masked, labels=labels).loss.item())
    bits = [bits for _, bits in pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)]
    assert bits == pytest.approx([loss / math.log(2) for loss in losses], rel=1e-4)
    assert pseudo_perplexity(masked_lm, masked_tokenizer, TEXT) == pytest.approx(
        math.exp(sum(losses) / len(losses)), rel=1e-4)


@pytest.mark.parametrize(("rows", "tokens", "sizes"), [(32, 2048, [8]), (3, 2048, [3, 3, 2]), (32, 25, [2] * 4),
                                                       (32, 1, [1] * 8)])
def test_batches_are_limited_and_change_nothing(rows, tokens, sizes, masked_lm, masked_tokenizer, monkeypatch):
    expected = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)
    seen, forward = [], masked_lm.forward

    def watch(**inputs):
        seen.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(masked_lm, "forward", watch)
    monkeypatch.setattr(surprisal, "_BATCH", (rows, tokens))
    pairs = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)
    assert seen == sizes
    assert [bits for _, bits in pairs] == pytest.approx([bits for _, bits in expected], rel=1e-4)


def test_unknown_words_have_a_surprisal_too(masked_lm, masked_tokenizer):
    tokens = [token for token, _ in pseudo_surprisals(masked_lm, masked_tokenizer, "life is zebra")]
    assert tokens == ["life", "is", "[UNK]"]


def test_models_in_training_are_read_without_dropout(causal_lm, causal_tokenizer, masked_lm, masked_tokenizer):
    expected = pseudo_surprisals(masked_lm, masked_tokenizer, TEXT)
    assert pseudo_surprisals(masked_lm.train(), masked_tokenizer, TEXT) == expected
    assert masked_lm.training
    token_surprisals(causal_lm.train(), causal_tokenizer, TEXT)
    assert causal_lm.training


def test_a_certain_token_has_zero_bits_without_a_sign():
    [bits] = surprisal._bits(torch.tensor([[1000.0, 0.0]]), torch.tensor([0]))
    assert str(bits) == "0.0"


def test_bad_texts_and_models_are_refused(causal_lm, causal_tokenizer, masked_lm, masked_tokenizer):
    with pytest.raises(ValueError, match="use pseudo_surprisals"):
        token_surprisals(masked_lm, masked_tokenizer, TEXT)
    with pytest.raises(ValueError, match="use token_surprisals"):
        pseudo_surprisals(causal_lm, causal_tokenizer, TEXT)
    with pytest.raises(ValueError, match=r"There is a \[MASK\] in"):
        pseudo_surprisals(masked_lm, masked_tokenizer, "life is [MASK]")
    with pytest.raises(ValueError, match="No token is left of"):
        pseudo_surprisals(masked_lm, masked_tokenizer, "\x07")
    for call, pair in ((token_surprisals, (causal_lm, causal_tokenizer)),
                       (pseudo_surprisals, (masked_lm, masked_tokenizer)),
                       (pseudo_perplexity, (masked_lm, masked_tokenizer))):
        with pytest.raises(ValueError, match="The text is empty"):
            call(*pair, "")
        with pytest.raises(ValueError, match="but the model reads at most"):
            call(*pair, TEXT * 20)


@pytest.mark.parametrize("bits", [-0.5, float("nan")])
def test_numbers_that_are_no_surprisal_are_refused(bits):
    with pytest.raises(ValueError, match="a surprisal is 0 or more"):
        surprisal_text([("a", bits)])
    with pytest.raises(ValueError, match="There is nothing to show"):
        surprisal_text([])


def test_plain_text_is_one_line_with_the_numbers():
    bundle = surprisal_text(PAIRS, caption="A caption.")._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert bundle["text/plain"] == "A caption.: Life(–) is(3.2) <b>&(0.0) ch(8.1)ocol(123.0)↵(1.0)New(4.0)"
    assert str(surprisal_text([("box", 1.0), ("##s", 2.0)])) == "box(1.0) ##s(2.0)"


def test_the_html_needs_nothing_that_notebooks_remove():
    tags = Tags(as_html(PAIRS, "A <caption> & more"))
    assert tags.tags <= {"div", "span", "sub", "small", "b"}
    assert tags.attributes == {"style"}
    assert not tags.open


def test_everything_is_escaped():
    text = as_html([("<script>", 1.0), ("&amp;", 2.0), ('"', 3.0)], "<i>")
    for raw in ("<script>", "&amp;", '"', "<i>"):
        assert html.escape(raw) in text
    assert not re.search("<script|<i>", text)


@pytest.mark.parametrize("pairs", [PAIRS, [("box", 1.0), ("##s", 2.04)]])
def test_without_styles_words_numbers_and_lines_remain(pairs):
    bare = html.unescape(re.sub("<[^>]*>", "", without_styles(as_html(pairs)).replace("</div>", "\n")))
    gap = " " if pairs[0][0] == "box" else ""
    expected = gap.join(f"{token}{'–' if bits is None else f'{bits:.1f}'}" for token, bits in pairs)
    lines = re.sub("\n(?=[0-9])", "↵", expected).replace("↵1.0", "↵1.0\n").splitlines()
    assert bare.splitlines()[:len(lines)] == lines
    assert re.search("below 1, 1 to 2, 2 to 4, 4 to 8, 8 to 16, 16 and more", bare)


@pytest.mark.parametrize(("background", "colour"), [*surprisal._STEPS, surprisal._UNKNOWN])
def test_every_step_can_be_read_on_light_and_dark_pages(background, colour):
    low, high = sorted([luminance(background), luminance(colour)])
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_steps_get_darker_and_their_lines_thicker():
    shades = [luminance(background) for background, _ in surprisal._STEPS]
    assert all(a > 1.2 * b for a, b in pairwise(shades))
    pairs = [("a", bits) for bits in (0.5, 1, 2, 4, 8, 16)]
    spans = [one for one in Tags(as_html(pairs)).declarations if "border-bottom" in one][:6]
    assert [one["border-bottom"].split("px")[0] for one in spans] == list("012345")
    assert len({int(one["border-bottom"].split("px")[0]) + int(one["margin-bottom"][:-2]) for one in spans}) == 1


@pytest.mark.parametrize(("bits", "step"), [(None, None), (0.0, 0), (0.94, 0), (0.96, 1), (1.0, 1), (1.99, 2), (3.9, 2),
                                            (4.0, 3), (8.0, 4), (15.94, 4), (16.0, 5), (math.inf, 5)])
def test_the_colour_is_that_of_the_number_shown(bits, step):
    background, colour = surprisal._UNKNOWN if step is None else surprisal._STEPS[step]
    first = next(one for one in Tags(as_html([("a", bits)])).declarations if "background-color" in one)
    assert (first["background-color"], first["color"]) == (background, colour)


@pytest.mark.parametrize(("token", "shown"), [
    (" a", " a"), ("  ", "␣␣"), ("", "∅"), ("\n", "↵"), ("\n\n", "↵↵"), ("\t", "⇥"), ("\x00", "\\x00"),
    ("\u200b", "\\u200b"), ("漢🙂é", "漢🙂é"), ("\ufffd", "\ufffd"), ("$x$", "$x$"),
])
def test_tokens_that_leave_no_mark_get_one(token, shown):
    assert surprisal._visible(token) == shown
    assert f">{shown}</span>" in as_html([(token, 1.0)])


def test_parts_of_a_character_are_shown_and_explained(causal_lm, causal_tokenizer):
    pairs = token_surprisals(causal_lm, causal_tokenizer, "life 漢")
    assert sum(token == "\N{REPLACEMENT CHARACTER}" for token, _ in pairs) == 3
    assert as_html(pairs).count("\N{REPLACEMENT CHARACTER}") == 4
    assert "part of a character" in as_html(pairs)
    assert "part of a character" not in as_html(PAIRS)
