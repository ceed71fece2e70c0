"""The panes and controls that need a model. They import numpy, which the first paint does not need."""

from dataclasses import dataclass

from textual.containers import Vertical

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
    side: Vertical
    """All panes at the side of the conversation."""


def create_panes(
    welcome: str, pace: float, get_settings: SettingsProvider, sampler_settings: SamplerSettings
) -> SessionPanes:
    """Create the panes with a `welcome` text and a pace in words per second, and the controls in their first state."""
    who_answers, next_token_bars = WhoAnswersBars(id="who"), NextTokenBars(id="next")
    token_inspector = TokenInspector(id="inspector")
    run_chart = RunPerplexityChart(id="training")
    previews = Vertical(who_answers, next_token_bars, token_inspector, id="previews")
    return SessionPanes(
        conversation=ConversationView(welcome, pace, get_settings, id="conversation"),
        who_answers=who_answers,
        next_token_bars=next_token_bars,
        token_inspector=token_inspector,
        run_chart=run_chart,
        sampler=SamplerPanel(sampler_settings, id="sampler"),
        side=Vertical(previews, run_chart, id="side"),
    )
