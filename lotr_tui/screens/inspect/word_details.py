"""Figures of the lens: the ones of a text in a line, and the scores and likeliest alternatives of a word."""

from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from textual.content import Content
from textual.strip import Strip

from engine.analysis.evaluation import TextForm, native_form, summarize_log_probs
from engine.analysis.token_scores import TokenScores, WordScore
from engine.errors import printable
from lotr_tui.formatting import PRETRAINED_NOTE, bar, format_lone_token, format_percent, plural, truncate
from lotr_tui.screens.inspect.text_screen import Row, unreadable_parts
from lotr_tui.screens.inspect.text_view import visible_part
from lotr_tui.theme import MUTED
from lotr_tui.widgets.drawing import StripWidget, join_fitting

PROBABILITY_WIDTH = 8
TEXT_FORM_NAMES: dict[TextForm, str] = {"original": "", "whitespace": " (words only)", "words": " (lower-case words)"}


def describe_scores(network: TokenScores, baseline: TokenScores | None) -> list[Content]:
    """Return the metrics of a text of which at least one token is scored; there may be no Kneser-Ney model."""
    tokens, tokenizer = network.tokens, network.tokenizer
    own, *other = (
        summarize_log_probs(each.log_probs[: each.num_scored], tokens.ids[: each.num_scored], tokens.unk_id)
        for each in (network, baseline)
        if each is not None and each.num_scored
    )
    metrics = [Content.assemble(("perplexity ", MUTED), (f"{own.perplexity:,.1f}", "bold"))]
    if other:
        metrics.append(Content.assemble(("Kneser-Ney ", MUTED), f"{other[0].perplexity:,.1f}"))
    else:
        metrics.append(Content.styled("no Kneser-Ney" if baseline is None else "Kneser-Ney …", MUTED))
    if not np.isnan(network.bits_per_character):
        is_pretrained = tokenizer.name == "pretrained"
        note = f", {PRETRAINED_NOTE}" if is_pretrained else TEXT_FORM_NAMES[native_form(tokenizer)]
        bits = Content.assemble(f"{network.bits_per_character:.2f}", (f" bits/character{note}", MUTED))
        # A perplexity of tokens says little to someone who does not know the tokens.
        metrics.insert(0 if tokens.unk_id is None else len(metrics), bits)
    metrics += unreadable_parts(tokens)
    # Punctuation, and a line end read as a token, are not words to the reader.
    num_words = int(np.count_nonzero(tokens.counts_as_word[: network.num_scored_words]))
    noun = "token" if tokens.unk_id is None else "word"
    surprise = Content.assemble(("surprise ", MUTED), f"{own.bits_per_token:.2f}", (f" bits per {noun}", MUTED))
    if tokens.unk_id is None:
        return [*metrics, Content(f"{plural(num_words, 'word')}, {plural(own.tokens, 'token')}"), surprise]
    num_unknown = int(tokens.unknown_mask[: own.tokens].sum())
    unknown = f"{num_words:,} words, {num_unknown:,} unknown ({format_percent(own.unk_rate)})"
    return [*metrics, surprise, Content(unknown)]


