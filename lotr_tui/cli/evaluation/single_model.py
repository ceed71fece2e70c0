"""Evaluation of one model or ensemble: its combinations and baselines on one text."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

from rich.text import Text

from engine.analysis.bits_per_character import EncodedText, TextForm
from engine.analysis.model_comparison import rate_confidence_interval
from engine.analysis.perplexity import (
    BOOTSTRAP_BLOCK_SIZE,
    Evaluation,
    perplexity_confidence_interval,
    summarize_log_probs,
    token_log_probs,
)
from engine.data.arrays import Float64Array
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import TokenIds
from engine.errors import printable
from engine.models.ngram import MAX_KNESER_NEY_TOKENS, Unigram
from engine.runs.adapter_files import needs_base
from engine.runs.combine import CombinationOptions, ModelCombiner
from lotr_tui.cli.console import make_console, make_table, print_json, to_json
from lotr_tui.cli.evaluation.texts import FORM_DESCRIPTIONS, TextSource
from lotr_tui.cli.model_names import report_names
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE
from lotr_tui.session.model_abilities import ContextModel

COMBINATION_KEYS = ("dynamic", "cache", "mixture")
"""Keys of the combinations in the JSON report; each adds something to the one before it."""
MIN_INTERVAL_TOKENS = 10 * BOOTSTRAP_BLOCK_SIZE
"""Fewest tokens for a confidence interval: with fewer blocks, the resampled texts are almost all alike."""


class _ModelScores(NamedTuple):
    """Scores of one model, one row of the table."""

    json_key: str
    """Key of the perplexity in the JSON report."""
    name: str
    log_probs: Float64Array
    """Natural-log probability `[time]` of each token."""
    note: str = ""
    """Line about the chosen weights, cache and learning rate; empty if there is none."""


def print_evaluation(
    combiner: ModelCombiner,
    options: CombinationOptions,
    source: TextSource,
    *,
    only_words: bool,
    baselines: bool,
    as_json: bool,
) -> None:
    """Print the perplexities and bits per character of the runs, of their combinations and of the n-gram baselines."""
    text, form = source.encode(combiner, only_words=only_words)
    has_baselines = baselines or (source.path is None and not as_json)
    rows = _score_models(combiner, options, text.ids, baselines=has_baselines)
    mode = combiner.runs[0].config.data.mode
    if as_json:
        print_json(_report_record(combiner, mode, source, text, form, rows))
        return
    table = make_table(["model"], ["perplexity", "95 % CI", "bits/token", "bits/char"])
    for row in rows:
        evaluation = _summarize(row, text)
        interval = _confidence_interval(row, text)
        table.add_row(
            Text(printable(row.name)),
            f"{evaluation.perplexity:.2f}",
            f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else MISSING,
            f"{evaluation.bits_per_token:.3f}",
            f"{text.bits_per_character(row.log_probs):.3f}",
        )
    console = make_console()
    console.print(table)
    for row in rows:
        if row.note:
            console.print(printable(f"{row.name}: {row.note}"))
    num_tokens = int(text.is_scored.sum())
    tokens = f"{num_tokens:,} tokens" + (" of the utterances, given the names" if mode == "dialogue" else "")
    if text.tokenizer.unk_id is not None:
        tokens += f", {100 * _summarize(rows[0], text).unk_rate:.1f} % rare words"
    is_plain = text.tokenizer.reads_line_ends and mode != "dialogue"
    label = source.name if is_plain else f"{source.name}, {mode} mode"
    console.print(printable(f"{label}: {tokens}"))
    if mode == "dialogue" and source.path is not None and not source.names_speakers:
        console.print(f"no line names its speaker: {SOMEONE} says all")
    console.print(f"bits/char: of {FORM_DESCRIPTIONS[form]}, {text.num_characters:,} characters")
    if pretrained := [run.name for run in combiner.runs if needs_base(run.config)]:
        console.print(printable(f"{', '.join(report_names(pretrained))}: {PRETRAINED_NOTE}"))
    decoder = combiner.runs[0].decoder
    if isinstance(decoder, ContextModel) and len(text.ids) > decoder.context_size:
        console.print(f"context: {decoder.context_size:,} tokens; a full context continues with its last half")
    if num_tokens < MIN_INTERVAL_TOKENS:
        console.print(f"a confidence interval (95 % CI) needs at least {MIN_INTERVAL_TOKENS} tokens")


def print_token_scores(
    combiner: ModelCombiner, options: CombinationOptions, source: TextSource, *, only_words: bool
) -> None:
    """Print one JSON object per token that counts: id, text, natural-log probability."""
    text = source.encode(combiner, only_words=only_words)[0]
    model = combiner.combine(options).model
    scores = token_log_probs(model, text.ids)[text.is_scored].tolist()
    for token, score in zip(text.ids[text.is_scored].tolist(), scores, strict=True):
        print(to_json({"id": token, "text": model.tokenizer.tokens[token], "logprob": score}))


def _score_models(
    combiner: ModelCombiner, options: CombinationOptions, ids: TokenIds, *, baselines: bool
) -> list[_ModelScores]:
    """Return one row for the runs alone, then one for each requested combination, added to the ones before it."""
    plain = replace(options, mixture=False, cache=False, dynamic=False, weights=())
    is_ensemble = len(combiner.runs) > 1
    names = report_names([run.name for run in combiner.runs])
    combinations = [("perplexity", "ensemble" if is_ensemble else names[0], plain)]
    if options.dynamic:
        combinations.append(("dynamic", "with dynamic evaluation", replace(plain, dynamic=True)))
    if options.cache:
        combinations.append(("cache", "with a cache", replace(plain, dynamic=options.dynamic, cache=True)))
    if options.mixture or options.weights:
        combinations.append(("mixture", "mixture", options))
    # All are combined before the text is scored, which can take longer than finding out that one is impossible.
    combined_models = [(key, name, combiner.combine(combination)) for key, name, combination in combinations]
    rows = [
        _ModelScores(key, name, token_log_probs(combined.model, ids), combined.describe())
        for key, name, combined in combined_models
    ]
    if is_ensemble:
        rows += [
            _ModelScores("run", name, token_log_probs(run.decoder, ids))
            for name, run in zip(names, combiner.runs, strict=True)
        ]
    if baselines:
        unigram = Unigram(combiner.dataset.train, combiner.dataset.tokenizer)
        rows.append(_ModelScores("unigram", "unigram", token_log_probs(unigram, ids)))
        if len(combiner.dataset.train) <= MAX_KNESER_NEY_TOKENS:
            rows.append(_ModelScores("kneser_ney_5", "Kneser-Ney 5", token_log_probs(combiner.kneser_ney, ids)))
    return rows


def _report_record(
    combiner: ModelCombiner,
    mode: str,
    source: TextSource,
    text: EncodedText,
    form: TextForm,
    model_scores: Sequence[_ModelScores],
) -> dict[str, object]:
    """Return the JSON report. Its top-level figures belong to the complete combination, the last in `model_scores`."""
    evaluated = [row for row in model_scores if row.json_key in ("perplexity", *COMBINATION_KEYS)][-1]
    perplexities = {row.json_key: _summarize(row, text).perplexity for row in model_scores}
    record: dict[str, object] = {
        "run": "+".join(run.name for run in combiner.runs),
        "split": source.name,
        "mode": mode,
        "pretrained_on_other_text": any(needs_base(run.config) for run in combiner.runs),
        **asdict(_summarize(evaluated, text)),
        "confidence_interval": _confidence_interval(evaluated, text),
        "text_form": form,
        "characters": text.num_characters,
        "bits_per_character": text.bits_per_character(evaluated.log_probs),
        "bits_per_character_interval": rate_confidence_interval(text.block_bits(evaluated.log_probs), text.block_sizes),
    }
    baselines = {name: perplexities[name] for name in ("unigram", "kneser_ney_5") if name in perplexities}
    if baselines:
        record["baselines"] = baselines
    if evaluated.json_key in COMBINATION_KEYS:
        record["plain"] = perplexities["perplexity"]
    for row in model_scores:
        if row.json_key in COMBINATION_KEYS:
            record[row.json_key] = perplexities[row.json_key]
            record[f"{row.json_key}_description"] = row.note
    return record


def _summarize(row: _ModelScores, text: EncodedText) -> Evaluation:
    is_scored = text.is_scored
    return summarize_log_probs(row.log_probs[is_scored], text.ids[is_scored], text.tokenizer.unk_id)


def _confidence_interval(row: _ModelScores, text: EncodedText) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of a perplexity; None if the text is too short for one."""
    log_probs = row.log_probs[text.is_scored]
    return perplexity_confidence_interval(log_probs) if len(log_probs) >= MIN_INTERVAL_TOKENS else None
