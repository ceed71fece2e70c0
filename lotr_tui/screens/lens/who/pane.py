"""Pane of the lens: who would say the line, and which of two speakers each of its words belongs to."""

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Rule

from engine.analysis.speakers import SpeakerGuess
from engine.models.dialogue import DialogueModel
from lotr_tui.screens.lens.who.bars import WhoWouldSayBars
from lotr_tui.screens.lens.who.evidence import LineEvidence, SpeakerPair
from lotr_tui.screens.lens.who.guesser import SpeakerGuesser
from lotr_tui.screens.lens.who.line import UnknownLine
from lotr_tui.screens.lens.who.text_view import SpeakerTextView
from lotr_tui.screens.text.metrics_bar import MetricsBar
from lotr_tui.widgets.status_bar import StatusBar


class WhoPane(Vertical):
    """Line with its telling words, the bars of its likely speakers, and what they say in one line."""

    DEFAULT_CSS = """
    WhoPane {
        height: 1fr;
        Rule { margin: 0; color: $border; height: 1; }
        #who-body { height: 1fr; }
        #who-text { width: 1fr; height: 1fr; padding: 0 1; }
        #who-bars { width: 45%; max-width: 60; height: 1fr; padding: 0 1; border-left: solid $border; }
        #who-legend { padding: 0 1; }
    }
    """

    class PairChanged(Message):
        """Posted when a click has chosen two speakers to compare."""

    def __init__(self, model: DialogueModel, *, id: str | None = None) -> None:
        """Guess with a model that has a cast."""
        super().__init__(id=id)
        self._cast: Sequence[str] = model.cast
        self.guesser = SpeakerGuesser(self, model, self._show_guess, self._show_error)
        self.evidence: LineEvidence | None = None
        """Evidence of the current line; None before the first guess."""
        self._line = UnknownLine()
        self._pair: SpeakerPair | None = None
        self._compares = False
        self._follows_guess = False  # the pair is the two likeliest speakers of a line that is still read

    @property
    def pair(self) -> SpeakerPair | None:
        """The two speakers that are compared; None while the whole cast is."""
        return self._pair if self._compares else None

    def compose(self) -> ComposeResult:
        """Yield the summary, the line with the bars beside it, and the legend."""
        yield MetricsBar(id="who-summary")
        yield Rule(line_style="solid")
        with Horizontal(id="who-body"):
            yield SpeakerTextView(id="who-text")
            yield WhoWouldSayBars(self._cast, id="who-bars")
        yield StatusBar(id="who-legend")

    def on_unmount(self) -> None:
        """Stop the thread."""
        self.guesser.cancel()

    def guess(self, line: UnknownLine) -> None:
        """Guess who says a line, unless it is the current one."""
        if line != self._line or self.evidence is None:
            self._line = line
            if self.evidence is None or self.evidence.line.context != line.context:
                self._show_summary("reading the lines …")
            self.guesser.guess(line)

    def compare_likeliest(self) -> None:
        """Compare the pair that was compared last, or the two likeliest speakers."""
        follows_guess = self._pair is None and (self.evidence is None or self.evidence.is_partial)
        self.compare(self.default_pair())
        self._follows_guess = follows_guess

    def compare(self, pair: SpeakerPair | None) -> None:
        """Compare two speakers word by word, or with None the whole cast again."""
        self._compares, self._follows_guess = pair is not None, False
        self._pair = pair or self._pair
        if self.evidence is not None:
            self._show(LineEvidence(self.evidence.line, self.evidence.guess, self.pair))

    def default_pair(self) -> SpeakerPair:
        """Return the pair that was compared last, or the two likeliest speakers."""
        if self._pair is not None:
            return self._pair
        names = self._names()
        return SpeakerPair(names[0], names[1 % len(names)])

    def step_speaker(self, is_second: bool) -> None:
        """Compare the next likely speaker as the first or the second of the pair."""
        pair, names = self.default_pair(), self._names()
        current, other = (pair.second, pair.first) if is_second else pair
        following = [name for name in [*names, *names][names.index(current) + 1 :] if name != other]
        chosen = following[0] if following else current
        self.compare(SpeakerPair(other, chosen) if is_second else SpeakerPair(chosen, other))

    def _names(self) -> list[str]:
        """Return the cast, likeliest speaker first."""
        return list(self._cast) if self.evidence is None else [each.name for each in self.evidence.guess.ranking()]

    def _show_guess(self, line: UnknownLine, guess: SpeakerGuess) -> None:
        self.evidence = LineEvidence(line, guess, None)
        if self._follows_guess:
            self._pair, self._follows_guess = None, self.evidence.is_partial
            self._pair = self.default_pair()
        self._show(LineEvidence(line, guess, self.pair))

    def _show(self, evidence: LineEvidence) -> None:
        self.evidence = evidence
        text = self.query_one(SpeakerTextView)
        text.show_evidence(evidence)
        self._show_bars()
        self._show_summary(evidence.progress)
        self.query_one("#who-legend", StatusBar).show(text.legend(), Content(""))

    def _show_summary(self, note: str) -> None:
        metrics = [] if self.evidence is None else self.evidence.summary()
        self.query_one("#who-summary", MetricsBar).show_metrics(metrics, note)

    @on(SpeakerTextView.TokenHighlighted)
    @on(SpeakerTextView.FocusChanged)
    def _show_bars(self) -> None:
        """Show the speakers after the line, or after the word under the cursor of the focused line."""
        text, evidence = self.query_one(SpeakerTextView), self.evidence
        if evidence is not None:
            words = evidence.guess.words
            is_part = text.has_focus and text.cursor < len(words)
            ranking = evidence.ranking(text.cursor + 1 if is_part else None)
            note = f"after “{words[text.cursor].word}”" if is_part else ""
            self.query_one(WhoWouldSayBars).show(ranking, evidence.line.speaker, evidence.pair, note)

    def _show_error(self, text: str) -> None:
        self.notify(text, severity="error", markup=False)

    @on(WhoWouldSayBars.SpeakerClicked)
    def _compare_clicked(self, message: WhoWouldSayBars.SpeakerClicked) -> None:
        """Compare a clicked speaker with the one who leads, or the leader with the next one."""
        message.stop()
        names = self._names()
        other = next((name for name in names if name != message.name), message.name)
        self.compare(SpeakerPair(message.name, other))
        self.post_message(self.PairChanged())
