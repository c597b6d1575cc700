"""Playgrounds, driven through their controls: live picture and twin, branches, debounce, errors in words."""

import asyncio
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
from llm_tutorial.widgets import Playground, mask_playground, token_playground

VIEW = "application/vnd.jupyter.widget-view+json"
TWO_MASKS = "life is like a [MASK] of [MASK]."
PROMPT = "the box at"


@pytest.fixture(autouse=True)
def sketched(monkeypatch):
    """Figures that say what they are of but cost no drawing."""
    def sketch(predictions, *, caption):
        names = ", ".join(repr(p.token) for p in predictions)
        return Figure(repr((predictions, caption)).encode(), f"{len(predictions)} most probable tokens: {names}, in")

    monkeypatch.setattr(widgets, "prediction_bars", sketch)


@pytest.fixture
def drawn(monkeypatch):
    """Figures as readers see them."""
    monkeypatch.setattr(widgets, "prediction_bars", prediction_bars)


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

    def note(_module, _args, kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))

    for model in (masked_lm, causal_lm):
        model.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


def controls(playground, kind) -> list:
    """All controls of a kind in the widget, from top to bottom."""
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    return [widget for widget in walk(playground.widget) if isinstance(widget, kind)]


def field(playground) -> Text:
    [text] = controls(playground, Text)
    return text


def back(playground) -> Button:
    [button] = [b for b in controls(playground, Button) if b.description.startswith("Back")]
    return button


def candidates(playground) -> list:
    return [b for b in controls(playground, Button) if not b.description.startswith("Back")]


def offers(playground) -> list[str]:
    return [button.description for button in candidates(playground)]


def page(playground) -> str:
    """All HTML that the widget shows."""
    return "\n".join(html.value for html in controls(playground, HTML))


def live_pictures(playground) -> list[tuple[bytes, str]]:
    """Bytes and alternative text of each image."""
    return [(base64.b64decode(png), unescape(alt)) for alt, png in
            re.findall(r'<img [^>]*alt="([^"]*)" src="data:image/png;base64,([^"]+)">', page(playground))]


def alert(playground) -> str:
    """What the widget says in place of a picture."""
    [text] = re.findall(r'<p role="alert">(.*?)</p>', page(playground), re.DOTALL)
    assert not live_pictures(playground)
    assert playground.twin() is None
    return unescape(text)


def assert_live_equals_twin(playground):
    twin = playground.twin()
    assert live_pictures(playground) == [(twin.png, twin.alt)]


def story(playground) -> str:
    [text] = re.findall(r"Text so far: (.*?)</p>", page(playground), re.DOTALL)
    return unescape(re.sub("</?b>", "", text))


@pytest.mark.usefixtures("drawn")
def test_the_live_picture_is_the_twin_and_stays_it(playground):
    before = playground.twin()
    assert_live_equals_twin(playground)
    field(playground).value = "the [MASK] reads"
    assert_live_equals_twin(playground)
    assert playground.twin() != before


@pytest.mark.usefixtures("drawn")
def test_the_twin_of_masks_is_the_chart_of_top_predictions(masks, masked_lm, masked_tokenizer):
    best = top_predictions(masked_lm, masked_tokenizer, TWO_MASKS, k=5)
    assert masks.twin() == prediction_bars(best[0], caption=f"At mask 1 of 2 in: {TWO_MASKS}")


def test_the_number_of_bars_follows_the_slider_without_another_pass(masks, masked_lm, masked_tokenizer, passes):
    [slider] = controls(masks, IntSlider)
    assert (slider.min, slider.max) == (3, 10)
    ranked = [p.token for p in top_predictions(masked_lm, masked_tokenizer, TWO_MASKS, k=10)[0]]
    passes.clear()
    for k in (3, 10):
        slider.value = k
        assert f"{k} most probable tokens: {', '.join(map(repr, ranked[:k]))}, in" in masks.twin().alt
        assert_live_equals_twin(masks)
    assert passes == []


@pytest.mark.usefixtures("drawn")
def test_each_mask_can_be_chosen(masks, masked_lm, masked_tokenizer, passes):
    [which] = controls(masks, ToggleButtons)
    assert which.options == (("mask 1", 0), ("mask 2", 1))
    which.value = 1
    assert passes == []
    best = top_predictions(masked_lm, masked_tokenizer, TWO_MASKS, k=5)
    assert masks.twin() == prediction_bars(best[1], caption=f"At mask 2 of 2 in: {TWO_MASKS}")
    assert_live_equals_twin(masks)


