"""Lines of the figure: the word under the cursor, the sums, the held-out text, and the notebook's validation."""

import math

from rich.cells import cell_len
from textual.content import Content

from engine.analysis.evaluation import perplexity
from engine.analysis.notebook import NotebookEvaluation
from engine.analysis.token_scores import TokenScores
from engine.data.tokenizers.base import UNK
from lotr_tui.formatting import (
    LINE_END_MARK,
    MISSING,
    fit_cells,
    format_lone_token,
    format_percent,
    format_perplexity,
    token_noun,
    truncate,
)
from lotr_tui.learn.held_out import HeldOut
from lotr_tui.screens.inspect.page import PART_SEPARATOR, visible_part
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import join_fitting

MAX_WORD_WIDTH = 16
NUM_EXPECTED = 5
WIDE = 72
"""Columns from which on names are written out."""


def describe_word(scores: TokenScores, word: int, width: int, *, tall: bool) -> Content:
    """Return the bits of a word, and the words that the model expected there."""
    score = scores.word_score(word)
    written = scores.tokens.word(word) if scores.tokens.num_words else ""
    name = LINE_END_MARK if written.endswith("\n") else truncate(visible_part(written), MAX_WORD_WIDTH)
    if score is None:
        return Content.styled("not scored yet" if name else "type a line", MUTED)
    parts: list[str | tuple[str, str]] = [(name, "bold"), f"  {score.bits:.1f} bits"]
    parts.append((f" = -log2 of {format_percent(score.model_prob)}", MUTED))
    if scores.tokens.unknown_words[word]:
        parts.append((", read as <unk>", MUTED))
    elif len(score.parts) > 1 and tall:
        tokens = PART_SEPARATOR.join(visible_part(text) for text, _ in score.parts)
        parts.append((f", of {tokens}: {' + '.join(f'{bits:.1f}' for _, bits in score.parts)}", MUTED))
    expected = [
        (token if token == UNK else format_lone_token(token), prob) for token, prob in score.top_tokens[:NUM_EXPECTED]
    ]
    if tall:
        rows = [_bar_row(token, format_percent(prob), prob, width) for token, prob in expected]
        return Content("\n").join([Content.assemble(*parts), _muted("expected there"), *rows])
    heading = Content.assemble(*parts, ("   expected ", MUTED))
    texts = [f"{token} {format_percent(prob)}" for token, prob in expected]
    return Content.assemble(heading, truncate(join_fitting(texts, width - heading.cell_length), 60))


def _bar_row(name: str, value: str, fraction: float, width: int) -> Content:
    """Return a row with a name, a value and a bar."""
    heading = f"  {fit_cells(name, MAX_WORD_WIDTH)} {value:>7}  "
    return Content.assemble(heading, (bar(fraction, max(4, min(40, width - cell_len(heading)))), "$accent"))


def describe_sums(scores: TokenScores, word: int, width: int) -> Content:
    """Return the bits, their mean and the perplexity, of the text up to a word and of the whole text."""
    tokens = scores.tokens
    end = int(tokens.word_ends[word]) if tokens.num_words else 0
    return Content("\n").join(
        _describe_sum(name, scores, size, width) for name, size in (("to cursor", end), ("whole line", len(tokens)))
    )


def _describe_sum(name: str, scores: TokenScores, size: int, width: int) -> Content:
    """Return `name 13.4 bits ÷ 7 words = 1.91 bits  perplexity 2^1.91 = 3.8` for the first tokens of a text."""
    noun = token_noun(scores.tokenizer)
    bits = float(scores.bits[:size].sum()) if size else math.nan
    mean = bits / size if size else math.nan
    is_wide = width >= WIDE
    power = f"2^{_number(mean, 2)}"
    return Content.assemble(
        (f"{name:10}" if is_wide else f"{name.split()[-1]:6}", MUTED),
        f"{_number(bits, 1):>6} bits ÷ {size:>3,} {noun if size == 1 else f'{noun}s':{len(noun) + 1}} = ",
        (f"{_number(mean, 2):>5}", "bold"),
        (" bits  perplexity " if is_wide else "  ", MUTED),
        f"{power:>6} = ",
        (MISSING if math.isnan(mean) else format_perplexity(perplexity(mean * math.log(2))), "bold $accent"),
    )


