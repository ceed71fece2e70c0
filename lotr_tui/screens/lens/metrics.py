"""Metrics of the whole text, on one line."""

from engine.analysis.token_scores import TokenScores, compare_scores
from engine.data.vocabulary import EOS_ID
from lotr_tui.formatting import format_percent
from lotr_tui.screens.text.metrics_bar import Metric, MetricsBar, unreadable_metric
from lotr_tui.theme import MUTED


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
    # A line end read as <eos> is a token, but not a word to the reader.
    num_words = evaluation.tokens - int((network_scores.tokens.ids[: network_scores.num_scored] == EOS_ID).sum())
    known = "-" if summary.known_perplexity is None else f"{summary.known_perplexity:,.1f}"
    parts: list[Metric] = [[("perplexity ", MUTED), (f"{evaluation.perplexity:,.1f}", "bold")]]
    if baseline is not None:
        parts.append([("Kneser-Ney ", MUTED), (f"{baseline.evaluation.perplexity:,.1f}", "")])
    elif baseline_scores is None:
        parts.append([(baseline_status, MUTED)])
    parts += unreadable_metric(network_scores.tokens.skipped_texts())
    parts += [
        [("surprise ", MUTED), (f"{evaluation.bits_per_token:.2f}", ""), (" bits per word", MUTED)],
        [(f"{num_words:,} words, {summary.num_unknown:,} unknown ({format_percent(evaluation.unk_rate)})", "")],
        [("without unknown ", MUTED), (known, "")],
    ]
    if comparison is not None:
        fraction = format_percent(comparison.num_better / comparison.num_tokens)
        parts.append([("better than Kneser-Ney on ", MUTED), (fraction, ""), (" of words", MUTED)])
    return parts
