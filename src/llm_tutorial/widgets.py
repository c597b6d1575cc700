"""Playgrounds: change a text and see at once what a model expects; each has a static twin to be stored."""

from __future__ import annotations

import asyncio
import base64
import os
from abc import ABC, abstractmethod
from functools import lru_cache, partial
from html import escape
from itertools import zip_longest
from typing import Any

import torch
from ipywidgets import HTML, Box, Button, FloatSlider, HBox, IntSlider, Text, ToggleButtons, VBox
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from llm_tutorial.decoding import Prediction, filter_logits, top_predictions
from llm_tutorial.plots import Figure, prediction_bars

__all__ = ["Playground", "mask_playground", "token_playground"]

QUIET_SECONDS = 0.3
MAX_CHARACTERS = 1_000  # spares the tokenizer what is pasted by mistake
MAX_TOKENS = 64  # of a model with 135 M parameters, within a second on two cores
CACHED_TEXTS = 64
CANDIDATES = 8
# Dictionaries, since a Layout made here would be a widget made at import.
_ROW = {"flex_flow": "row wrap"}
_WIDE = {"width": "auto"}
_LABEL = {"description_width": "initial"}


def mask_playground(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str) -> Playground:
    """Return a field for a sentence, begun as ``text``, with the most probable tokens at one of its masks as bars.

    Nothing is raised: what is wrong with a text (no mask, empty, too long) is said in the playground.
    """
    return _MaskPlayground(model, tokenizer, text=text, k=5, mask=0)


