"""`lotr-tui eval`: how well one model, with its combinations and baselines, predicts a text, or several models."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np

from engine.analysis.bits_per_character import EncodedText, TextForm, convert_text, native_form, written_text
from engine.analysis.model_comparison import (
    BLOCK_TOKENS,
    MIN_BLOCKS,
    Candidate,
    FormComparison,
    compare_models,
    perplexity_confidence_interval,
    rate_confidence_interval,
)
from engine.analysis.perplexity import Evaluation, summarize_log_probs, token_log_probs
from engine.analysis.speakers import evaluate_by_speaker
from engine.data.arrays import Float64Array
from engine.data.corpus import check_line_lengths, read_whole_text
from engine.data.dataset import Dataset
from engine.data.scripts import detect_style, parse_line, read_scenes, script_text
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.words import split_words
from engine.errors import CorpusError, InvalidInputError, printable
from engine.models.ngram import MAX_KNESER_NEY_TOKENS, Unigram
from engine.models.pretrained.names import is_pretrained_name
from engine.runs.adapter_files import needs_base
from engine.runs.combine import CombinationOptions, ModelCombiner
from engine.runs.loading import load_model_by_name
from lotr_tui.cli import options
from lotr_tui.cli.console import print_json, print_table, read_standard_input, report_names, to_json
from lotr_tui.cli.parser import add_command, argument, flag, make_group, option
from lotr_tui.cli.scripts import check_has_cast
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE, format_percent, plural

COMBINATION_KEYS = ("dynamic", "cache", "mixture")  # in the JSON report; each adds something to the one before it
FORMS: dict[TextForm, str] = {
    "original": "the original text",
    "whitespace": "the text with single spaces",
    "words": "the lower-case words",
}
SPLIT_HELP = "Split to score; of several models, that of the first, without lines that another was trained on."
SplitName = Literal["valid", "test", "train"]
commands = make_group()


@add_command(
    commands,
    "eval",
    "lotr-tui eval --text my.txt",
    "lotr-tui eval first second third --split test",
    "lotr-tui eval --run first --run second --mixture --cache",
)
def evaluate(
    *,
    run: Annotated[list[str] | None, argument("RUN", f"{options.RUNS} Several are compared.")] = None,
    more_runs: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    precision: options.PrecisionOption = "auto",
    split: Annotated[SplitName, option("--split", "valid|test|train", SPLIT_HELP)] = "valid",
    text: Annotated[str | None, option("--text", "FILE", "Score this text instead; -: standard input.")] = None,
    normalized: Annotated[bool, flag("--normalized", "Score only the lower-case words of the text.")] = False,
    baselines: Annotated[bool, flag("--baselines", "Add a unigram and a Kneser-Ney model of the same data.")] = False,
    by_speaker: Annotated[bool, flag("--by-speaker", "Score what each speaker says, and who speaks next.")] = False,
    combination: options.Combination,
    as_json: options.JsonOption = False,
    jsonl: options.JsonLinesOption = False,
) -> None:
    """Print the perplexity and bits per character of a model on a text, or compare several models on it."""
    options.check_output_format(as_json, jsonl)
    is_comparison = len(run or []) > 1
    for_one_model = {"--run": more_runs, "--baselines": baselines, "--by-speaker": by_speaker, "--jsonl": jsonl}
    if is_comparison and (other := next((name for name, value in for_one_model.items() if value), "")):
        remedy = "name one RUN, or give each model of an ensemble as --run RUN"
        raise InvalidInputError(f"{other} is for one model, but several RUNs are compared; {remedy}")
    for name, value in {"--normalized": normalized, "--baselines": baselines, "--jsonl": jsonl}.items():
        if by_speaker and value:
            raise InvalidInputError(f"{name} and --by-speaker cannot be combined; leave out one of them")
    names: list[str | None] = [*(run or []), *(more_runs or [])]
    if text is None and names and all(map(is_pretrained_name, names)):  # before anything slow
        other = "" if is_comparison else ", or add a RUN to compare with it on the split of that run"
        raise InvalidInputError(f"{names[0]} is a model by others and has no split to score; use --text FILE{other}")
    models = [load_model_by_name(name, runs_dir, precision) for name in names or [None]]
    combined = combination.parse() or CombinationOptions()
    source = _read_source(split, text)
    if is_comparison:
        combiners = [ModelCombiner([model]) for model in models]
        _compare(combiners, combined, source, only_words=normalized, as_json=as_json)
        return
    combiner = ModelCombiner(models)
    if by_speaker:
        _print_by_speaker(combiner, combined, source, as_json=as_json)
        return
    tokenizer, mode = models[0].decoder.tokenizer, models[0].config.data.mode
    form: TextForm = "words" if normalized else native_form(tokenizer)
    converted = source.convert(combiner, form)
    form = "original" if converted == source.convert(combiner, "original") else form
    encoded = EncodedText(converted, tokenizer, mode)
    if jsonl:
        model = combiner.combine(combined).model
        scores = token_log_probs(model, encoded.ids)[encoded.is_scored].tolist()
        for token, score in zip(encoded.ids[encoded.is_scored].tolist(), scores, strict=True):
            print(to_json({"id": token, "text": model.tokenizer.tokens[token], "logprob": score}))
        return
    rows = _score_models(combiner, combined, encoded, baselines=baselines or (text is None and not as_json))
    if as_json:
        print_json(_report_record(combiner, source.name, encoded, form, rows))
    else:
        _print_evaluation(combiner, source, encoded, form, rows)


@dataclass(frozen=True)
class TextSource:
    """The text to score: a file, or else a split of the runs' data."""

    split: SplitName
    name: str
    content: str | None  # of the file

    @property
    def names_speakers(self) -> bool:
        return self.content is not None and detect_style(self.content.splitlines()) is not None

    def convert(self, combiner: ModelCombiner, form: TextForm) -> str:
        """Return the text in a form, as the first run of `combiner`, whose split it is, has it.

        Another text for a run in dialogue mode becomes a script in the form that the run reads. A text without words,
        or a split that cannot be read, is a CorpusError.
        """
        mode = combiner.runs[0].config.data.mode
        if self.content is None:
            text = written_text(getattr(combiner.dataset.splits, self.split), mode)
        else:
            text = script_text(read_scenes(self.content)) if mode == "dialogue" else self.content
        text = convert_text(text, form, mode)
        if not text.strip():
            label = "split" if self.content is None else "--text"
            raise CorpusError(f"{label} {self.name} has no words to score; use a longer text")
        return text