def test_the_choice_of_masks_follows_the_text(masks):
    [which] = controls(masks, ToggleButtons)
    which.value = 1
    field(masks).value = "a [MASK] and a [MASK] text."
    assert which.value == 1
    field(masks).value = "a [MASK] text."
    assert (which.options, which.value) == ((("mask 1", 0),), 0)
    assert_live_equals_twin(masks)
    field(masks).value = "[MASK] [MASK] [MASK]"
    assert [label for label, _ in which.options] == ["mask 1", "mask 2", "mask 3"]
    which.value = 2
    assert_live_equals_twin(masks)


def test_fewer_masks_than_the_one_chosen_are_no_error_while_typing(masks):
    async def main():
        controls(masks, ToggleButtons)[0].value = 1
        field(masks).value = "a [MASK] text."
        assert "most probable" in masks.twin().alt

    asyncio.run(main())


@pytest.mark.usefixtures("drawn")
def test_the_candidates_are_those_of_next_tokens(tokens, causal_lm, causal_tokenizer):
    best = next_tokens(causal_lm, causal_tokenizer, PROMPT, k=8)
    assert [offer.split()[-1] for offer in offers(tokens)] == [f"{p.probability:.3f}" for p in best]
    assert all(offer.startswith(repr(p.token)) for offer, p in zip(offers(tokens), best, strict=True))
    assert tokens.twin() == prediction_bars(best, caption=f"At temperature 1.0, after: {PROMPT}")


@torch.no_grad()
def test_temperature_reshapes_one_and_the_same_distribution(tokens, causal_lm, causal_tokenizer, passes):
    [slider] = controls(tokens, FloatSlider)
    assert (slider.min, slider.max) == (0.1, 2.0)
    logits = causal_lm(**causal_tokenizer(PROMPT, return_tensors="pt")).logits[0, -1]
    passes.clear()
    sums = []
    for temperature in (0.1, 0.5, 2.0):
        slider.value = temperature
        shares = (logits / temperature).softmax(dim=-1)
        assert float(shares.sum()) == pytest.approx(1, abs=1e-5)
        shown = [float(offer.split()[-1]) for offer in offers(tokens)]
        assert shown == pytest.approx(shares.topk(8).values.tolist(), abs=6e-4)
        assert_live_equals_twin(tokens)
        sums.append(sum(shown))
    assert passes == []
    assert 1.005 > sums[0] > sums[1] > sums[2] > 0
    assert sums[0] > sums[2] + 0.1


def test_a_candidate_is_appended_and_taken_back_and_another_branch_taken(tokens, causal_lm, causal_tokenizer):
    ids = causal_tokenizer(PROMPT)["input_ids"]
    start, first = offers(tokens), next_tokens(causal_lm, causal_tokenizer, PROMPT, k=8)
    candidates(tokens)[0].click()
    assert story(tokens) == PROMPT + first[0].token
    best = causal_lm(torch.tensor([[*ids, first[0].id]])).logits[0, -1].argmax()
    assert offers(tokens)[0].startswith(repr(causal_tokenizer.decode([best])))
    candidates(tokens)[1].click()
    candidates(tokens)[2].click()
    deep = story(tokens)
    assert_live_equals_twin(tokens)
    for _ in range(3):
        back(tokens).click()
    assert (story(tokens), offers(tokens)) == (PROMPT, start)
    candidates(tokens)[3].click()
    assert story(tokens) == PROMPT + first[3].token
    assert not deep.startswith(story(tokens))
    assert_live_equals_twin(tokens)


def test_candidates_with_the_same_text_are_told_apart_as_in_the_picture(tokens, causal_tokenizer, monkeypatch):
    assert len({offer.rsplit(" ", 1)[0] for offer in offers(tokens)}) == 8
    decode = type(causal_tokenizer).decode
    monkeypatch.setattr(type(causal_tokenizer), "decode", lambda self, ids: decode(self, ids)[:1])
    field(tokens).value = "a"
    names = [offer.rsplit(" ", 1)[0] for offer in offers(tokens)]
    assert len(set(names)) == 8
    assert any(re.fullmatch(r"'.' \(\d+\)", name) for name in names)
    assert any(re.fullmatch(r"'.'", name) for name in names)


def test_back_at_the_prompt_changes_nothing(tokens):
    before = page(tokens), offers(tokens)
    back(tokens).click()
    assert (page(tokens), offers(tokens)) == before


def test_appended_ids_are_read_as_they_are_not_tokenized_again(tokens, causal_tokenizer, passes):
    for _ in range(6):
        candidates(tokens)[0].click()
    length = len(causal_tokenizer(PROMPT)["input_ids"])
    assert passes == [(1, length + more) for more in range(7)][1:]


