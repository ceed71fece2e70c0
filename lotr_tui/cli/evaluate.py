"""`lotr-tui eval`: perplexities of models and baselines on one text."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.text import Text

from engine.analysis.perplexity import (
    BOOTSTRAP_BLOCK_SIZE,
    perplexity_confidence_interval,
    summarize_log_probs,
    token_log_probs,
)
from engine.data.arrays import Float64Array
from engine.data.corpus import read_text
from engine.data.dataset import concatenate_lines, count_characters, encode_lines
from engine.data.lines import Line
from engine.data.vocabulary import EOS_ID, UNK_ID, TokenIds
from engine.errors import CorpusError, printable
from engine.models.ngram import MAX_KNESER_NEY_TOKENS, Unigram
from engine.runs.combine import CombinationOptions, ModelCombiner
from lotr_tui.cli.console import make_console, make_table, print_json, to_json
from lotr_tui.formatting import MISSING

COMBINATION_KEYS = ("dynamic", "cache", "mixture")
"""Keys of the combinations in the JSON report; each adds something to the one before it."""
MIN_INTERVAL_TOKENS = 10 * BOOTSTRAP_BLOCK_SIZE
"""Fewest tokens for a confidence interval: with fewer blocks, the resampled texts are almost all alike."""


class _EvaluationText(NamedTuple):
    """Text to score."""

    name: str
    ids: TokenIds
    num_characters: int


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
    split: str,
    text: str | None,
    *,
    baselines: bool,
    as_json: bool,
) -> None:
    """Print the perplexities of the runs, of their combinations and of the n-gram baselines."""
    scored = _load_text(combiner, split, text)
    rows = _score_models(combiner, options, scored.ids, baselines=baselines or (text is None and not as_json))
    mode = combiner.runs[0].config.data.mode
    if as_json:
        print_json(_report_record(combiner, mode, scored, rows))
        return
    table = make_table(["model"], ["perplexity", "95 % CI", "bits/token", "bits/char"])
    for row in rows:
        evaluation = summarize_log_probs(row.log_probs, scored.ids)
        interval = _confidence_interval(row.log_probs)
        table.add_row(
            Text(printable(row.name)),
            f"{evaluation.perplexity:.2f}",
            f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else MISSING,
            f"{evaluation.bits_per_token:.3f}",
            f"{evaluation.bits_per_token * len(scored.ids) / scored.num_characters:.3f}",
        )
    console = make_console()
    console.print(table)
    for row in rows:
        if row.note:
            console.print(printable(f"{row.name}: {row.note}"))
    num_tokens, unk_percent = len(scored.ids), 100 * np.mean(scored.ids == UNK_ID)
    console.print(printable(f"{scored.name}, {mode} mode: {num_tokens:,} tokens, {unk_percent:.1f} % rare words"))
    if num_tokens < MIN_INTERVAL_TOKENS:
        console.print(f"a confidence interval (95 % CI) needs at least {MIN_INTERVAL_TOKENS} tokens")


def print_token_scores(combiner: ModelCombiner, options: CombinationOptions, split: str, text: str | None) -> None:
    """Print one JSON object per token: id, text, natural-log probability."""
    ids = _load_text(combiner, split, text).ids
    model = combiner.combine(options).model
    for token, score in zip(ids, token_log_probs(model, ids), strict=True):
        print(to_json({"id": int(token), "text": model.vocabulary.tokens[token], "logprob": float(score)}))


def _score_models(
    combiner: ModelCombiner, options: CombinationOptions, ids: TokenIds, *, baselines: bool
) -> list[_ModelScores]:
    """Return one row for the runs alone, then one for each requested combination, added to the ones before it."""
    plain = replace(options, mixture=False, cache=False, dynamic=False, weights=())
    is_ensemble = len(combiner.runs) > 1
    combinations = [("perplexity", "ensemble" if is_ensemble else combiner.runs[0].name, plain)]
    if options.dynamic:
        combinations.append(("dynamic", "with dynamic evaluation", replace(plain, dynamic=True)))
    if options.cache:
        combinations.append(("cache", "with a cache", replace(plain, dynamic=options.dynamic, cache=True)))
    if options.mixture or options.weights:
        combinations.append(("mixture", "mixture", options))
    rows = []
    for key, name, combination in combinations:
        combined = combiner.combine(combination)
        rows.append(_ModelScores(key, name, token_log_probs(combined.model, ids), combined.describe()))
    if is_ensemble:
        rows += [_ModelScores("run", run.name, token_log_probs(run.decoder, ids)) for run in combiner.runs]
    if baselines:
        unigram = Unigram(combiner.dataset.train, combiner.dataset.vocabulary)
        rows.append(_ModelScores("unigram", "unigram", token_log_probs(unigram, ids)))
        if len(combiner.dataset.train) <= MAX_KNESER_NEY_TOKENS:
            rows.append(_ModelScores("kneser_ney_5", "Kneser-Ney 5", token_log_probs(combiner.kneser_ney, ids)))
    return rows


def _report_record(
    combiner: ModelCombiner, mode: str, text: _EvaluationText, model_scores: Sequence[_ModelScores]
) -> dict[str, object]:
    """Return the JSON report. Its top-level figures belong to the complete combination, the last in `model_scores`."""
    evaluated = [row for row in model_scores if row.json_key in ("perplexity", *COMBINATION_KEYS)][-1]
    result = summarize_log_probs(evaluated.log_probs, text.ids)
    perplexities = {row.json_key: summarize_log_probs(row.log_probs, text.ids).perplexity for row in model_scores}
    record: dict[str, object] = {
        "run": "+".join(run.name for run in combiner.runs),
        "split": text.name,
        "mode": mode,
        **asdict(result),
        "bits_per_character": result.bits_per_token * len(text.ids) / text.num_characters,
        "confidence_interval": _confidence_interval(evaluated.log_probs),
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


def _confidence_interval(log_probs: Float64Array) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of a perplexity; None if the text is too short for one."""
    return perplexity_confidence_interval(log_probs) if len(log_probs) >= MIN_INTERVAL_TOKENS else None


def _load_text(combiner: ModelCombiner, split: str, text: str | None) -> _EvaluationText:
    """Return a split of the runs' data, or the text that the user names.

    Raises:
        CorpusError: If the text cannot be read, is empty, or has only words that the model does not know.
    """
    vocabulary = combiner.runs[0].decoder.vocabulary
    if text is None:
        dataset = combiner.dataset
        parts = {"train": dataset.splits.train, "valid": dataset.splits.valid, "test": dataset.splits.test}
        ids = dataset.get_split(split)
        return _EvaluationText(split, ids, count_characters(parts[split], vocabulary))
    lines: Sequence[Line]
    if text == "-":
        lines = [Line(line) for line in sys.stdin.buffer.read().decode(errors="replace").splitlines()]
    else:
        lines = read_text(Path(text), min_characters=0).lines
    encoded = encode_lines(lines, vocabulary)
    if not encoded:
        raise CorpusError(f"--text {text} has no words to score")
    ids = concatenate_lines(encoded, combiner.runs[0].config.data.mode)
    if np.isin(ids, (UNK_ID, EOS_ID)).all():
        raise CorpusError(
            f"--text {text} has only words that the model does not know, so its perplexity would be that of <unk>"
        )
    return _EvaluationText(text, ids, count_characters(lines, vocabulary))