def _read_source(split: SplitName, path: str | None) -> TextSource:
    if path is None:
        return TextSource(split, split, None)
    if path != "-":
        return TextSource(split, path, read_whole_text(Path(path)))
    content = read_standard_input().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    check_line_lengths(content.split("\n"), "standard input")
    return TextSource(split, path, content)


class _Row(NamedTuple):
    """Scores of one model."""

    json_key: str  # of the perplexity in the JSON report
    name: str
    note: str  # about the chosen weights, cache and learning rate
    log_probs: Float64Array  # natural-log probability `[time]` of each token
    evaluation: Evaluation
    interval: tuple[float, float] | None  # 95 % confidence interval of the perplexity; None if the text is too short


def _score_models(
    combiner: ModelCombiner, combination: CombinationOptions, text: EncodedText, *, baselines: bool
) -> list[_Row]:
    """Return one row for the runs alone, then one for each requested combination, added to the ones before it."""
    plain = replace(combination, mixture=False, cache=False, dynamic=False, weights=())
    is_ensemble = len(combiner.runs) > 1
    names = report_names([run.name for run in combiner.runs])
    combinations = [("perplexity", "ensemble" if is_ensemble else names[0], plain)]
    if combination.dynamic:
        combinations.append(("dynamic", "with dynamic evaluation", replace(plain, dynamic=True)))
    if combination.cache:
        combinations.append(("cache", "with a cache", replace(plain, dynamic=combination.dynamic, cache=True)))
    if combination.mixture or combination.weights:
        combinations.append(("mixture", "mixture", combination))
    # All are combined before the text is scored, which can take longer than finding out that one is impossible.
    combined = [(key, name, combiner.combine(each)) for key, name, each in combinations]
    models = [(key, name, each.describe(), each.model) for key, name, each in combined]
    if is_ensemble:
        models += [("run", name, "", run.decoder) for name, run in zip(names, combiner.runs, strict=True)]
    if baselines:
        dataset = combiner.dataset
        models.append(("unigram", "unigram", "", Unigram(dataset.train, dataset.tokenizer)))
        if len(dataset.train) <= MAX_KNESER_NEY_TOKENS:
            models.append(("kneser_ney_5", "Kneser-Ney 5", "", combiner.kneser_ney))
    rows = []
    for key, name, note, model in models:
        log_probs = token_log_probs(model, text.ids)
        scored = log_probs[text.is_scored]
        evaluation = summarize_log_probs(scored, text.ids[text.is_scored], text.tokenizer.unk_id)
        interval = perplexity_confidence_interval(scored)
        rows.append(_Row(key, name, note, log_probs, evaluation, interval))
    return rows