def test_a_new_prompt_begins_a_new_path(tokens):
    candidates(tokens)[0].click()
    field(tokens).value = "a language model"
    assert story(tokens) == "a language model"


def test_a_text_seen_before_costs_no_pass(playground, passes):
    for text in ("the [MASK] reads", "the [MASK] pool", "the [MASK] reads", "the [MASK] pool"):
        field(playground).value = text
    assert len(passes) == 2


def test_branches_seen_before_cost_no_pass(tokens, passes):
    for _ in range(3):
        candidates(tokens)[0].click()
        back(tokens).click()
    assert len(passes) == 1


def test_the_controls_stay_the_same_objects(playground):
    before = controls(playground, object)
    for text in ("", "the [MASK] and [MASK] reads"):
        field(playground).value = text
    for button in controls(playground, Button):
        button.click()
    assert controls(playground, object) == before
    assert not any(button.disabled for button in controls(playground, Button))  # a disabled one loses the focus


def test_all_controls_have_a_label(playground):
    kinds = (Button, FloatSlider, IntSlider, Text)
    assert all(control.description for control in controls(playground, kinds))


@pytest.mark.parametrize(("text", "message"), [
    ("", "The text is empty: give the model at least one word."),
    (" \t ", "The text is empty: give the model at least one word."),
    ("a b " * 251, "The text has 1,004 characters, but the playground takes at most 1,000: shorten it."),
])
def test_errors_of_any_text_are_words_and_cost_no_pass(playground, passes, text, message):
    field(playground).value = text
    assert alert(playground) == message
    assert passes == []
    field(playground).value = "the [MASK] reads"
    assert "alert" not in page(playground)
    assert_live_equals_twin(playground)


@pytest.mark.parametrize(("text", "message"), [
    ("no gap here", "There is no [MASK] in 'no gap here': put one where a word is to be predicted."),
    ("[MASK] " + "a " * 60, "The text has 63 tokens, but the playground takes at most 32: shorten it."),
])
def test_errors_of_masked_texts(masks, passes, text, message):
    field(masks).value = text
    assert alert(masks) == message
    assert passes == []


def test_a_path_that_gets_too_long_is_refused_and_taken_back(tokens, causal_tokenizer, passes, monkeypatch):
    monkeypatch.setattr(widgets, "MAX_TOKENS", len(causal_tokenizer(PROMPT)["input_ids"]) + 1)
    candidates(tokens)[0].click()
    at_limit = page(tokens), offers(tokens)
    passes.clear()
    candidates(tokens)[0].click()
    assert re.fullmatch(r"The text has \d+ tokens, but the playground takes at most \d+: go back or shorten it\.",
                        alert(tokens))
    assert offers(tokens) == ["(none)"] * 8
    candidates(tokens)[0].click()  # leads nowhere
    assert passes == []
    back(tokens).click()
    assert (page(tokens), offers(tokens)) == at_limit


@pytest.mark.parametrize("error", [ValueError("x < y"), RuntimeError("x < y"), IndexError("x < y")])
def test_no_exception_leaves_a_callback(playground, monkeypatch, error):
    def fail(**_):
        raise error

    assert playground.widget
    monkeypatch.setattr(playground._model, "forward", fail)
    field(playground).value = "the [MASK] pool"
    assert alert(playground) == ("x < y" if type(error) is ValueError else f"{type(error).__name__}: x < y")
    for button in controls(playground, Button):
        button.click()
    assert "x &lt; y" in page(playground)


def test_a_model_without_mask_is_explained(causal_lm, causal_tokenizer):
    assert "has no mask token" in alert(mask_playground(causal_lm, causal_tokenizer, "a [MASK]"))


@pytest.mark.parametrize("text", ["<b>[MASK]</b> & \"q\" '", "<script>x</script>", "<b>"])
def test_text_of_the_reader_is_escaped(playground, text):
    field(playground).value = text
    without = page(playground).replace("<b></b>", "")
    assert "<b>" not in without
    assert "<script" not in without
    assert set(re.findall(r"<(\w+)", without)) <= {"p", "img"}


def test_tokens_are_escaped(tokens, causal_tokenizer, monkeypatch):
    monkeypatch.setattr(type(causal_tokenizer), "decode", lambda _, ids: '<i>"' * len(ids))
    candidates(tokens)[0].click()
    assert "<i>" not in page(tokens)
    assert story(tokens) == PROMPT + '<i>"'
    assert live_pictures(tokens) == [(tokens.twin().png, tokens.twin().alt)]


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("text", ["$x$ [MASK] \\alpha", "漢字 🙂 [MASK]", "line\nbreak [MASK]", "a " * 20 + "[MASK]"])
def test_any_text_gives_a_picture_or_words(playground, text):
    field(playground).value = text
    assert len(live_pictures(playground)) + page(playground).count("alert") == 1


