"""What the session shows of a model: the panes and the controls. With numpy, so not before the first paint."""

from collections.abc import Callable

from textual.containers import Vertical
from textual.widget import Widget

from engine.sampler_settings import SamplerSettings
from lotr_tui.settings import Way
from lotr_tui.widgets.conversation_view import ConversationView
from lotr_tui.widgets.next_word import NextWordBars
from lotr_tui.widgets.run_curve import RunCurve
from lotr_tui.widgets.sampler_panel import SamplerPanel
from lotr_tui.widgets.way_label import WayLabel
from lotr_tui.widgets.word_inspector import WordInspector


def panes(welcome: str, pace: float, asked: Callable[[], tuple[SamplerSettings, int]]) -> list[Widget]:
    """The conversation; beside it the bars, or the word under the cursor, and the curve."""
    side = Vertical(NextWordBars(id="next"), WordInspector(id="inspector"), RunCurve(id="training"), id="side")
    return [ConversationView(welcome, pace, asked, id="conversation"), side]


def controls(sampler: SamplerSettings, way: Way) -> list[Widget]:
    """How words are drawn, and the way of playing."""
    return [SamplerPanel(sampler, id="sampler"), WayLabel(way, id="way")]