def _print_evaluation(
    combiner: ModelCombiner, source: TextSource, text: EncodedText, form: TextForm, rows: Sequence[_Row]
) -> None:
    """Print the perplexities and bits per character, and what the figures are about."""
    cells = []
    for row in rows:
        interval = f"{row.interval[0]:.1f}-{row.interval[1]:.1f}" if row.interval else MISSING
        bits = f"{row.evaluation.bits_per_token:.3f}", f"{text.bits_per_character(row.log_probs):.3f}"
        cells.append([printable(row.name), f"{row.evaluation.perplexity:.2f}", interval, *bits])
    print_table(["model"], ["perplexity", "95 % CI", "bits/token", "bits/char"], cells)
    lines = [f"{row.name}: {row.note}" for row in rows if row.note]
    mode, num_tokens = combiner.runs[0].config.data.mode, int(text.is_scored.sum())
    label = source.name if text.tokenizer.reads_line_ends and mode != "dialogue" else f"{source.name}, {mode} mode"
    tokens = f"{num_tokens:,} tokens" + (" of the utterances, given the names" if mode == "dialogue" else "")
    if text.tokenizer.unk_id is not None:
        tokens += f", {100 * rows[0].evaluation.unk_rate:.1f} % rare words"
    lines.append(f"{label}: {tokens}")
    if mode == "dialogue" and source.content is not None and not source.names_speakers:
        lines.append(f"no line names its speaker: {SOMEONE} says all")
    lines.append(f"bits/char: of {FORMS[form]}, {text.num_characters:,} characters")
    if pretrained := [run.name for run in combiner.runs if needs_base(run.config)]:
        lines.append(f"{', '.join(report_names(pretrained))}: {PRETRAINED_NOTE}")
    context_size = getattr(combiner.runs[0].decoder, "context_size", None)
    if context_size and len(text.ids) > context_size:
        lines.append(f"context: {context_size:,} tokens; a full context continues with its last half")
    if num_tokens <= BLOCK_TOKENS * (MIN_BLOCKS - 1):
        lines.append(f"a confidence interval (95 % CI) needs more than {BLOCK_TOKENS * (MIN_BLOCKS - 1)} tokens")
    for line in lines:
        print(printable(line))


