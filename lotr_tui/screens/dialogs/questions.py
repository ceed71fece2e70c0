"""The questions that have a dialog of their own: quitting, the first model, sampling, system prompt and cast."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from textual.content import Content
from textual.suggester import SuggestFromList

from engine.data.speakers import MAX_NAME_CHARACTERS, display_name
from engine.errors import printable
from lotr_tui.formatting import format_percent
from lotr_tui.screens.dialogs.dialog import Dialog, Field
from lotr_tui.session.cast import A_STRANGER, MODEL_CHOOSES, Roles, read_name, speaker_style
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
    "best_of": ("best-of ", "auto: of so many answers, the most relevant is shown"),
    "seed": ("seed    ", "random; the same seed gives the same reply"),
}


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
    """List of who answers or of who the user is, dismissed with both roles; any other name can be typed."""

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
        role, relation, nobody, offered = "speaking_as", "as", A_STRANGER, roles
        if column == "answering":
            role, relation, nobody, offered = "speaker", "to", MODEL_CHOOSES, answerers
        likeliest_first = sorted(offered, key=lambda name: -probs.get(name, 0.0))
        names = list(dict.fromkeys(["", *likeliest_first, getattr(current, role)]))
        answers = []
        for name in names:
            style = f"bold ${speaker_style(name, cast)}" if name in cast else "bold"
            prob = f"  {format_percent(probs[name])}" if column == "answering" and name in probs else ""
            label = Content.assemble((display_name(name) or nobody, style), (prob, MUTED))
            answers.append((label, current._replace(**{role: name})))
        super().__init__(
            "Who answers" if column == "answering" else "Who you are",
            answers=answers,
            highlighted=names.index(getattr(current, role)),
            fields=[Field("name", "", "type a part of a name, or ! and another one", max_length=MAX_NAME_CHARACTERS)],
            submit=lambda texts: current._replace(**{role: read_name(relation, texts["name"], cast)}),
            finds=True,
        )
