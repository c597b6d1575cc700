"""Playgrounds: change a text and see what a model expects, live or as a static picture."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from itertools import zip_longest

import torch
from ipywidgets import HTML, Button, FloatSlider, HBox, IntSlider, Text, ToggleButtons, VBox, Widget
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.decoding import Prediction, best_tokens, evaluating, filter_logits, model_inputs, top_predictions
from llm_tutorial.plots import Figure, prediction_bars, token_names

__all__ = ["Playground", "mask_playground", "token_playground"]

MAX_TOKENS = 64  # a model with 135 M parameters reads them within a second on two cores
CANDIDATES = 8
# A Layout or a Style made here would be a widget made at import.
LABEL, WRAPPED, WIDE = {"description_width": "initial"}, {"flex_flow": "row wrap"}, {"width": "auto"}


class Playground:
    """Controls, and below them the picture for their values, or in words why there is none.

    As the value of a cell it is shown as a widget; for pages and viewers without widgets the output holds the picture.
    """

    def __init__(self, draw: Callable[..., Figure], controls: dict[str, Widget], rows: Sequence[Widget]) -> None:
        self._draw, self._controls = draw, controls
        self.picture: Figure | str = ""
        # No interactive_output: nbclient stops at its Output widget unless it stores the state of all widgets.
        self._html = HTML()
        hint = HTML("<small>Change the text and press Enter.</small>")
        self.widget = VBox([rows[0], hint, *rows[1:], self._html])
        for control in controls.values():
            control.observe(self.update, "value")
        self.update()

    def update(self, _=None) -> None:
        self.picture = _picture(self._draw, **{name: control.value for name, control in self._controls.items()})
        if isinstance(self.picture, Figure):
            png, alt = base64.b64encode(self.picture.png).decode(), escape(self.picture.alt)
            self._html.value = f'<img style="max-width: 100%" alt="{alt}" src="data:image/png;base64,{png}">'
        else:
            self._html.value = f'<p role="alert">{escape(self.picture)}</p>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        data, metadata = {"text/plain": str(self.picture)}, {}
        if isinstance(self.picture, Figure):
            data, metadata = self.picture._repr_mimebundle_()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, **data}, metadata


Shown = Playground | Figure | str


def mask_playground(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Shown:
    """Return a field for a sentence, begun as ``text``, with the most probable tokens at one of its masks as bars.

    Where ``LLM_TUTORIAL_DISPLAY=plain`` it is the picture alone.  Each text is read once: after training the model,
    make another playground.
    """
    @lru_cache
    def predictions(text: str) -> list[list[Prediction]]:
        _token_ids(model, tokenizer, text)
        return top_predictions(model, tokenizer, text, k=10)

    def draw(text: str, count: int = 5, mask: int = 0) -> Figure:
        found = predictions(text)
        which = "the mask" if len(found) == 1 else f"mask {mask + 1} of {len(found)}"
        return prediction_bars(found[mask][:count], title=f"At {which} in: {_end(text)}")

    if os.environ.get("LLM_TUTORIAL_DISPLAY") == "plain":
        return _picture(draw, text=text)

    field = _field("Sentence:", text)
    count = IntSlider(5, 3, 10, description="Tokens:", continuous_update=False, style=LABEL)
    which = ToggleButtons(options=[("mask 1", 0)], style={"button_width": "auto"})  # usable with the keyboard in Lab

    def offer_masks(_=None) -> None:
        number = min(max(1, field.value.count(tokenizer.mask_token or "[MASK]")), MAX_TOKENS)
        which.options = [(f"mask {index + 1}", index) for index in range(number)]  # other ones choose the first mask
        which.layout.display = None if number > 1 else "none"

    offer_masks()
    field.observe(offer_masks, "value")
    return Playground(draw, {"text": field, "count": count, "mask": which},
                      [field, HBox([count, which], layout=WRAPPED)])


def token_playground(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Shown:
    """Return a field for a text, begun as ``prompt``, with the candidates for the next token as buttons and bars.

    A button appends its token, "Back one token" takes the last one away; the rest is as in ``mask_playground``.
    """
    @lru_cache
    def next_logits(ids: tuple[int, ...]) -> torch.Tensor:
        with evaluating(model):
            return model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1].float().cpu()

    offered: list[Prediction] = []
    path: list[int] = []  # ids, read as they are: the text may be cut into other tokens

    def draw(prompt: str, temperature: float = 1.0) -> Figure:
        offered.clear()
        ids = (*_token_ids(model, tokenizer, prompt, len(path)), *path)
        offered.extend(best_tokens(filter_logits(next_logits(ids), temperature=temperature), tokenizer, CANDIDATES))
        return prediction_bars(offered, title=(
            f"At temperature {temperature:.1f}, after: {_end(prompt + tokenizer.decode(path))}"))

    if os.environ.get("LLM_TUTORIAL_DISPLAY") == "plain":
        return _picture(draw, prompt=prompt)

    field = _field("Prompt:", prompt)
    slider = FloatSlider(1.0, min=0.1, max=2.0, step=0.1, readout_format=".1f", description="Temperature:",
                         continuous_update=False, style=LABEL)
    back, story = Button(description="Back one token"), HTML()
    buttons = [Button(tooltip="append this token", layout=WIDE) for _ in range(CANDIDATES)]

    def draw_and_offer(prompt: str, temperature: float) -> Figure:
        story.value = (f'<p style="white-space: pre-wrap">Text so far: {escape(prompt)}'
                       f"<b>{escape(tokenizer.decode(path))}</b></p>")
        try:
            return draw(prompt, temperature)
        finally:
            labels = [f"{name} {p.probability:.3f}" for name, p in zip(token_names(offered), offered, strict=True)]
            for button, label in zip_longest(buttons, labels, fillvalue="(none)"):
                button.description = label

    def press(button: Button) -> None:
        if button is back:
            del path[-1:]
        else:
            path.extend(candidate.id for candidate, offer in zip(offered, buttons, strict=False) if offer is button)
        playground.update()

    field.observe(lambda _: path.clear(), "value")
    playground = Playground(draw_and_offer, {"prompt": field, "temperature": slider},
                            [field, HBox([slider, back], layout=WRAPPED), story, HBox(buttons, layout=WRAPPED)])
    for button in (back, *buttons):
        button.on_click(press)
    return playground


def _picture(draw: Callable[..., Figure], **values) -> Figure | str:
    """The picture, or in words why there is none: readers get no traceback, whatever they type."""
    try:
        return draw(**values)
    except Exception as error:
        return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, more: int = 0) -> list[int]:
    """The ids of a text that, with ``more`` tokens after it, is short enough for an answer at once."""
    ids = model_inputs(model, tokenizer, text)["input_ids"][0].tolist()
    limit = min(MAX_TOKENS, model.config.max_position_embeddings)
    if len(ids) + more > limit:
        raise ValueError(f"The text has {len(ids) + more} tokens, but the playground takes at most {limit}: "
                         f"{'go back or ' if more else ''}shorten it.")
    return ids


def _field(description: str, text: str) -> Text:
    return Text(text, description=description, continuous_update=False, layout=WIDE, style=LABEL)


def _end(text: str, characters: int = 80) -> str:
    """The end of a text in one line, for a title."""
    text = " ".join(text.split())
    return text if len(text) <= characters else "…" + text[-characters:]
