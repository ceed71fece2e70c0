"""A whole text in figures, on one line."""

from textual.content import Content

from engine.analysis.token_scores import Reading, compare
from engine.data.vocabulary import EOS_ID
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

Part = list[tuple[str, str]]


class LensFigures(StatusBar):
    """As many figures as there is room for, the most telling first; on the right how far the reading has come."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._parts: list[Part] = []
        self._note = ""

    def show_text(self, network: Reading | None, kneser_ney: Reading | None, without: str, note: str) -> None:
        """Show what the readings come to.

        `without`: what stands in the place of Kneser-Ney where there is no such reading. `note`: which text it is.
        """
        self._parts, self._note = [], note
        if network is not None and network.done:
            self._parts = _figures(network, kneser_ney, without)
            if not network.complete:
                self._note = f"read {network.done / len(network.words):.0%}"
        self._fit()

    def on_resize(self) -> None:
        """There is room for more figures, or fewer."""
        self._fit()

    def _fit(self) -> None:
        room = self.content_size.width - (len(self._note) + 2 if self._note else 0)
        shown = Content("")
        for part in self._parts:
            longer = Content.assemble(shown, "   " if shown else "", *part)
            if longer.cell_length > room and shown:
                break
            shown = longer
        self.show(shown, Content.styled(self._note, MUTED))


def _figures(network: Reading, kneser_ney: Reading | None, without: str) -> list[Part]:
    summary = network.summary()
    assert summary is not None, "there is no figure before the first word"
    evaluation = summary.evaluation
    parts: list[Part] = [[("perplexity ", MUTED), (f"{evaluation.perplexity:,.1f}", "bold")]]
    other = kneser_ney.summary() if kneser_ney is not None else None
    if other is not None:
        parts.append([("Kneser-Ney ", MUTED), (f"{other.evaluation.perplexity:,.1f}", "")])
    elif kneser_ney is None:
        parts.append([(without, MUTED)])
    parts.append([(f"{evaluation.bits_per_token:.2f}", ""), (" bits a word", MUTED)])
    # A line end that is read is a token, but for a reader no word.
    words = evaluation.tokens - int((network.words.ids[: network.done] == EOS_ID).sum())
    parts.append([(f"{words:,} words, {summary.unknown:,} unknown ({evaluation.unk_rate:.1%})", "")])
    known = "-" if summary.known_perplexity is None else f"{summary.known_perplexity:,.1f}"
    parts.append([("without unknown ", MUTED), (known, "")])
    comparison = compare(network, kneser_ney) if kneser_ney is not None else None
    if comparison is not None:
        share = f"{comparison.better / comparison.words:.0%}"
        parts.append([("better than Kneser-Ney on ", MUTED), (share, ""), (" of words", MUTED)])
    return parts
