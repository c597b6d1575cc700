"""Playgrounds, driven through their controls: live and static pictures, branches, errors in words."""

import base64
import re
import runpy
from html import unescape

import pytest
import torch
from ipywidgets import HTML, Button, FloatSlider, IntSlider, Text, ToggleButtons, Widget

from llm_tutorial import widgets
from llm_tutorial.decoding import next_tokens, top_predictions
from llm_tutorial.plots import Figure, prediction_bars
from llm_tutorial.widgets import mask_playground, token_playground

TWO_MASKS = "life is like a [MASK] of [MASK]."
PROMPT = "the box at"


@pytest.fixture(autouse=True)
def live(monkeypatch):
    """As in JupyterLab, whatever mode the tests run in."""
    monkeypatch.delenv("LLM_TUTORIAL_DISPLAY", raising=False)


@pytest.fixture
def masks(masked_lm, masked_tokenizer):
    return mask_playground(masked_lm, masked_tokenizer, TWO_MASKS)


@pytest.fixture
def tokens(causal_lm, causal_tokenizer):
    return token_playground(causal_lm, causal_tokenizer, PROMPT)


@pytest.fixture(params=["masks", "tokens"])
def playground(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def passes(masked_lm, causal_lm) -> list:
    """The shape of the input of every forward pass."""
    shapes = []
    for model in (masked_lm, causal_lm):
        model.register_forward_pre_hook(
            lambda _module, _args, inputs: shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True)
    return shapes


def controls(playground, kind) -> list:
    """All controls of a kind in the widget, from top to bottom."""
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    return [widget for widget in walk(playground.widget) if isinstance(widget, kind)]


def field(playground) -> Text:
    return controls(playground, Text)[0]


def drawn(playground) -> list[str]:
    """The names of the bars."""
    return playground.picture.text.partition("probability. ")[2].removesuffix(".").split("; ")


def press(playground, *descriptions: str) -> None:
    """Click the buttons whose descriptions begin so, one after the other."""
    for description in descriptions:
        next(b for b in controls(playground, Button) if b.description.startswith(description)).click()


def offers(playground) -> list[str]:
    return [b.description for b in controls(playground, Button) if b.tooltip == "append this token"]


def shown(playground) -> str:
    """The HTML of the picture or of the message."""
    return controls(playground, HTML)[-1].value


def story(playground) -> str:
    [text] = [html.value for html in controls(playground, HTML) if "Text so far" in html.value]
    return unescape(re.sub("<[^>]*>", "", text)).removeprefix("Text so far: ")


def test_the_picture_is_the_chart_of_top_predictions_with_its_alternative_text(masks, masked_lm, masked_tokenizer):
    best = top_predictions(masked_lm, masked_tokenizer, TWO_MASKS, k=5)
    figure = prediction_bars(best[0], title=f"At mask 1 of 2 in: {TWO_MASKS}")
    assert masks.picture == figure
    alt, png = re.fullmatch(r'<img [^>]*alt="([^"]*)" src="data:image/png;base64,([^"]+)">', shown(masks)).groups()
    assert (unescape(alt), base64.b64decode(png)) == (figure.alt, figure.png)


def test_the_cell_holds_the_widget_and_beside_it_the_picture(playground):
    data, metadata = playground._repr_mimebundle_()
    view = data.pop("application/vnd.jupyter.widget-view+json")
    assert view == {"version_major": 2, "version_minor": 0, "model_id": playground.widget.model_id}
    assert (data, metadata) == playground.picture._repr_mimebundle_()
    field(playground).value = ""
    assert playground._repr_mimebundle_()[0]["text/plain"] == playground.picture


def test_plain_display_is_the_figure_and_makes_no_widget(masked_lm, masked_tokenizer, causal_lm, causal_tokenizer,
                                                         monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_DISPLAY", "plain")
    monkeypatch.setattr(Widget, "open", lambda _: pytest.fail("a widget was made"))
    best = top_predictions(masked_lm, masked_tokenizer, "life is a [MASK].", k=5)[0]
    figure = mask_playground(masked_lm, masked_tokenizer, "life is a [MASK].")
    assert figure == prediction_bars(best, title="At the mask in: life is a [MASK].")
    best = next_tokens(causal_lm, causal_tokenizer, PROMPT, k=8)
    figure = token_playground(causal_lm, causal_tokenizer, PROMPT)
    assert figure == prediction_bars(best, title=f"At temperature 1.0, after: {PROMPT}")
    assert token_playground(causal_lm, causal_tokenizer, "") == "The text is empty: give the model at least one word."
    assert runpy.run_path(widgets.__file__)["__all__"] == widgets.__all__, "none is made at import either"


def test_the_number_of_bars_follows_the_slider_without_another_pass(masks, passes, masked_lm, masked_tokenizer):
    [slider] = controls(masks, IntSlider)
    ranked = [repr(p.token) for p in top_predictions(masked_lm, masked_tokenizer, TWO_MASKS, k=10)[0]]
    passes.clear()
    for count in (3, 10):
        slider.value = count
        assert drawn(masks) == ranked[:count]
    assert passes == []


def test_the_choice_of_masks_follows_the_text(masks):
    [which] = controls(masks, ToggleButtons)
    which.value = 1
    assert "At mask 2 of 2" in masks.picture.alt
    field(masks).value = "a [MASK] and a [MASK] text."
    assert (which.value, which.layout.display) == (1, None)
    field(masks).value = "a [MASK] text."
    assert (which.value, which.layout.display) == (0, "none")
    assert "At the mask in: a [MASK] text." in masks.picture.alt
    field(masks).value = "[MASK] [MASK] [MASK]"
    assert which.options == (("mask 1", 0), ("mask 2", 1), ("mask 3", 2))


def test_temperature_reshapes_one_and_the_same_distribution(tokens, passes, causal_lm, causal_tokenizer):
    [slider] = controls(tokens, FloatSlider)
    with torch.no_grad():
        logits = causal_lm(**causal_tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    passes.clear()
    for temperature in (0.1, 0.5, 2.0):
        slider.value = temperature
        shares = [float(offer.split()[-1]) for offer in offers(tokens)]
        assert shares == pytest.approx((logits / temperature).softmax(dim=-1).topk(8).values.tolist(), abs=6e-4)
    assert passes == []


def test_a_candidate_is_appended_and_taken_back_and_another_branch_taken(tokens, passes, causal_lm, causal_tokenizer):
    ids, first = causal_tokenizer(PROMPT)["input_ids"], next_tokens(causal_lm, causal_tokenizer, PROMPT, k=8)
    start = offers(tokens)
    press(tokens, start[0])
    assert story(tokens) == PROMPT + first[0].token
    best = causal_lm(input_ids=torch.tensor([[*ids, first[0].id]])).logits[0, -1].argmax()
    assert offers(tokens)[0].startswith(repr(causal_tokenizer.decode([best])))
    press(tokens, offers(tokens)[1])
    passes.clear()
    press(tokens, "Back", "Back", "Back")
    assert (story(tokens), offers(tokens), passes) == (PROMPT, start, []), "each text is read once"
    press(tokens, start[3])
    assert story(tokens) == PROMPT + first[3].token
    field(tokens).value = "a language model"
    assert story(tokens) == "a language model", "a new prompt begins a new path"


def test_what_is_wrong_with_a_text_is_said_and_costs_no_pass(playground, passes):
    message = "The text is empty: give the model at least one word."
    field(playground).value = " \t "
    assert playground.picture == message
    assert shown(playground) == f'<p role="alert">{message}</p>'
    assert passes == []
    field(playground).value = "the [MASK] reads"
    assert isinstance(playground.picture, Figure)


def test_a_missing_mask_and_an_error_of_the_model_are_said_in_words(masks, masked_lm, monkeypatch):
    field(masks).value = "no gap here"
    assert masks.picture == "There is no [MASK] in 'no gap here': put one where a word is to be predicted."
    monkeypatch.setattr(masked_lm, "forward", lambda **_: 1 / 0)
    field(masks).value = TWO_MASKS + " "
    assert masks.picture == "ZeroDivisionError: division by zero"


def test_a_path_that_gets_too_long_is_refused_and_taken_back(tokens, passes, monkeypatch, causal_tokenizer):
    monkeypatch.setattr(widgets, "MAX_TOKENS", len(causal_tokenizer(PROMPT)["input_ids"]) + 1)
    press(tokens, offers(tokens)[0])
    at_limit = tokens.picture, offers(tokens)
    passes.clear()
    press(tokens, offers(tokens)[0])
    assert re.fullmatch(r"The text has \d+ tokens, but the playground takes at most \d+: go back or shorten it\.",
                        tokens.picture)
    assert offers(tokens) == ["(none)"] * 8
    press(tokens, "(none)")  # leads nowhere
    assert passes == []
    press(tokens, "Back")
    assert (tokens.picture, offers(tokens)) == at_limit


def test_any_text_is_shown_as_it_is(playground):
    text = "<script>[MASK]</script> & \"q\" '"
    field(playground).value = text
    parts = [shown(playground), *(html.value for html in controls(playground, HTML) if "Text so far" in html.value)]
    assert set(re.findall(r"<(\w+)", "".join(parts).replace("<b></b>", ""))) <= {"p", "img"}
    assert text in unescape("".join(parts))


def test_all_controls_can_be_used_with_the_keyboard_and_keep_the_focus(playground):
    before = controls(playground, object)
    assert not field(playground).continuous_update, "Enter, not each key, starts the model"
    for text in ("", "the [MASK] and [MASK] reads"):
        field(playground).value = text
    for button in controls(playground, Button):
        button.click()
    assert controls(playground, object) == before
    assert not any(button.disabled for button in controls(playground, Button))  # a disabled one loses the focus
    assert all(control.description for control in controls(playground, (Button, FloatSlider, IntSlider, Text)))