def _number(value: float, decimals: int) -> str:
    return MISSING if math.isnan(value) else f"{value:.{decimals}f}"


def describe_held_out(held_out: HeldOut, width: int, *, tall: bool) -> Content:
    """Return the perplexity of the held-out text by each model."""
    values = [(truncate(score.name, MAX_WORD_WIDTH), score) for score in held_out.scores]
    if tall:
        heading = Content.assemble(
            ("The held-out text", "bold"), (f"  {held_out.num_tokens:,} words, ends of lines included", MUTED)
        )
        max_bits = max(score.bits for score in held_out.scores)
        bar_width = max(4, min(40, width - MAX_WORD_WIDTH - 26))
        rows = [
            Content.assemble(
                f"  {fit_cells(name, MAX_WORD_WIDTH)} ",
                (f"{_short_perplexity(score.perplexity):>7}", "bold"),
                (f" = 2^{score.bits:<5.2f}  ", MUTED),
                (bar(score.bits / max_bits, bar_width), "$accent"),
            )
            for name, score in values
        ]
        return Content("\n").join([heading, *rows])
    texts = [
        Content.assemble((f"{name} ", MUTED), (_short_perplexity(score.perplexity), "bold")) for name, score in values
    ]
    separator = Content.styled(" · ", MUTED)
    heading = Content.styled("held-out text  ", MUTED)
    line = separator.join(texts)
    if heading.cell_length + line.cell_length <= width:
        return Content.assemble(heading, line)
    half = len(texts) // 2
    return line if line.cell_length <= width else separator.join(texts[:half]) + "\n" + separator.join(texts[half:])


def describe_rows(num_rows: int, row_length: int) -> Content:
    """Return how the notebook lays out the held-out text."""
    return Content.assemble(
        ("The notebook", "bold"),
        (f"  reads the first {num_rows * row_length:,} of them in {num_rows} rows of {row_length}", MUTED),
        (f", and predicts {num_rows} × {row_length - 1} = {num_rows * (row_length - 1):,}", MUTED),
    )


def _short_perplexity(value: float) -> str:
    is_whole = value.is_integer() or 1000 <= value < 1e6
    return f"{value:,.0f}" if is_whole else format_perplexity(value)


def describe_notebook(evaluation: NotebookEvaluation, num_predicted: int, width: int) -> Content:
    """Return what the notebook scores and prints with a window, the true perplexity of the scored words, and why.

    `num_predicted` is the number of words that could be scored.
    """
    is_empty = evaluation.perplexity is None
    separator = " · " if width >= WIDE else "\n"
    true = MISSING if evaluation.perplexity is None else f"{evaluation.perplexity:.3f}"
    numbers = Content.assemble(
        ("scores ", MUTED),
        (f"{evaluation.num_scored:5,}", "bold"),
        (f" of {num_predicted:,} words{separator}prints ", MUTED),
        (f"{evaluation.printed:7.3f}", "bold $text-error" if is_empty else "bold"),
        (" · true perplexity ", MUTED),
        (f"{true:>7}", "bold $accent"),
    )
    return Content.assemble(numbers, "\n", _muted(_explain(evaluation, is_wide=width >= WIDE)))


def _explain(evaluation: NotebookEvaluation, *, is_wide: bool) -> str:
    """Return which words of a row are scored, and why the notebook does not print the true perplexity."""
    if not evaluation.num_windows:
        return f"No window of {evaluation.window} fits in a row. The sum is 0; 2^0 = 1."
    mean, divisor = evaluation.mean_bits, evaluation.divisor
    windows = f"{evaluation.num_windows} × {evaluation.window}"
    scored = f"{windows} = {divisor - 1} words of a row, divided by" if is_wide else f"{windows} words ÷"
    return f"{scored} {divisor}: 2^({mean:.2f} × {divisor - 1}/{divisor}), not 2^{mean:.2f}."


def _muted(text: str) -> Content:
    """Return secondary text."""
    return Content.styled(text, MUTED)
