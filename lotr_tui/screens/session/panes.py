"""The panes and controls that need a model. They import numpy, which the first paint does not need."""

from dataclasses import dataclass

from textual.containers import Vertical
from textual.widget import Widget

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session.conversation.token_inspector import TokenInspector
from lotr_tui.screens.session.conversation.view import ConversationView, SettingsProvider
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.screens.session.run_chart import RunPerplexityChart
from lotr_tui.screens.session.who_answers_bars import WhoAnswersBars
from lotr_tui.widgets.sampler_panel import SamplerPanel


@dataclass(frozen=True)
class SessionPanes:
    """Widgets of a session that are created with its model."""

    conversation: ConversationView
    who_answers: WhoAnswersBars
    next_token_bars: NextTokenBars
    token_inspector: TokenInspector
    run_chart: RunPerplexityChart
    sampler: SamplerPanel

    def body(self) -> list[Widget]:
        """Return the conversation and the panes at its side."""
        previews = Vertical(self.who_answers, self.next_token_bars, self.token_inspector, id="previews")
        return [self.conversation, Vertical(previews, self.run_chart, id="side")]

    def controls(self) -> list[Widget]:
        """Return the sampling controls."""
        return [self.sampler]


def create_panes(
    welcome: str, pace: float, get_settings: SettingsProvider, sampler_settings: SamplerSettings
) -> SessionPanes:
    """Create the panes with a `welcome` text and a pace in words per second, and the controls in their first state."""
    return SessionPanes(
        conversation=ConversationView(welcome, pace, get_settings, id="conversation"),
        who_answers=WhoAnswersBars(id="who"),
        next_token_bars=NextTokenBars(id="next"),
        token_inspector=TokenInspector(id="inspector"),
        run_chart=RunPerplexityChart(id="training"),
        sampler=SamplerPanel(sampler_settings, id="sampler"),
    )
