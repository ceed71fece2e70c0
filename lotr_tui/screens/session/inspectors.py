"""The screens that inspect the model of a session; each module is imported when its screen is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textual.screen import Screen

from engine.generation.settings import SamplerSettings

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from lotr_tui.session.columns import PromptContext
    from lotr_tui.session.session_model import SessionModel

Inspector = Literal["ladder", "side_by_side", "lens", "memorization", "activations"]


@dataclass(frozen=True)
class InspectionContext:
    """State of the session that an inspector starts from."""

    session_model: "SessionModel"
    """Model that answers the next prompt."""
    prompt: str
    """Text in the prompt, or the prompt of the inspected reply if it is empty."""
    prompt_context: "PromptContext"
    """Reply mode and earlier turns with which the session reads that prompt."""
    sampler_settings: SamplerSettings
    seed: int | None
    """Fixed seed, or the seed of the inspected reply if its prompt is repeated; None for a random seed."""
    text: str
    """Everything that the model has read and written up to the end of the inspected reply, with a line break for each
    `<eos>`; without a reply, the text in the prompt."""
    text_model: "SessionModel"
    """Model that has read `text`, or reads it now."""
    runs_dir: Path | None
    pace: float
    """Words per second; 0 is no limit."""


def create_inspector_screen(inspector: Inspector, context: InspectionContext) -> Screen[None]:
    """Create the screen of an inspector."""
    match inspector:
        case "ladder":
            from lotr_tui.screens.inspect.comparison import LadderScreen

            return LadderScreen(
                context.session_model,
                context.prompt,
                context.sampler_settings,
                context.seed,
                context.pace,
                context.prompt_context,
            )
        case "side_by_side":
            from lotr_tui.screens.inspect.comparison import SideBySideScreen

            return SideBySideScreen(
                context.session_model,
                context.runs_dir,
                context.prompt,
                context.sampler_settings,
                context.seed,
                context.pace,
                context.prompt_context,
            )
        case "lens":
            from lotr_tui.screens.inspect.lens import LensScreen

            reads_line_ends = "\n" in context.text and not context.text_model.knows_speakers
            return LensScreen(context.text_model, context.text, reads_line_ends=reads_line_ends)
        case "memorization":
            from lotr_tui.screens.inspect.copied import CopiedScreen

            return CopiedScreen(context.text_model, context.text)
        case "activations":
            from engine.analysis.activations import find_attention_model

            if find_attention_model(context.text_model.model) is not None:
                from lotr_tui.screens.inspect.attention import AttentionScreen

                return AttentionScreen(context.text_model, context.text)
            from lotr_tui.screens.inspect.activations import ActivationsScreen

            return ActivationsScreen(context.text_model, context.text)
