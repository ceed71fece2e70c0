"""`lotr-tui eval`: how well models predict a text."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engine.errors import InvalidInputError
from lotr_tui.cli import options

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions


@options.with_combination
def evaluate(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Name or path of a run, latest, RUN@EPOCH, hf:FOLDER, hf:owner/name or gguf:FILE; several are "
            "compared. Default: bundled where SmolLM2 was fetched, else lstm.",
            show_default=False,
        ),
    ] = None,
    more_runs: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    precision: options.PrecisionOption = "auto",
    split: Annotated[
        Literal["valid", "test", "train"],
        typer.Option(
            "--split",
            metavar="valid|test|train",
            help="Split to score; of several models, that of the first which reads text as written, without lines that "
            "another was trained on.",
        ),
    ] = "valid",
    text: Annotated[
        str | None, typer.Option("--text", metavar="FILE", help="Score this text instead; -: standard input.")
    ] = None,
    normalized: Annotated[
        bool,
        typer.Option("--normalized", help="Score the lower-case words of the text only, as every model reads them."),
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Add a unigram and a Kneser-Ney model of the same data.")
    ] = False,
    by_speaker: Annotated[
        bool, typer.Option("--by-speaker", help="Score what each speaker says, and who speaks next.")
    ] = False,
    combination: "CombinationOptions | None" = None,
    as_json: options.JsonOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per token: id, text, logprob.")] = False,
) -> None:
    """Print the perplexity and bits per character of a model on a text, or compare several models on it."""
    from engine.models.pretrained.names import is_pretrained_name
    from engine.runs.combine import CombinationOptions, ModelCombiner
    from engine.runs.loading import load_model_by_name
    from lotr_tui.cli.evaluation.by_speaker import print_evaluation_by_speaker
    from lotr_tui.cli.evaluation.comparison import print_comparison
    from lotr_tui.cli.evaluation.single_model import print_evaluation, print_token_scores
    from lotr_tui.cli.evaluation.texts import read_source

    options.check_output_format(as_json=as_json, jsonl=jsonl)
    is_comparison = len(run or []) > 1
    for_one_model = {"--run": more_runs, "--baselines": baselines, "--by-speaker": by_speaker, "--jsonl": jsonl}
    if is_comparison and any(for_one_model.values()):
        other = next(name for name, value in for_one_model.items() if value)
        raise InvalidInputError(
            f"{other} is for one model, but several RUNs are compared; name one RUN, or give each model of an ensemble "
            "as --run RUN"
        )
    if by_speaker and (normalized or baselines or jsonl):
        other = "--normalized" if normalized else "--baselines" if baselines else "--jsonl"
        raise InvalidInputError(f"{other} and --by-speaker cannot be combined; leave out one of them")
    names: list[str | None] = [*(run or []), *(more_runs or [])]
    if text is None and names and all(map(is_pretrained_name, names)):  # before anything slow
        other = "" if is_comparison else ", or add a RUN to compare with it on the split of that run"
        raise InvalidInputError(f"{names[0]} is a model by others and has no split to score; use --text FILE{other}")
    models = [load_model_by_name(name, runs_dir, precision) for name in names or [None]]
    combination = combination or CombinationOptions()
    if is_comparison:
        combiners = [ModelCombiner([model]) for model in models]
        source = read_source(split, text)
        print_comparison(combiners, combination, source, only_words=normalized, as_json=as_json)
        return
    combiner = ModelCombiner(models)
    source = read_source(split, text)
    if by_speaker:
        print_evaluation_by_speaker(combiner, combination, source, as_json=as_json)
    elif jsonl:
        print_token_scores(combiner, combination, source, only_words=normalized)
    else:
        print_evaluation(combiner, combination, source, only_words=normalized, baselines=baselines, as_json=as_json)
