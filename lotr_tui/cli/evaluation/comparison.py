"""Evaluation of several models on the same text, in one table for each form of the text."""

from collections.abc import Sequence
from dataclasses import asdict

from engine.analysis.bits_per_character import native_form
from engine.analysis.model_comparison import Candidate, CandidateScores, FormComparison, compare_models
from engine.errors import printable
from engine.runs.adapter_files import needs_base
from engine.runs.combine import CombinationOptions, ModelCombiner
from lotr_tui.cli.console import make_console, make_fitting_table, print_json
from lotr_tui.cli.evaluation.texts import FORM_DESCRIPTIONS, TextSource
from lotr_tui.cli.model_names import report_names
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE

TEXT_HEADINGS = ["run", "tokenizer"]
NUMBER_HEADINGS = ["bits/char", "95 % CI", "perplexity", "tokens", "rare"]
"""The most important first: a narrow terminal has no room for the last ones."""


def print_comparison(
    combiners: Sequence[ModelCombiner],
    options: CombinationOptions,
    source: TextSource,
    *,
    only_words: bool,
    as_json: bool,
) -> None:
    """Print the bits per character of several models, and whether the best is better than the second."""
    candidates, notes = [], []
    # A model by others has no split, and reads the split of the first run.
    first_run = next((combiner for combiner in combiners if combiner.runs[0].config.data.corpus), combiners[0])
    for combiner in combiners:
        run = combiner.runs[0]
        owner = combiner if run.config.data.corpus else first_run
        source.convert(owner, "words" if only_words else native_form(run.decoder.tokenizer))  # refuses an empty text
        text, text_mode = source.original(owner), owner.runs[0].config.data.mode
        combined = combiner.combine(options)
        candidates.append(Candidate(run.name, combined.model, run.config.data.mode, text, text_mode))
        about = [PRETRAINED_NOTE if needs_base(run.config) else "", combined.describe()]
        notes += [f"{run.name}: {text}" for text in about if text]
    comparisons = compare_models(candidates, only_words=only_words)
    if as_json:
        print_json({"split": source.name, "texts": [_comparison_record(item) for item in comparisons], "notes": notes})
        return
    console = make_console()
    for index, comparison in enumerate(comparisons):
        if index:
            console.print()
        description = f"{FORM_DESCRIPTIONS[comparison.form]}, {comparison.num_characters:,} characters"
        console.print(printable(f"{source.name}: {description}"))
        names = report_names([scores.candidate.name for scores in comparison.scores])
        rows = [_table_row(scores, name) for scores, name in zip(comparison.scores, names, strict=True)]
        console.print(make_fitting_table(console.width, TEXT_HEADINGS, NUMBER_HEADINGS, rows))
        console.print(printable(_describe_best_two(comparison, names)))
    for note in notes:
        console.print(printable(note))


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
        return "the other models have a closed vocabulary, which cannot score this form of the text"
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