def token_playground(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Playground:
    """Return a field for a text, begun as ``prompt``, with the candidates for the next token as buttons and bars.

    A button appends its token; "Back one token" takes the last one away, so that any branch can be followed.

    Nothing is raised: what is wrong with a prompt (empty, too long) is said in the playground.
    """
    return _TokenPlayground(model, tokenizer, prompt=prompt, temperature=1.0)


class Playground(ABC):
    """A widget around a model, and the picture in it as its static twin.

    As the value of a cell it is the widget, in JupyterLab and Colab; where ``LLM_TUTORIAL_DISPLAY=plain`` it is the
    twin, and no widget is made, so that the output can be stored.

    The model runs 0.3 s after the last change, or at once where no event loop runs, and one time per text: after
    training the model, make another playground.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> None:
        self._model, self._tokenizer, self._settings = model, tokenizer, settings
        self._predict = lru_cache(CACHED_TEXTS)(self._predict)
        self._figure: Figure | None = None
        self._message = ""
        self._timer: asyncio.TimerHandle | None = None
        self._container: Box | None = None
        self._update()

    @property
    def widget(self) -> Box:
        """The ipywidgets container of the controls and the picture, made when it is first asked for."""
        if self._container is None:
            self._picture = HTML()
            self._container = VBox([*self._controls(), self._picture])
            self._show()
        return self._container

    def twin(self) -> Figure | None:
        """Return the picture for the present settings; None if there is none, for a reason that the widget gives."""
        if self._timer:
            self._update()
        return self._figure

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        figure = self.twin()
        data, metadata = figure._repr_mimebundle_() if figure else ({"text/plain": self._message}, {})
        if os.environ.get("LLM_TUTORIAL_DISPLAY") == "plain":
            return data, metadata
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": data["text/plain"]}, {}

    @abstractmethod
    def _predict(self, *text: Any) -> Any:
        """What the model says about a text."""

    @abstractmethod
    def _draw(self) -> Figure:
        """The picture for the present settings; raises ValueError if there is none."""

    @abstractmethod
    def _controls(self) -> list:
        """The widgets above the picture."""

    def _bind(self, control: Any, name: str) -> Any:
        """Return the control, tied to a setting."""
        def change(event: Any) -> None:
            if event["new"] != self._settings[name]:
                self._settings[name] = event["new"]
                self._update_soon()

        control.observe(change, "value")
        return control

    def _update_soon(self) -> None:
        if self._timer:
            self._timer.cancel()
        try:
            self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._update)
        except RuntimeError:
            self._update()

    def _update(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer, self._figure, self._message = None, None, ""
        try:
            self._figure = self._draw()
        except Exception as error:  # whatever it is, a reader gets words, no traceback
            self._message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        if self._container is not None:
            self._show()

    def _show(self) -> None:
        """Change the widget in place, so that the focus stays where it is."""
        if self._figure:
            png = base64.b64encode(self._figure.png).decode()
            self._picture.value = (f'<img style="max-width: 100%" alt="{escape(self._figure.alt)}" '
                                   f'src="data:image/png;base64,{png}">')
        else:
            self._picture.value = f'<p role="alert">{escape(self._message)}</p>'

    def _token_ids(self, text: str, more: int = 0) -> list[int]:
        """The ids of a text that, with ``more`` tokens after it, is short enough for an answer at once."""
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"The text has {len(text):,} characters, but the playground takes at most "
                             f"{MAX_CHARACTERS:,}: shorten it.")
        if not text.strip():
            raise ValueError("The text is empty: give the model at least one word.")
        ids = self._tokenizer(text, verbose=False)["input_ids"]
        limit = min(MAX_TOKENS, self._model.config.max_position_embeddings)
        if len(ids) + more > limit:
            raise ValueError(f"The text has {len(ids) + more} tokens, but the playground takes at most {limit}: "
                             f"{'go back or ' if more else ''}shorten it.")
        return ids


class _MaskPlayground(Playground):
    _masks = 1

    def _predict(self, text: str) -> list[list[Prediction]]:
        return top_predictions(self._model, self._tokenizer, text, k=10)

    def _draw(self) -> Figure:
        text = self._settings["text"]
        self._token_ids(text)
        predictions = self._predict(text)
        if len(predictions) != self._masks:
            self._masks, self._settings["mask"] = len(predictions), 0
        mask = self._settings["mask"]
        which = "the mask" if self._masks == 1 else f"mask {mask + 1} of {self._masks}"
        return prediction_bars(predictions[mask][:self._settings["k"]], caption=f"At {which} in: {_tail(text)}")

    def _controls(self) -> list:
        field = Text(self._settings["text"], description="Sentence:", layout=_WIDE, style=_LABEL)
        count = IntSlider(self._settings["k"], 3, 10, description="Tokens:", continuous_update=False, style=_LABEL)
        # No Dropdown: JupyterLab takes its arrow keys away.
        self._which = ToggleButtons(options=[("mask 1", 0)], style={"button_width": "auto"})
        return [self._bind(field, "text"), HBox([self._bind(count, "k"), self._bind(self._which, "mask")], layout=_ROW)]

    def _show(self) -> None:
        super()._show()
        if len(self._which.options) != self._masks:  # this selects the first mask, as ``_draw`` does
            self._which.options = [(f"mask {index + 1}", index) for index in range(self._masks)]


class _TokenPlayground(Playground):
    _prompt = ""  # to which these belong:
    _path: tuple[int, ...] = ()
    _candidates: tuple[Prediction, ...] = ()

    @torch.no_grad()
    def _predict(self, *ids: int) -> torch.Tensor:
        return self._model(input_ids=torch.tensor([ids], device=self._model.device)).logits[0, -1].float().cpu()

    def _draw(self) -> Figure:
        prompt, temperature = self._settings["prompt"], self._settings["temperature"]
        if prompt != self._prompt:
            self._prompt, self._path = prompt, ()
        self._candidates = ()
        logits = filter_logits(self._predict(*self._token_ids(prompt, len(self._path)), *self._path),
                               temperature=temperature)
        best = logits.softmax(dim=-1).topk(min(CANDIDATES, len(logits)))
        self._candidates = tuple(Prediction(self._tokenizer.decode([index]), index, value)
                                 for index, value in zip(best.indices.tolist(), best.values.tolist(), strict=True))
        text = _tail(prompt + self._tokenizer.decode(self._path))
        return prediction_bars(self._candidates, caption=f"At temperature {temperature:.1f}, after: {text}")

    def _controls(self) -> list:
        field = Text(self._settings["prompt"], description="Prompt:", layout=_WIDE, style=_LABEL)
        slider = FloatSlider(self._settings["temperature"], min=0.1, max=2.0, step=0.1, readout_format=".1f",
                             description="Temperature:", continuous_update=False, style=_LABEL)
        back = Button(description="Back one token")
        back.on_click(self._back)
        self._buttons = [Button(tooltip="append this token", layout=_WIDE) for _ in range(CANDIDATES)]
        for rank, button in enumerate(self._buttons):
            button.on_click(partial(self._append, rank))
        self._story = HTML()
        return [self._bind(field, "prompt"), HBox([self._bind(slider, "temperature"), back], layout=_ROW), self._story,
                HBox(self._buttons, layout=_ROW)]

    def _append(self, rank: int, _: Button) -> None:
        self._path += tuple(candidate.id for candidate in self._candidates[rank:rank + 1])
        self._update()  # which drops the token again if the prompt has changed meanwhile

    def _back(self, _: Button) -> None:
        self._path = self._path[:-1]
        self._update()

    def _show(self) -> None:
        super()._show()
        self._story.value = ('<p style="white-space: pre-wrap">Text so far: '
                             f"{escape(self._prompt)}<b>{escape(self._tokenizer.decode(self._path))}</b></p>")
        texts = [candidate.token for candidate in self._candidates]
        labels = [f"{c.token!r}{f' ({c.id})' if texts.count(c.token) > 1 else ''} {c.probability:.3f}"
                  for c in self._candidates]  # named as in the picture
        for button, label in zip_longest(self._buttons, labels, fillvalue="(none)"):
            button.description = label


def _tail(text: str, characters: int = 80) -> str:
    """The end of a text in one line, for a caption."""
    text = " ".join(text.split())
    return text if len(text) <= characters else "…" + text[-characters:]
