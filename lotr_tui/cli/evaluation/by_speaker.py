"""Evaluation of a dialogue model by speaker: one row for each of them, and who speaks next."""

from dataclasses import asdict

from engine.analysis.speaker_evaluation import evaluate_by_speaker
from engine.errors import printable
from engine.runs.combine import CombinationOptions, ModelCombiner
from lotr_tui.cli.console import make_console, make_fitting_table, print_json
from lotr_tui.cli.dialogue.script import check_has_cast
from lotr_tui.cli.evaluation.texts import TextSource
from lotr_tui.formatting import format_percent, plural


def print_evaluation_by_speaker(
    combiner: ModelCombiner, options: CombinationOptions, source: TextSource, *, as_json: bool
) -> None:
    """Print how well the runs, combined as `options` say, predict the texts of each speaker, and the next speaker.

    Raises:
        InvalidInputError: If the runs know no speakers, or the text has no line.
    """
    run = "+".join(loaded.name for loaded in combiner.runs)
    check_has_cast(combiner.runs[0].decoder.tokenizer.cast, run, "--by-speaker")
    text, _ = source.encode(combiner, only_words=False)
    evaluation = evaluate_by_speaker(combiner.combine_to_play(options).model, text)
    turns = evaluation.next_speaker
    if as_json:
        print_json({"run": run, "split": source.name, "mode": "dialogue", **asdict(evaluation)})
        return
    rows = [
        [
            scores.speaker,
            f"{scores.perplexity:.2f}",
            f"{scores.bits_per_character:.3f}",
            f"{scores.tokens:,}",
            f"{scores.lines:,}",
        ]
        for scores in evaluation.speakers
    ]
    console = make_console()
    headings = ["perplexity", "bits/char", "tokens", "lines"]
    console.print(make_fitting_table(console.width, ["speaker"], headings, rows))
    console.print(
        f"who speaks next: {turns.bits_per_turn:.2f} bits per turn, "
        f"top-1 accuracy {format_percent(turns.accuracy)} of {plural(turns.turns, 'turn')}"
    )
    console.print(printable(f"{source.name}, run {run}; the rows are about the texts, without the names"))
