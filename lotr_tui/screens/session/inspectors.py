"""The screens that inspect the model of a session; each module is imported when its screen is opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textual.screen import Screen

from engine.generation.settings import SamplerSettings

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from lotr_tui.session.columns import PromptContext
    from lotr_tui.session.session_model import SessionModel

Inspector = Literal["temperatures", "compare", "lens", "copied", "inside"]


@dataclass(frozen=True)
class InspectionContext:
    """State of the session that an inspector starts from."""

    session_model: "SessionModel"  # that answers the next prompt
    prompt: str  # text in the prompt, or the prompt of the inspected reply if it is empty
    prompt_context: "PromptContext"  # reply mode and earlier turns with which the session reads that prompt
    sampler_settings: SamplerSettings
    seed: int | None  # fixed seed, or the seed of the inspected reply if its prompt is repeated; None for a random one
    text: str
    """Everything that the model has read and written up to the end of the inspected reply, with a line break for each
    `<eos>`; without a reply, the text in the prompt."""
    text_model: "SessionModel"  # that has read `text`, or reads it now
    runs_dir: Path | None
    pace: float  # words per second; 0 is no limit


def create_inspector_screen(inspector: Inspector, context: InspectionContext) -> Screen[None]:
    """Create the screen of an inspector."""
    model, text_model, text = context.session_model, context.text_model, context.text
    columns = context.prompt, context.sampler_settings, context.seed, context.pace, context.prompt_context
    match inspector:
        case "temperatures":
            from lotr_tui.screens.inspect.comparison import LadderScreen

            return LadderScreen(model, *columns)
        case "compare":
            from lotr_tui.screens.inspect.side_by_side import SideBySideScreen

            return SideBySideScreen(model, context.runs_dir, *columns)
        case "lens":
            from lotr_tui.screens.inspect.lens import LensScreen

            return LensScreen(text_model, text, reads_line_ends="\n" in text and not text_model.knows_speakers)
        case "copied":
            from lotr_tui.screens.inspect.copied import CopiedScreen

            return CopiedScreen(text_model, text)
        case "inside":
            from engine.analysis.activations import find_attention_model

            if find_attention_model(text_model.model) is not None:
                from lotr_tui.screens.inspect.attention import AttentionScreen

                return AttentionScreen(text_model, text)
            from lotr_tui.screens.inspect.activations import ActivationsScreen

            return ActivationsScreen(text_model, text)
