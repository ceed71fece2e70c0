"""The other ways to look at a model, each a screen of its own; imported when it is asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textual.screen import Screen

from engine.generation.settings import SamplerSettings

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from lotr_tui.session.player import Player

Look = Literal["ladder", "side_by_side", "lens", "memorised", "inside"]


@dataclass(frozen=True)
class AtHand:
    """What the session has to look at."""

    player: "Player"
    prompt: str
    """What is being typed, or else the last prompt."""
    said: str
    """The last prompt and its reply, or else what is being typed."""
    settings: SamplerSettings
    seed: int | None
    runs_dir: Path | None
    pace: float


def screen_of(look: Look, hand: AtHand) -> Screen[None]:
    """The screen of a look."""
    match look:
        case "ladder":
            from lotr_tui.screens.comparison.ladder import LadderScreen

            return LadderScreen(hand.player, hand.prompt, hand.settings, hand.seed, hand.pace)
        case "side_by_side":
            from lotr_tui.screens.comparison.side_by_side import SideBySideScreen

            return SideBySideScreen(hand.player, hand.runs_dir, hand.prompt, hand.settings, hand.seed, hand.pace)
        case "lens":
            from lotr_tui.screens.lens.screen import LensScreen

            return LensScreen(hand.player, hand.said)
        case "memorised":
            from lotr_tui.screens.memorization.screen import MemorisedScreen

            return MemorisedScreen(hand.player, hand.said)
        case "inside":
            from lotr_tui.screens.activations.screen import InsideScreen

            return InsideScreen(hand.player, hand.said)