def _report_record(
    combiner: ModelCombiner, source: str, text: EncodedText, form: TextForm, rows: Sequence[_Row]
) -> dict[str, object]:
    """Return the JSON report. Its top-level figures belong to the complete combination, the last of them in `rows`."""
    combinations = [row for row in rows if row.json_key in COMBINATION_KEYS]
    evaluated = (combinations or rows)[-1 if combinations else 0]
    perplexities = {row.json_key: row.evaluation.perplexity for row in rows}
    record: dict[str, object] = {
        "run": "+".join(run.name for run in combiner.runs),
        "split": source,
        "mode": combiner.runs[0].config.data.mode,
        "pretrained_on_other_text": any(needs_base(run.config) for run in combiner.runs),
        **asdict(evaluated.evaluation),
        "confidence_interval": evaluated.interval,
        "text_form": form,
        "characters": text.num_characters,
        "bits_per_character": text.bits_per_character(evaluated.log_probs),
        "bits_per_character_interval": rate_confidence_interval(text.block_bits(evaluated.log_probs), text.block_sizes),
    }
    if baselines := {name: perplexities[name] for name in ("unigram", "kneser_ney_5") if name in perplexities}:
        record["baselines"] = baselines
    if combinations:
        record["plain"] = perplexities["perplexity"]
    for row in combinations:
        record |= {row.json_key: row.evaluation.perplexity, f"{row.json_key}_description": row.note}
    return record


def _print_by_speaker(
    combiner: ModelCombiner, combination: CombinationOptions, source: TextSource, *, as_json: bool
) -> None:
    """Print how well the runs predict the texts of each speaker, and the next speaker."""
    run = "+".join(loaded.name for loaded in combiner.runs)
    model = check_has_cast(combiner.combine_to_play(combination).model, run, "--by-speaker")
    script = source.convert(combiner, native_form(model.tokenizer))
    scenes = [[turn for turn in map(parse_line, scene.split("\n")) if turn] for scene in script.split("\n\n")]
    evaluation = evaluate_by_speaker(model, list(filter(None, scenes)))
    is_pretrained = any(needs_base(loaded.config) for loaded in combiner.runs)
    if as_json:
        facts = {"run": run, "split": source.name, "mode": "dialogue", "pretrained_on_other_text": is_pretrained}
        print_json({**facts, **asdict(evaluation)})
        return
    rows = []
    for each in evaluation.speakers:
        figures = f"{each.perplexity:.2f}", f"{each.bits_per_character:.3f}", f"{each.tokens:,}", f"{each.lines:,}"
        rows.append([each.speaker, *figures])
    print_table(["speaker"], ["perplexity", "bits/char", "tokens", "lines"], rows)
    turns, note = evaluation.next_speaker, f"; {PRETRAINED_NOTE}" if is_pretrained else ""
    accuracy = f"{format_percent(turns.accuracy)} of {plural(turns.turns, 'turn')}"
    print(f"who speaks next: {turns.bits_per_turn:.2f} bits per turn, top-1 accuracy {accuracy}")
    print(printable(f"{source.name}, run {run}{note}; the rows are about the texts, without the names"))


