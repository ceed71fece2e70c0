"""What the session shows of a model: the panes and the controls. With numpy, so not before the first paint."""

from collections.abc import Callable

from textual.containers import Vertical
from textual.widget import Widget

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.next_word import NextWordBars
from lotr_tui.screens.session.reply_mode_label import WayLabel
from lotr_tui.screens.session.run_curve import RunCurve
from lotr_tui.screens.session.word_inspector import WordInspector
from lotr_tui.session.settings import Way
from lotr_tui.widgets.sampler_panel import SamplerPanel


def panes(welcome: str, pace: float, asked: Callable[[], tuple[SamplerSettings, int]]) -> list[Widget]:
    """The conversation; beside it the bars, or the word under the cursor, and the curve."""
    side = Vertical(NextWordBars(id="next"), WordInspector(id="inspector"), RunCurve(id="training"), id="side")
    return [ConversationView(welcome, pace, asked, id="conversation"), side]


def controls(sampler: SamplerSettings, way: Way) -> list[Widget]:
    """How words are drawn, and the way of playing."""
    return [SamplerPanel(sampler, id="sampler"), WayLabel(way, id="way")]
