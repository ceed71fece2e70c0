"""Dialogs with a question, and dialogs that ask for one line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from textual import events, on
from textual.app import App
from textual.content import Content
from textual.suggester import SuggestFromList
from textual.widgets import Input, OptionList

from engine.control import MAX_SAMPLE_PROMPT_LENGTH, ControlCommand
from engine.data.speakers import MAX_NAME_CHARACTERS, display_name, normalize_speaker
from engine.errors import printable
from lotr_tui.formatting import format_percent
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.session.cast import A_STRANGER, MODEL_CHOOSES, Roles, speaker_style
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT, MAX_SYSTEM_PROMPT_CHARACTERS, check_system_prompt
from lotr_tui.theme import MUTED

QuitChoice = Literal["stop", "detach"]
"""stop: the training saves and stops; detach: the training continues in the background."""
CastColumn = Literal["answering", "speaking-as"]
FIRST_MODEL_TEXT = (
    "SmolLM2 was pre-trained on other text; an adapter lets it speak like the cast. It downloads in the background, "
    "while you play with the small LSTM. Later, /model smollm2 brings it."
)
CONTROLS = {  # labels and placeholders of the sampling controls
    "top_k": ("top-k   ", "all: only this many of the most likely words"),
    "top_p": ("top-p   ", "1: only the most likely words with this total probability"),
    "min_p": ("min-p   ", "0: only words this fraction as likely as the first"),
    "repetition_penalty": ("penalty ", "1; above, words that were used become less likely"),
    "max_tokens": ("length  ", "30: maximum number of words of a reply"),
    "seed": ("seed    ", "random; the same seed gives the same reply"),
}


class ConfirmDialog(Dialog[bool]):
    """Yes-or-no question; "yes" is highlighted, or "no" with `enter_confirms` False."""

    def __init__(self, question: str, *, enter_confirms: bool = True) -> None:
        super().__init__(question, answers=[("yes", True), ("no", False)], highlighted=int(not enter_confirms))


def confirm(app: App[Any], question: str, on_yes: Callable[[], object], *, enter_confirms: bool = True) -> None:
    """Ask a question, and call `on_yes` if the user confirms; see `ConfirmDialog`."""

    def on_answer(is_confirmed: bool | None) -> None:
        if is_confirmed:
            on_yes()

    app.push_screen(ConfirmDialog(question, enter_confirms=enter_confirms), on_answer)


class QuitDialog(Dialog[QuitChoice]):
    """Question about the running training, dismissed with the choice, or with None to keep lotr-tui open."""

    def __init__(self) -> None:
        super().__init__(
            "Quit? A model is being trained.",
            answers=[
                ("stop the training; the best model is kept", "stop"),
                ("detach: it continues in the background", "detach"),
                ("cancel", None),
            ],
        )


class FirstModelDialog(Dialog[bool]):
    """Question of the first start, dismissed with True for SmolLM2, which is downloaded."""

    def __init__(self) -> None:
        smollm2, lstm = "SmolLM2, 98 MB, understands you", "the small LSTM, included, babbles, shows everything"
        title = "Which model do you want to talk to?"
        super().__init__(title, text=FIRST_MODEL_TEXT, answers=[(smollm2, True), (lstm, False)])


class NameDialog(Dialog[str]):
    """Dialog for a name, without spaces around it; `rename` uses another name, or raises a LotrError."""

    def __init__(
        self,
        current_name: str,
        title: str = "Name of this branch",
        max_length: int = 40,
        rename: Callable[[str], object] = str,
    ) -> None:
        def submit(texts: Mapping[str, str]) -> str:
            if (name := texts["name"].strip()) != current_name:
                rename(name)
            return name

        field = Field("name", current_name, "a name", max_length=max_length)
        super().__init__(title, fields=[field], submit=submit, verb="rename")


class SamplePromptDialog(Dialog[ControlCommand]):
    """Dialog for the prompt of a training's samples, dismissed with the command that sets it."""

    def __init__(self, prompt: str) -> None:
        super().__init__(
            "Prompt of the samples, from the next evaluation on",
            fields=[Field("prompt", prompt, "the first words", max_length=MAX_SAMPLE_PROMPT_LENGTH)],
            submit=lambda texts: ControlCommand("prompt", " ".join(texts["prompt"].split())),
            verb="use",
        )