def test_plain_display_shows_the_twin_and_makes_no_widget(playground, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_DISPLAY", "plain")
    monkeypatch.setattr(Widget, "open", lambda _: pytest.fail("a widget was made"))
    assert playground._repr_mimebundle_() == playground.twin()._repr_mimebundle_()
    assert set(playground._repr_mimebundle_()[0]) == {"image/png", "text/plain"}


def test_no_widget_is_made_at_import(monkeypatch):
    monkeypatch.setattr(Widget, "open", lambda _: pytest.fail("a widget was made"))
    assert runpy.run_path(widgets.__file__)["__all__"] == widgets.__all__


def test_plain_display_of_an_error_is_its_words(causal_lm, causal_tokenizer, monkeypatch):
    monkeypatch.setenv("LLM_TUTORIAL_DISPLAY", "plain")
    data, _ = token_playground(causal_lm, causal_tokenizer, "")._repr_mimebundle_()
    assert data == {"text/plain": "The text is empty: give the model at least one word."}


def test_live_display_is_the_view_of_the_widget(playground, monkeypatch):
    monkeypatch.delenv("LLM_TUTORIAL_DISPLAY", raising=False)
    data, metadata = playground._repr_mimebundle_()
    assert data == {VIEW: {"version_major": 2, "version_minor": 0, "model_id": playground.widget.model_id},
                    "text/plain": f"Figure: {playground.twin().alt}"}
    assert metadata == {}
    assert playground.widget.model_id


def test_playgrounds_do_not_share_state(causal_lm, causal_tokenizer):
    one, other = (token_playground(causal_lm, causal_tokenizer, PROMPT) for _ in range(2))
    assert isinstance(one, Playground)
    assert other.widget
    candidates(one)[0].click()
    field(one).value += " a"
    assert (story(one), story(other)) == (PROMPT + " a", PROMPT)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(widgets, "QUIET_SECONDS", 0.05)


def type_in(playground, text):
    """One change per key, as a browser sends them."""
    for end in range(1, len(text) + 1):
        field(playground).value = text[:end]


@pytest.mark.usefixtures("quick")
def test_typing_runs_the_model_once_after_the_last_key(playground, passes):
    before = page(playground)

    async def main():
        type_in(playground, "the [MASK] reads")
        await asyncio.sleep(0.02)
        type_in(playground, "the [MASK] pool")
        assert passes == []
        assert page(playground) == before
        await asyncio.sleep(0.03)  # longer than the wait since the first text, not since the last
        assert passes == []
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert len(passes) == 1
    assert page(playground) != before
    assert_live_equals_twin(playground)


@pytest.mark.usefixtures("quick")
def test_the_twin_does_not_wait(playground, passes):
    async def main():
        type_in(playground, "the [MASK] pool")
        assert playground.twin()
        assert len(passes) == 1
        assert_live_equals_twin(playground)
        await asyncio.sleep(0.1)

    asyncio.run(main())
    assert len(passes) == 1


@pytest.mark.usefixtures("quick")
def test_a_candidate_of_the_old_text_is_not_appended_to_the_new(tokens, passes):
    async def main():
        type_in(tokens, "a language model")
        candidates(tokens)[0].click()
        assert story(tokens) == "a language model"
        candidates(tokens)[0].click()
        await asyncio.sleep(0.1)

    asyncio.run(main())
    assert story(tokens).startswith("a language model")
    assert story(tokens) != "a language model"
    assert len(passes) == 2


@pytest.mark.usefixtures("quick")
def test_no_exception_leaves_the_loop(playground, monkeypatch):
    caught = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context))
        monkeypatch.setattr(playground._model, "forward", lambda **_: 1 / 0)
        field(playground).value = "the [MASK] pool"
        await asyncio.sleep(0.2)

    asyncio.run(main())
    assert caught == []
    assert alert(playground) == "ZeroDivisionError: division by zero"


def test_a_change_that_a_closed_loop_never_saw_is_seen_by_the_next(playground, passes):
    async def main():
        field(playground).value = "the [MASK] pool"

    asyncio.run(main())
    assert passes == []
    field(playground).value = "the [MASK] reads"
    assert len(passes) == 1
    assert_live_equals_twin(playground)
