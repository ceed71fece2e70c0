"""Evaluation of a dialogue model by speaker: one row for each of them, and who speaks next."""

from dataclasses import asdict

from engine.analysis.bits_per_character import native_form
from engine.analysis.speakers import evaluate_by_speaker
from engine.data.scripts import parse_line
from engine.errors import printable
from engine.runs.adapter_files import needs_base
from engine.runs.combine import CombinationOptions, ModelCombiner
from lotr_tui.cli.console import make_console, make_fitting_table, print_json
from lotr_tui.cli.dialogue.script import check_has_cast
from lotr_tui.cli.evaluation.texts import TextSource
from lotr_tui.formatting import PRETRAINED_NOTE, format_percent, plural


def print_evaluation_by_speaker(
    combiner: ModelCombiner, options: CombinationOptions, source: TextSource, *, as_json: bool
) -> None:
    """Print how well the runs, combined as `options` say, predict the texts of each speaker, and the next speaker.

    Raises:
        InvalidInputError: If the runs know no speakers, or the text has no line.
    """
    run = "+".join(loaded.name for loaded in combiner.runs)
    model = check_has_cast(combiner.combine_to_play(options).model, run, "--by-speaker")
    script = source.convert(combiner, native_form(model.tokenizer))
    scenes = [[turn for turn in map(parse_line, scene.split("\n")) if turn] for scene in script.split("\n\n")]
    evaluation = evaluate_by_speaker(model, list(filter(None, scenes)))
    turns = evaluation.next_speaker
    is_pretrained = any(needs_base(loaded.config) for loaded in combiner.runs)
    if as_json:
        record = {"run": run, "split": source.name, "mode": "dialogue", "pretrained_on_other_text": is_pretrained}
        print_json({**record, **asdict(evaluation)})
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
    note = f"; {PRETRAINED_NOTE}" if is_pretrained else ""
    console.print(printable(f"{source.name}, run {run}{note}; the rows are about the texts, without the names"))