def _compare(
    combiners: Sequence[ModelCombiner],
    combination: CombinationOptions,
    source: TextSource,
    *,
    only_words: bool,
    as_json: bool,
) -> None:
    """Print the bits per character of several models on one text, and whether the best is better than the second."""
    text, is_script, name, notes = _find_common_text(combiners, source)
    candidates = []
    for combiner in combiners:
        run, combined = combiner.runs[0], combiner.combine(combination)
        candidates.append(Candidate(run.name, combined.model, run.config.data.mode))
        about = [PRETRAINED_NOTE if needs_base(run.config) else "", combined.describe()]
        if is_script and not combined.model.tokenizer.is_open:
            about.append("reads the texts without the names, which it cannot spell")
        elif not is_script and run.config.data.mode == "dialogue":
            about.append(f"reads every line as said by {SOMEONE}")
        notes += [f"{run.name}: {remark}" for remark in about if remark]
    comparisons = compare_models(candidates, text, is_script=is_script, only_words=only_words)
    if as_json:
        texts = [_comparison_record(each) for each in comparisons]
        print_json({"split": source.name, "text": name, "texts": texts, "notes": notes})
        return
    for index, comparison in enumerate(comparisons):
        given = " of the utterances, given the names" if is_script else ""
        description = f"{FORMS[comparison.form]}{given}, {comparison.num_characters:,} characters"
        print(("\n" if index else "") + printable(f"{name}: {description}"))
        names = report_names([scores.candidate.name for scores in comparison.scores])
        rows = []
        for label, scores in zip(names, comparison.scores, strict=True):
            tokenizer, mode = scores.candidate.model.tokenizer, scores.candidate.mode
            interval, evaluation = scores.confidence_interval, scores.evaluation
            is_plain = mode == "line" or tokenizer.reads_line_ends
            row = [printable(label), tokenizer.name if is_plain else f"{tokenizer.name}, {mode}"]
            bounds = f"{interval[0]:.2f}-{interval[1]:.2f}" if interval else MISSING
            rare = MISSING if tokenizer.is_open else f"{100 * evaluation.unk_rate:.1f} %"
            figures = f"{scores.bits_per_character:.3f}", bounds, f"{evaluation.perplexity:.2f}"
            rows.append([*row, *figures, f"{evaluation.tokens:,}", rare])
        # The most important figures come first: a narrow terminal has no room for the last ones.
        print_table(["run", "tokenizer"], ["bits/char", "95 % CI", "perplexity", "tokens", "rare"], rows)
        print(printable(_describe_best_two(comparison, names)))
    for note in notes:
        print(printable(note))


def _find_common_text(combiners: Sequence[ModelCombiner], source: TextSource) -> tuple[str, bool, str, list[str]]:
    """Return the text to compare models on, whether it is a script, whose names all models get, its name and remarks.

    It is the file that was named, or a split: that of the first run with an open vocabulary, whose text is as written,
    or else of the first run. The lines that another run was trained on, and this one was not, are left out.
    """
    if source.content is not None:
        has_dialogue = any(combiner.runs[0].config.data.mode == "dialogue" for combiner in combiners)
        is_script = has_dialogue and source.names_speakers
        return script_text(read_scenes(source.content)) if is_script else source.content, is_script, source.name, []
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
    lines = getattr(dataset.splits, source.split)
    kept = [index for index, line in enumerate(lines) if _words_of(line.text) not in left_out]
    name = f"{source.split} of {owner}"
    if not kept:
        raise CorpusError(f"every line of {name} is in the training text of another run; use --text FILE")
    if len(kept) < len(lines):
        notes.append(f"left out: {len(lines) - len(kept):,} of {len(lines):,} lines, which another run was trained on")
    return written_text(lines.take(np.array(kept)), dataset.mode), dataset.mode == "dialogue", name, notes


def _words_of(text: str) -> str:
    return " ".join(split_words(text))


def _describe_best_two(comparison: FormComparison, names: Sequence[str]) -> str:
    """Return the result of the paired test between the two best models as a sentence; `names` has the best first."""
    if comparison.best_two is None:
        return "the other models cannot read this form of the text"
    best_two, interval = comparison.best_two, comparison.best_two.confidence_interval
    result = f"{names[0]} needs {0 - best_two.difference:.3f} bits/char less than {names[1]}"  # "0 -": no negative zero
    if interval is None or best_two.better_fraction is None:
        return f"{result}; the text is too short for a confidence interval"
    bounds = f"95 % CI {0 - interval[1]:.3f} to {0 - interval[0]:.3f}"
    return f"{result} ({bounds}): better in {100 * best_two.better_fraction:.1f} % of resampled texts"


def _comparison_record(comparison: FormComparison) -> dict[str, object]:
    names = [scores.candidate.name for scores in comparison.scores[:2]]
    models = [
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
    ]
    best_two = {"runs": names, **asdict(comparison.best_two)} if comparison.best_two else None
    facts = {"text_form": comparison.form, "characters": comparison.num_characters}
    return {**facts, "models": models, "best_two": best_two}
