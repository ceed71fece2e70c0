"""Metrics of the whole text, on one line."""

import numpy as np

from engine.analysis.bits_per_character import TextForm, native_form
from engine.analysis.token_scores import TokenScores, compare_scores
from lotr_tui.formatting import PRETRAINED_NOTE, format_percent, plural
from lotr_tui.screens.text.metrics_bar import Metric, MetricsBar, unreadable_metric
from lotr_tui.theme import MUTED

TEXT_FORM_NAMES: dict[TextForm, str] = {
    "original": "",
    "whitespace": " (words only)",
    "words": " (lower-case words)",
}
"""Note on the characters that are counted, by the form of the text that a tokenizer reads."""


class LensMetrics(MetricsBar):
    """Metrics of the text by the network, and by Kneser-Ney where it is known."""

    def show_scores(
        self, network_scores: TokenScores | None, baseline_scores: TokenScores | None, baseline_status: str, note: str
    ) -> None:
        """Show the metrics of the scores computed so far.

        The baseline status replaces missing Kneser-Ney scores. The note is shown once all tokens are scored.
        """
        metrics: list[Metric] = []
        if network_scores is not None and network_scores.num_scored:
            metrics = _metric_parts(network_scores, baseline_scores, baseline_status)
            if not network_scores.is_complete:
                note = f"{100 * network_scores.num_scored / len(network_scores.tokens):.0f} % scored"
        self.show_metrics(metrics, note)


def _metric_parts(
    network_scores: TokenScores, baseline_scores: TokenScores | None, baseline_status: str
) -> list[Metric]:
    summary = network_scores.summarize()
    assert summary is not None, "called only once a token is scored"
    evaluation = summary.evaluation
    baseline, comparison = None, None
    if baseline_scores is not None:
        baseline, comparison = baseline_scores.summarize(), compare_scores(network_scores, baseline_scores)
    tokens = network_scores.tokens
    # Punctuation, and a line end read as a token, are not words to the reader.
    num_words = int(np.count_nonzero(tokens.has_letters[: network_scores.num_scored_words]))
    parts: list[Metric] = [[("perplexity ", MUTED), (f"{evaluation.perplexity:,.1f}", "bold")]]
    if baseline is not None:
        parts.append([("Kneser-Ney ", MUTED), (f"{baseline.evaluation.perplexity:,.1f}", "")])
    elif baseline_scores is None:
        parts.append([(baseline_status, MUTED)])
    if not np.isnan(summary.bits_per_character):
        note = TEXT_FORM_NAMES[native_form(network_scores.tokenizer)]
        if network_scores.tokenizer.name == "pretrained":
            note = f", {PRETRAINED_NOTE}"
        # A perplexity of tokens says little to someone who does not know the tokens.
        place = 0 if tokens.unk_id is None else len(parts)
        parts.insert(place, [(f"{summary.bits_per_character:.2f}", ""), (f" bits/character{note}", MUTED)])
    parts += unreadable_metric(tokens.skipped_texts())
    bits_per_token = f"{evaluation.bits_per_token:.2f}"
    if tokens.unk_id is None:
        parts += [
            [(f"{plural(num_words, 'word')}, {plural(evaluation.tokens, 'token')}", "")],
            [("surprise ", MUTED), (bits_per_token, ""), (" bits per token", MUTED)],
        ]
    else:
        unknown = f"{summary.num_unknown:,} unknown ({format_percent(evaluation.unk_rate)})"
        known = "-" if summary.known_perplexity is None else f"{summary.known_perplexity:,.1f}"
        parts += [
            [("surprise ", MUTED), (bits_per_token, ""), (" bits per word", MUTED)],
            [(f"{num_words:,} words, {unknown}", "")],
            [("without unknown ", MUTED), (known, "")],
        ]
    if comparison is not None:
        fraction = format_percent(comparison.num_better / comparison.num_words)
        parts.append([("better than Kneser-Ney on ", MUTED), (fraction, ""), (" of words", MUTED)])
    return parts
