"""What `lotr-tui eval` prints: perplexities that can be believed, side by side."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.analysis.perplexity import Evaluation, confidence_interval, summarize, token_log_probs
from engine.data.corpus import read_text
from engine.data.dataset import count_characters, encode_lines, join_lines
from engine.data.lines import Line
from engine.data.vocabulary import EOS_ID, UNK_ID, Ids
from engine.errors import CorpusError, printable
from engine.models.ngram import MOST_TOKENS, Unigram
from engine.runs.combine import Combination, Combiner


@dataclass(frozen=True)
class _Text:
    """What is scored."""

    name: str
    ids: Ids
    characters: int


@dataclass(frozen=True)
class _Row:
    """One model's part of the report."""

    key: str
    """What scripts know it by."""
    name: str
    scores: npt.NDArray[np.float64]
    note: str = ""


def print_evaluation(
    combiner: Combiner, options: Combination, split: str, text: str | None, *, baselines: bool, as_json: bool
) -> None:
    """Print the perplexity of the runs, of what is made of them, and of the counting models beside them."""
    scored = _what_to_score(combiner, split, text)
    rows = _rows(combiner, options, scored.ids, baselines=baselines or (text is None and not as_json))
    result = summarize(rows[0].scores, scored.ids)
    mode = combiner.runs[0].config.data.mode
    if as_json:
        print(json.dumps(_record(combiner, mode, scored, rows, result)))
        return
    table = Table("model", box=None, pad_edge=False)
    for heading in ("perplexity", "95 in 100", "bits/token", "bits/char"):
        table.add_column(heading, justify="right")
    for row in rows:
        of_row = summarize(row.scores, scored.ids)
        low, high = confidence_interval(row.scores)
        table.add_row(
            Text(printable(row.name)),
            f"{of_row.perplexity:.2f}",
            f"{low:.1f}-{high:.1f}",
            f"{of_row.bits_per_token:.3f}",
            f"{of_row.bits_per_token * len(scored.ids) / scored.characters:.3f}",
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    for row in rows:
        if row.note:
            console.print(printable(f"{row.name}: {row.note}"))
    console.print(printable(f"{scored.name}, {mode} mode: {result.tokens:,} tokens, {result.unk_rate:.1%} <unk>"))


def print_token_scores(combiner: Combiner, options: Combination, split: str, text: str | None) -> None:
    """Print one JSON object a token: id, text, natural-log probability."""
    ids = _what_to_score(combiner, split, text).ids
    model = combiner.combine(options).model
    for token, score in zip(ids, token_log_probs(model, ids), strict=True):
        print(json.dumps({"id": int(token), "text": model.vocabulary.words[token], "logprob": float(score)}))


def _rows(combiner: Combiner, options: Combination, ids: Ids, *, baselines: bool) -> list[_Row]:
    """The runs as they are first, then each thing asked for on top of what stands before it."""
    plain = replace(options, mixture=False, cache=False, dynamic=False, weights=())
    several = len(combiner.runs) > 1
    asked = [("perplexity", "ensemble" if several else combiner.runs[0].name, plain)]
    if options.dynamic:
        asked.append(("dynamic", "learning as it reads", replace(plain, dynamic=True)))
    if options.cache:
        asked.append(("cache", "with a cache", replace(plain, dynamic=options.dynamic, cache=True)))
    if options.mixture or options.weights:
        asked.append(("mixture", "mixture", options))
    rows = []
    for key, name, combination in asked:
        combined = combiner.combine(combination)
        rows.append(_Row(key, name, token_log_probs(combined.model, ids), combined.describe()))
    if several:
        rows += [_Row("run", run.name, token_log_probs(run.decoder, ids)) for run in combiner.runs]
    if baselines:
        unigram = Unigram(combiner.dataset.train, combiner.dataset.vocabulary)
        rows.append(_Row("unigram", "unigram", token_log_probs(unigram, ids)))
        if len(combiner.dataset.train) <= MOST_TOKENS:
            rows.append(_Row("kneser_ney_5", "Kneser-Ney 5", token_log_probs(combiner.kneser_ney, ids)))
    return rows


def _record(
    combiner: Combiner, mode: str, scored: _Text, rows: Sequence[_Row], result: Evaluation
) -> dict[str, object]:
    perplexities = {row.key: summarize(row.scores, scored.ids).perplexity for row in rows}
    record: dict[str, object] = {
        "run": "+".join(run.name for run in combiner.runs),
        "split": scored.name,
        "mode": mode,
        **asdict(result),
        "bits_per_character": result.bits_per_token * len(scored.ids) / scored.characters,
        "interval": confidence_interval(rows[0].scores),
    }
    counting = {name: perplexities[name] for name in ("unigram", "kneser_ney_5") if name in perplexities}
    if counting:
        record["baselines"] = counting
    for row in rows:
        if row.key in ("dynamic", "cache", "mixture"):
            record[row.key] = perplexities[row.key]
            record[f"{row.key}_of"] = row.note
    return record


def _what_to_score(combiner: Combiner, split: str, text: str | None) -> _Text:
    """A split of the runs' data, or a text of the person's.

    Raises:
        CorpusError: it cannot be read, has no word, or none that the model knows.
    """
    vocabulary = combiner.runs[0].decoder.vocabulary
    if text is None:
        dataset = combiner.dataset
        parts = {"train": dataset.split.train, "valid": dataset.split.valid, "test": dataset.split.test}
        ids = dataset.part(split)
        return _Text(split, ids, count_characters(parts[split], vocabulary))
    lines: Sequence[Line]
    if text == "-":
        lines = [Line(line) for line in sys.stdin.buffer.read().decode(errors="replace").splitlines()]
    else:
        lines = read_text(Path(text), min_characters=0).lines
    encoded = encode_lines(lines, vocabulary)
    if not encoded:
        raise CorpusError(f"--text {text} has no word; there is nothing to score")
    ids = join_lines(encoded, combiner.runs[0].config.data.mode)
    if np.isin(ids, (UNK_ID, EOS_ID)).all():
        raise CorpusError(f"--text {text} has no word that the model knows; its perplexity would be that of <unk>")
    return _Text(text, ids, count_characters(lines, vocabulary))
