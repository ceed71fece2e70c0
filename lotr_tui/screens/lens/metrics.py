"""Metrics of the whole text, on one line."""

import numpy as np
import numpy.typing as npt
from lotr_tui.screens.text.metrics_bar import Metric, MetricsBar, unreadable_metric

from engine.analysis.evaluation import Evaluation, TextForm, native_form, summarize_log_probs
from engine.analysis.token_scores import TokenScores
from lotr_tui.formatting import PRETRAINED_NOTE, format_percent, plural
from lotr_tui.theme import MUTED

# Note on the characters that are counted, by the form of the text that a tokenizer reads.
TEXT_FORM_NAMES: dict[TextForm, str] = {"original": "", "words": " (lower-case words)"}


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
    evaluation, tokens = _evaluate(network_scores), network_scores.tokens
    # Punctuation, and a line end read as a token, are not words to the reader.
    num_words = int(np.count_nonzero(tokens.has_letters[: network_scores.num_scored_words]))
    parts: list[Metric] = [[("perplexity ", MUTED), (f"{evaluation.perplexity:,.1f}", "bold")]]
    if baseline_scores is None:
        parts.append([(baseline_status, MUTED)])
    elif baseline_scores.num_scored:
        parts.append([("Kneser-Ney ", MUTED), (f"{_evaluate(baseline_scores).perplexity:,.1f}", "")])
    bits_per_character = network_scores.bits_per_character
    if not np.isnan(bits_per_character):
        note = TEXT_FORM_NAMES[native_form(network_scores.tokenizer)]
        if network_scores.tokenizer.name == "pretrained":
            note = f", {PRETRAINED_NOTE}"
        # A perplexity of tokens says little to someone who does not know the tokens.
        place = 0 if tokens.unk_id is None else len(parts)
        parts.insert(place, [(f"{bits_per_character:.2f}", ""), (f" bits/character{note}", MUTED)])
    parts += unreadable_metric(tokens.skipped_texts())
    bits_per_token = f"{evaluation.bits_per_token:.2f}"
    if tokens.unk_id is None:
        parts += [
            [(f"{plural(num_words, 'word')}, {plural(evaluation.tokens, 'token')}", "")],
            [("surprise ", MUTED), (bits_per_token, ""), (" bits per token", MUTED)],
        ]
    else:
        is_unknown = tokens.unknown_mask[: evaluation.tokens]
        unknown = f"{is_unknown.sum():,} unknown ({format_percent(evaluation.unk_rate)})"
        known = "-" if is_unknown.all() else f"{_evaluate(network_scores, ~is_unknown).perplexity:,.1f}"
        parts += [
            [("surprise ", MUTED), (bits_per_token, ""), (" bits per word", MUTED)],
            [(f"{num_words:,} words, {unknown}", "")],
            [("without unknown ", MUTED), (known, "")],
        ]
    both = min(network_scores.num_scored_words, 0 if baseline_scores is None else baseline_scores.num_scored_words)
    if baseline_scores is not None and both:
        fraction = format_percent(float(np.mean(baseline_scores.word_bits[:both] > network_scores.word_bits[:both])))
        parts.append([("better than Kneser-Ney on ", MUTED), (fraction, ""), (" of words", MUTED)])
    return parts


def _evaluate(scores: TokenScores, is_counted: npt.NDArray[np.bool_] | None = None) -> Evaluation:
    """Return the evaluation on the tokens scored so far, or on those of them that count."""
    log_probs, ids = scores.log_probs[: scores.num_scored], scores.tokens.ids[: scores.num_scored]
    if is_counted is not None:
        log_probs, ids = log_probs[: len(is_counted)][is_counted], ids[: len(is_counted)][is_counted]
    return summarize_log_probs(log_probs, ids, scores.tokens.unk_id)
