"""Options of `generate` for models that know speakers."""

from dataclasses import dataclass
from typing import Annotated

import typer

from engine.errors import InvalidInputError
from lotr_tui.cli.parser import int_option

DIALOGUE = "Dialogue"
"""Section of the help text."""
MAX_BEST_OF = 64
"""Maximum number of answers to choose from, the engine's `MAX_ANSWERS`, which a module with numpy defines."""
MAX_TURNS = 10_000
DEFAULT_TURNS = 8

AsOption = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="Speaker who says the prompt. Default: a stranger.", rich_help_panel=DIALOGUE
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="NAME", help="Speaker who answers. Default: the likeliest one.", rich_help_panel=DIALOGUE
    ),
]
BestOfOption = Annotated[
    int | None,
    int_option(
        "--best-of",
        minimum=1,
        maximum=MAX_BEST_OF,
        help="Draw N answers and print the one that the prompt makes most likely, compared with no prompt. Default: 8, "
        "with a large model 4.",
        rich_help_panel=DIALOGUE,
    ),
]
SceneOption = Annotated[
    bool,
    typer.Option(
        "--scene",
        help="Write a scene, one line a turn, which starts with the prompt if there is one.",
        rich_help_panel=DIALOGUE,
    ),
]
CastOption = Annotated[
    str | None,
    typer.Option(
        "--cast",
        metavar="A,B,...",
        help="Speakers of the scene. Default: everybody.",
        rich_help_panel=DIALOGUE,
    ),
]
TurnsOption = Annotated[
    int | None,
    int_option(
        "--turns",
        minimum=1,
        maximum=MAX_TURNS,
        help=f"Turns of the scene. Default: {DEFAULT_TURNS}.",
        rich_help_panel=DIALOGUE,
    ),
]


@dataclass(frozen=True)
class AnswerOptions:
    """Options of an answer to the prompt."""

    speaking_as: str | None = None
    """Name of the speaker who says the prompt, as typed; None for a stranger."""
    speaker: str | None = None
    """Name of the speaker who answers, as typed; None for the likeliest."""
    num_answers: int | None = None
    """Number of answers to choose from; None: one, or several where they have to be compared."""

    @property
    def used_option(self) -> str:
        """The option that asks for an answer by a speaker, for messages."""
        return "--as" if self.speaking_as is not None else "--to" if self.speaker is not None else "--best-of"


@dataclass(frozen=True)
class SceneOptions:
    """Options of a scene."""

    cast: tuple[str, ...] | None = None
    """Names of the speakers, as typed; None for everybody."""
    num_turns: int = DEFAULT_TURNS

    @property
    def used_option(self) -> str:
        """The option that asks for a scene, for messages."""
        return "--scene"


DialogueOptions = AnswerOptions | SceneOptions


def parse_dialogue(
    *,
    speaking_as: AsOption = None,
    speaker: ToOption = None,
    best_of: BestOfOption = None,
    scene: SceneOption = False,
    cast: CastOption = None,
    turns: TurnsOption = None,
) -> DialogueOptions | None:
    """Return the answer or scene that the options describe, or None if none of them is given.

    Raises:
        InvalidInputError: If options of an answer and of a scene are mixed.
    """
    answer = {"--as": speaking_as, "--to": speaker, "--best-of": best_of}
    given = [name for name, value in answer.items() if value is not None]
    if scene:
        if given:
            raise InvalidInputError(f"{given[0]} belongs to an answer, not to a scene; leave out {given[0]} or --scene")
        names = None if cast is None else tuple(name.strip() for name in cast.split(","))
        return SceneOptions(names, DEFAULT_TURNS if turns is None else turns)
    for name, value in (("--cast", cast), ("--turns", turns)):
        if value is not None:
            raise InvalidInputError(f"{name} has no effect without --scene; give both")
    return AnswerOptions(speaking_as, speaker, best_of) if given else None
