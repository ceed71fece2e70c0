"""Evaluation of several models on the same text, in one table for each form of the text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from engine.analysis.bits_per_character import written_text
from engine.analysis.model_comparison import Candidate, CandidateScores, FormComparison, compare_models
from engine.data.dataset import Dataset
from engine.data.scripts import read_scenes, script_text
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.words import split_words
from engine.errors import CorpusError, printable
from engine.runs.adapter_files import needs_base
from engine.runs.combine import CombinationOptions, ModelCombiner
from lotr_tui.cli.console import make_console, make_fitting_table, print_json
from lotr_tui.cli.evaluation.texts import FORM_DESCRIPTIONS, TextSource
from lotr_tui.cli.model_names import report_names
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE

TEXT_HEADINGS = ["run", "tokenizer"]
NUMBER_HEADINGS = ["bits/char", "95 % CI", "perplexity", "tokens", "rare"]
"""The most important first: a narrow terminal has no room for the last ones."""


@dataclass(frozen=True)
class _CommonText:
    """Text that several models are compared on."""

    text: str
    is_script: bool
    """True if its lines name their speakers, which are given to all models."""
    name: str
    notes: tuple[str, ...] = ()
    """Lines that were left out, and facts about them that are not known."""


def print_comparison(
    combiners: Sequence[ModelCombiner],
    options: CombinationOptions,
    source: TextSource,
    *,
    only_words: bool,
    as_json: bool,
) -> None:
    """Print the bits per character of several models on one text, and whether the best is better than the second."""
    common = _find_common_text(combiners, source)
    candidates, notes = [], list(common.notes)
    for combiner in combiners:
        run = combiner.runs[0]
        combined = combiner.combine(options)
        candidates.append(Candidate(run.name, combined.model, run.config.data.mode))
        about = [PRETRAINED_NOTE if needs_base(run.config) else "", combined.describe()]
        if common.is_script and not combined.model.tokenizer.is_open:
            about.append("reads the texts without the names, which it cannot spell")
        elif not common.is_script and run.config.data.mode == "dialogue":
            about.append(f"reads every line as said by {SOMEONE}")
        notes += [f"{run.name}: {text}" for text in about if text]
    comparisons = compare_models(candidates, common.text, is_script=common.is_script, only_words=only_words)
    if as_json:
        print_json(
            {
                "split": source.name,
                "text": common.name,
                "texts": [_comparison_record(item) for item in comparisons],
                "notes": notes,
            }
        )
        return
    console = make_console()
    for index, comparison in enumerate(comparisons):
        if index:
            console.print()
        given = " of the utterances, given the names" if common.is_script else ""
        description = f"{FORM_DESCRIPTIONS[comparison.form]}{given}, {comparison.num_characters:,} characters"
        console.print(printable(f"{common.name}: {description}"))
        names = report_names([scores.candidate.name for scores in comparison.scores])
        rows = [_table_row(scores, name) for scores, name in zip(comparison.scores, names, strict=True)]
        console.print(make_fitting_table(console.width, TEXT_HEADINGS, NUMBER_HEADINGS, rows))
        console.print(printable(_describe_best_two(comparison, names)))
    for note in notes:
        console.print(printable(note))


def _find_common_text(combiners: Sequence[ModelCombiner], source: TextSource) -> _CommonText:
    """Return the text to compare models on: the file that was named, or lines of one split.

    The split is that of the first run with an open vocabulary, whose text is as written, or else of the first run. The
    lines that another run was trained on, and this one was not, are left out.
    """
    if source.path is not None:
        has_dialogue = any(combiner.runs[0].config.data.mode == "dialogue" for combiner in combiners)
        is_script = has_dialogue and source.names_speakers
        text = script_text(read_scenes(source.content)) if is_script else source.content
        return _CommonText(text, is_script, source.path)
    datasets, notes, failure = list[tuple[str, Dataset]](), list[str](), CorpusError("no run has a split")
    for combiner in sorted(combiners, key=lambda each: not each.runs[0].decoder.tokenizer.is_open):
        run = combiner.runs[0]
        if not run.config.data.corpus:  # a model by others
            continue
        try:
            datasets.append((run.name, combiner.dataset))
        except CorpusError as error:
            notes.append(f"{run.name}: its training text cannot be read, and may have some of the lines")
            failure = error
    if not datasets:
        raise failure
    (owner, dataset), *others = datasets
    left_out = {_words_of(line.text) for _, other in others for line in other.splits.train}
    left_out -= {_words_of(line.text) for line in dataset.splits.train}
    lines = source.lines(dataset)
    kept = [index for index, line in enumerate(lines) if _words_of(line.text) not in left_out]
    name = f"{source.split} of {owner}"
    if not kept:
        raise CorpusError(f"every line of {name} is in the training text of another run; use --text FILE")
    if len(kept) < len(lines):
        notes.append(f"left out: {len(lines) - len(kept):,} of {len(lines):,} lines, which another run was trained on")
    return _CommonText(
        written_text(lines.take(np.array(kept)), dataset.mode), dataset.mode == "dialogue", name, tuple(notes)
    )


def _words_of(text: str) -> str:
    return " ".join(split_words(text))


def _table_row(scores: CandidateScores, name: str) -> list[str]:
    tokenizer, interval, mode = scores.candidate.model.tokenizer, scores.confidence_interval, scores.candidate.mode
    return [
        printable(name),
        tokenizer.name if mode == "line" or tokenizer.reads_line_ends else f"{tokenizer.name}, {mode}",
        f"{scores.bits_per_character:.3f}",
        f"{interval[0]:.2f}-{interval[1]:.2f}" if interval else MISSING,
        f"{scores.evaluation.perplexity:.2f}",
        f"{scores.evaluation.tokens:,}",
        MISSING if tokenizer.is_open else f"{100 * scores.evaluation.unk_rate:.1f} %",
    ]


def _describe_best_two(comparison: FormComparison, names: Sequence[str]) -> str:
    """Return the result of the paired test between the two best models as a sentence; `names` has the best first."""
    if comparison.best_two is None:
        return "the other models cannot read this form of the text"
    best, second = names[:2]
    difference, interval = comparison.best_two.difference, comparison.best_two.confidence_interval
    result = f"{best} needs {0 - difference:.3f} bits/char less than {second}"  # "0 -" avoids a negative zero
    if interval is None or comparison.best_two.better_fraction is None:
        return f"{result}; the text is too short for a confidence interval"
    bounds = f"95 % CI {0 - interval[1]:.3f} to {0 - interval[0]:.3f}"
    return f"{result} ({bounds}): better in {100 * comparison.best_two.better_fraction:.1f} % of resampled texts"


def _comparison_record(comparison: FormComparison) -> dict[str, object]:
    best_two = None
    if comparison.best_two is not None:
        runs = [scores.candidate.name for scores in comparison.scores[:2]]
        best_two = {"runs": runs, **asdict(comparison.best_two)}
    return {
        "text_form": comparison.form,
        "characters": comparison.num_characters,
        "models": [
            {
                "run": scores.candidate.name,
                "tokenizer": scores.candidate.model.tokenizer.name,
                "mode": scores.candidate.mode,
                "pretrained_on_other_text": scores.candidate.model.tokenizer.name == "pretrained",
                "bits_per_character": scores.bits_per_character,
                "bits_per_character_interval": scores.confidence_interval,
                **asdict(scores.evaluation),
            }
            for scores in comparison.scores
        ],
        "best_two": best_two,
    }