class WordDetails(StripWidget):
    """Two lines about one word, or a table and a bar chart if the widget is higher."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"word-details--{name}" for name in ("bar", "title", "muted")}
    _word = _location = ""
    _scores: tuple[WordScore | None, ...] = (None, None)
    _shown: WordScore | None = None

    def show(self, word: str, location: str, scores: tuple[WordScore | None, ...], shown: int) -> None:
        """Show a word with its scores by the network and by Kneser-Ney; `shown` is whose alternatives are listed."""
        self._word, self._location, self._scores, self._shown = word, location, scores, scores[shown]
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self._word:
            return []
        shown = self._shown
        network = self._scores[0]
        parts = [] if network is None else [(printable(visible_part(text)), bits) for text, bits in network.parts]
        alternatives = [] if shown is None else [(format_lone_token(token), prob) for token, prob in shown.top_tokens]
        joined = "|".join(text for text, _ in parts)
        sums = [round(total, 1) for total in accumulate((bits for _, bits in parts), initial=0.0)]
        bits = " + ".join(f"{end - start:.1f}" for start, end in pairwise(sums))  # what adds up to the rounded sum
        if len(parts) < 2:
            joined = bits = ""
        if height > 2:
            lines = self._table(joined and f"{joined}  {bits}", width)
            if alternatives and height > len(lines) + 2:
                lines += self._bars(alternatives, width)
        else:
            lines = self._summary(joined or self._word, bits, alternatives, width)
        styles = {name.removeprefix("word-details--"): style for name, style in self.component_styles().items()}
        return [Strip([Segment(text, styles[name]) for text, name in line]).crop(0, width) for line in lines[:height]]

    def _summary(self, word: str, bits: str, alternatives: list[tuple[str, float]], width: int) -> list[Row]:
        (network, baseline), word = self._scores, truncate(word, width // 3)
        if network is None:
            return [[(word, "title"), ("  not scored yet", "muted")]]
        available = width - cell_len(word) - 2
        figures = [truncate(f"{network.bits:.1f} bits{bits and f' = {bits}'}", available)]
        for score, name in ((network, ""), (baseline, "Kneser-Ney ")):
            if score is not None:
                figures.append(f"{name}{score.bits:.1f} bits" if name else format_percent(score.model_prob))
                figures += [f"rank {score.rank:,}"] if score.rank is not None else []
        expected = [f"{name} {format_percent(prob)}" for name, prob in alternatives]
        return [
            [(word, "title"), (f"  {join_fitting(figures, available)}", "")],
            # A token begins with a dot in place of its space.
            [("expected", "muted"), (f"  {join_fitting(expected, width - 10, '  ')}" if expected else "", "")],
        ]

    def _table(self, tokens: str, width: int) -> list[Row]:
        lines: list[Row] = [[(f"WORD  {truncate(self._word, width - 6)}", "title")]]
        if cell_len(f"WORD  {self._word}  {self._location}") <= width:
            lines[0].append((f"  {self._location}", "muted"))
        lines.append([(f"{'':11}{'surprise':>9}  {'probability':>12}{'rank':>8}", "muted")])
        for name, score in zip(("network", "Kneser-Ney"), self._scores, strict=True):
            values = f"{'-':>9}"
            if score:
                rank = "-" if score.rank is None else f"{score.rank:,}"
                values = f"{score.bits:4.1f} bits  {format_percent(score.model_prob):>12}{rank:>8}"
            lines.append([(f"{name:11}", "muted"), (values, "")])
        network, baseline = self._scores
        difference = ""
        if network and baseline:
            saved = baseline.bits - network.bits
            better = "the network" if saved > 0 else "Kneser-Ney"
            difference = "no difference" if abs(saved) < 0.05 else f"{better} is better by {abs(saved):.1f} bits"
        lines.append([(difference, "")])
        return [*lines, *[[("TOKENS  ", "title"), (truncate(tokens, width - 8), "")]] * bool(tokens)]

    def _bars(self, alternatives: list[tuple[str, float]], width: int) -> list[Row]:
        model = "the network" if self._shown is self._scores[0] else "Kneser-Ney"
        name_width = max(5, min(14, max(len(name) for name, _ in alternatives)))
        bar_width = max(4, width - name_width - PROBABILITY_WIDTH - 1)
        highest = max(alternatives[0][1], 1e-9)
        rows: list[Row] = [
            [
                (f"{truncate(name, name_width):{name_width}} ", ""),
                (f"{bar(prob / highest, bar_width):{bar_width}}", "bar"),
                (f"{format_percent(prob):>{PROBABILITY_WIDTH}}", ""),
            ]
            for name, prob in alternatives
        ]
        return [[], [("EXPECTED HERE  ", "title"), (f"by {model}", "muted")], *rows]