class SamplerDialog(Dialog[None]):
    """Dialog for the sampling controls, by name; `use` sets them, or raises a LotrError. Empty fields are defaults."""

    def __init__(self, texts: Mapping[str, str], use: Callable[[Mapping[str, str]], None]) -> None:
        fields = [Field(name, texts[name], hint, label, 20) for name, (label, hint) in CONTROLS.items()]
        super().__init__("Sampling controls", fields=fields, submit=use, verb="use")


class SystemPromptDialog(Dialog[str]):
    """Dialog for the system prompt; an empty line is the `default` of the model's chat template."""

    def __init__(self, current: str, default: str) -> None:
        def submit(texts: Mapping[str, str]) -> str:
            check_system_prompt(text := texts["prompt"].strip())
            return text

        placeholder = printable(default) or f"such as: {EXAMPLE_SYSTEM_PROMPT}"
        example = SuggestFromList([EXAMPLE_SYSTEM_PROMPT])
        field = Field("prompt", current, placeholder, "", MAX_SYSTEM_PROMPT_CHARACTERS, example)
        super().__init__("System prompt: who the model is", fields=[field], submit=submit, verb="use")


class CastDialog(Dialog[Roles]):
    """List of who answers or of who the user is, dismissed with both roles. A typed part of a name finds one."""

    def __init__(
        self,
        cast: Sequence[str],
        answerers: Sequence[str],
        roles: Sequence[str],
        current: Roles,
        probs: Mapping[str, float],
        column: CastColumn = "answering",
    ) -> None:
        """Offer the `answerers`, with the probabilities of some of them, or for the other column the `roles`."""
        is_answering = column == "answering"
        self._current, self._is_answering = current, is_answering
        chosen = current.speaker if is_answering else current.speaking_as
        self._names = list(dict.fromkeys(["", *(answerers if is_answering else roles), chosen]))
        self._titles = [display_name(name) for name in self._names]
        self._titles[0] = MODEL_CHOOSES if is_answering else A_STRANGER
        answers = []
        for name, title in zip(self._names, self._titles, strict=True):
            style = f"bold ${speaker_style(name, cast)}" if name in cast else "bold"
            prob = f"  {format_percent(probs[name])}" if is_answering and name in probs else ""
            mark = "● " if name == chosen else "  "
            label = Content.assemble((mark, "bold $accent"), (title, style), (prob, MUTED))
            answers.append((label, self._roles(name)))
        super().__init__(
            "Who answers" if is_answering else "Who you are",
            answers=answers,
            highlighted=self._names.index(chosen),
            fields=[Field("name", "", "type a part of a name, or any name", max_length=MAX_NAME_CHARACTERS)],
        )

    def on_mount(self) -> None:
        self.query_one("#name").focus()

    def on_key(self, event: events.Key) -> None:
        """Let the arrows move in the list while a name is typed."""
        options = self.query_one("#answers", OptionList)
        if event.key in ("up", "down", "pageup", "pagedown") and not options.has_focus:
            event.stop()
            moves = {"up": "cursor_up", "down": "cursor_down", "pageup": "page_up", "pagedown": "page_down"}
            getattr(options, f"action_{moves[event.key]}")()

    @on(Input.Changed)
    def _find(self, event: Input.Changed) -> None:
        """Highlight the first role that begins with the typed text, or else one that contains it."""
        if key := event.value.strip().casefold():
            titles = [title.casefold() for title in self._titles]
            found = [index for index, title in enumerate(titles) if title.startswith(key)]
            found += [index for index, title in enumerate(titles) if key in title]
            self.query_one("#answers", OptionList).highlighted = found[0] if found else None

    async def use(self, texts: Mapping[str, str]) -> None:
        """Use the highlighted role, or a typed name that is not in the list."""
        index = self.query_one("#answers", OptionList).highlighted
        self.dismiss(self._roles(normalize_speaker(texts["name"]) if index is None else self._names[index]))

    def _roles(self, name: str) -> Roles:
        if self._is_answering:
            return self._current._replace(speaker=name)
        return self._current._replace(speaking_as=name)
