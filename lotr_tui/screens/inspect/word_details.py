"""Figures of the lens: the ones of a text in a line, and the scores and likeliest alternatives of a word."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
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

PROBABILITY_WIDTH, LIST_GAP = 8, 2
TokenLists = Mapping[str, Sequence[tuple[str, float]]]  # likely tokens with their probabilities, by a model's name
TEXT_FORM_NAMES: dict[TextForm, str] = {"original": "", "whitespace": " (words only)", "words": " (lower-case words)"}


def describe_scores(network: TokenScores, baseline: TokenScores | None, baseline_name: str) -> list[Content]:
    """Return the metrics of a text of which at least one token is scored; there may be no other model."""
    tokens, tokenizer = network.tokens, network.tokenizer
    own, *other = (
        summarize_log_probs(each.log_probs[: each.num_scored], tokens.ids[: each.num_scored], tokens.unk_id)
        for each in (network, baseline)
        if each is not None and each.num_scored
    )
    metrics = [Content.assemble(("perplexity ", MUTED), (f"{own.perplexity:,.1f}", "bold"))]
    if other:
        metrics.append(Content.assemble((f"{baseline_name} ", MUTED), f"{other[0].perplexity:,.1f}"))
    else:
        metrics.append(Content.styled(f"no {baseline_name}" if baseline is None else f"{baseline_name} …", MUTED))
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
    _scores: Mapping[str, WordScore | None] = {}
    _shown: Sequence[str] = ()

    def show(self, word: str, location: str, scores: Mapping[str, WordScore | None], shown: Sequence[str]) -> None:
        """Show a word with its scores by two models, by their names; the alternatives by each of `shown` are listed."""
        self._word, self._location, self._scores, self._shown = word, location, scores, shown
        self.redraw_changes()

    def draw(self, width: int, height: int) -> list[Strip]:
        if not self._word:
            return []
        own, other = self._scores.values()
        parts = [] if own is None else [(printable(visible_part(text)), bits) for text, bits in own.parts]
        joined = "|".join(text for text, _ in parts)
        sums = [round(total, 1) for total in accumulate((bits for _, bits in parts), initial=0.0)]
        bits = " + ".join(f"{end - start:.1f}" for start, end in pairwise(sums))  # what adds up to the rounded sum
        if len(parts) < 2:
            joined = bits = ""
        lists = {name: score.top_tokens for name in self._shown if (score := self._scores[name]) is not None}
        if height > 2:
            lines = self._table(own, other, joined and f"{joined}  {bits}", width)
            if lists and height > len(lines) + 2:
                lines += self._bars(lists, width)
        else:
            lines = self._summary(own, other, joined or self._word, bits, lists, width)
        styles = {name.removeprefix("word-details--"): style for name, style in self.component_styles().items()}
        return [Strip([Segment(text, styles[name]) for text, name in line]).crop(0, width) for line in lines[:height]]

    def _summary(
        self, own: WordScore | None, other: WordScore | None, word: str, bits: str, lists: TokenLists, width: int
    ) -> list[Row]:
        word = truncate(word, width // 3)
        if own is None:
            return [[(word, "title"), ("  not scored yet", "muted")]]
        available = width - cell_len(word) - 2
        figures = [truncate(f"{own.bits:.1f} bits{bits and f' = {bits}'}", available), format_percent(own.model_prob)]
        figures += [f"rank {own.rank:,}"] if own.rank is not None else []
        if other is not None:
            figures.append(f"{[*self._scores][1]} {other.bits:.1f} bits")
            figures += [f"rank {other.rank:,}"] if other.rank is not None else []
        expected: Row = [("expected", "muted")]
        for name, tokens in lists.items():
            title = "" if len(lists) == 1 else f"  {name}"
            # A token begins with a dot in place of its space.
            texts = [f"{format_lone_token(token)} {format_percent(prob)}" for token, prob in tokens]
            shown = join_fitting(texts, (width - 8) // len(lists) - len(title) - 2, "  ")
            expected += [(title, "muted"), (f"  {shown}", "")]
        return [[(word, "title"), (f"  {join_fitting(figures, available)}", "")], expected]

    def _table(self, own: WordScore | None, other: WordScore | None, tokens: str, width: int) -> list[Row]:
        lines: list[Row] = [[(f"WORD  {truncate(self._word, width - 6)}", "title")]]
        if cell_len(f"WORD  {self._word}  {self._location}") <= width:
            lines[0].append((f"  {self._location}", "muted"))
        lines.append([(f"{'':11}{'surprise':>9}  {'probability':>12}{'rank':>8}", "muted")])
        for name, score in self._scores.items():
            values = f"{'-':>9}"
            if score:
                rank = "-" if score.rank is None else f"{score.rank:,}"
                values = f"{score.bits:4.1f} bits  {format_percent(score.model_prob):>12}{rank:>8}"
            lines.append([(f"{name:11}", "muted"), (values, "")])
        difference = ""
        if own and other:
            gain = other.bits - own.bits
            result, factor = ("gained", "as likely") if gain > 0 else ("lost", "less likely"), 2.0 ** abs(gain)
            times = f"{factor:,.{int(factor < 10)}f} times {result[1]}"
            difference = "no difference" if abs(gain) < 0.05 else f"{abs(gain):.1f} bits {result[0]}: {times}"
        lines.append([(difference, "")])
        return [*lines, *[[("TOKENS  ", "title"), (truncate(tokens, width - 8), "")]] * bool(tokens)]

    def _bars(self, lists: TokenLists, width: int) -> list[Row]:
        room = (width + LIST_GAP) // len(lists) - LIST_GAP
        highest = max(1e-9, *(prob for tokens in lists.values() for _, prob in tokens))
        columns = list[list[Row]]()
        for name, tokens in lists.items():
            names = [format_lone_token(token) for token, _ in tokens]
            name_width = max(5, min(14, room // 3, max(map(len, names))))
            bar_width = max(4, room - name_width - PROBABILITY_WIDTH - 1)
            column: list[Row] = [[("EXPECTED  ", "title"), (name.ljust(room - 10 + LIST_GAP), "muted")]]
            for text, (_, prob) in zip(names, tokens, strict=True):
                blocks, percent = bar(prob / highest, bar_width), format_percent(prob)
                label = f"{truncate(text, name_width):{name_width}} "
                end = f"{percent:>{PROBABILITY_WIDTH}}{'':{LIST_GAP}}"
                column.append([(label, ""), (f"{blocks:{bar_width}}", "bar"), (end, "")])
            columns.append(column)
        return [[], *(list(chain.from_iterable(cells)) for cells in zip(*columns, strict=True))]
