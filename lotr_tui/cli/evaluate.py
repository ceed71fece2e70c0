"""`lotr-tui eval`: how well models, their combinations and baselines predict a text."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from rich.progress import TaskID, TaskProgressColumn

from engine.analysis import evaluation as scoring
from engine.analysis.speakers import evaluate_by_speaker
from engine.analysis.token_scores import WordChange, most_changed_words
from engine.data import corpus, dataset, scripts, speakers, tables
from engine.data.tokenizers import split_words
from engine.errors import CorpusError, InvalidInputError, printable
from engine.models import base, ngram
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.names import is_pretrained_name
from engine.runs import combine, directory, loading
from lotr_tui.cli import console, main
from lotr_tui.cli.generate import StrengthOption, change_strength, check_has_cast
from lotr_tui.cli.main import option
from lotr_tui.formatting import MISSING, PRETRAINED_NOTE, format_percent, plural

COMBINATION_KEYS = ("dynamic", "cache", "mixture")  # in the JSON report; each adds something to the one before it
FORMS: dict[scoring.TextForm, str] = {
    "original": "the original text",
    "whitespace": "the text with single spaces",
    "words": "the lower-case words",
}
SPLIT_HELP = "Split to score; of several models, that of the first, without lines that another was trained on."
AGAINST_HELP = "Compare with RUN, and list the words that gained and lost most bits."
NUM_WORDS = 10  # in each list
CONTEXT_LENGTH = 24  # characters up to the end of a word: a row fits 80 columns
SplitName = Literal["valid", "test", "train"]
commands = main.Commands()


class Scored(NamedTuple):
    """A model to score."""

    key: str  # of its perplexity in the JSON report of one model
    name: str
    model: base.LanguageModel
    note: str = ""  # about the chosen weights, cache and learning rate


@commands.command("eval", cls=main.Command, epilog="lotr-tui eval first second\nlotr-tui eval --against smollm2")
@main.expand
def evaluate(
    *,
    run: Annotated[list[str] | None, option("RUN", f"{main.RUNS} Several are compared.")] = None,
    more_runs: main.RunsOption = None,
    against: Annotated[str | None, option("--against RUN", AGAINST_HELP)] = None,
    runs_dir: main.RunsDirOption = None,
    strength: StrengthOption = None,
    precision: main.PrecisionOption = "auto",
    split: Annotated[SplitName, option("--split valid|test|train", SPLIT_HELP)] = "valid",
    text: Annotated[str | None, option("--text FILE", "Score this text instead; -: standard input.")] = None,
    normalized: Annotated[bool, option("--normalized", "Score only the lower-case words of the text.")] = False,
    baselines: Annotated[bool, option("--baselines", "Add a unigram and a Kneser-Ney model of the same data.")] = False,
    by_speaker: Annotated[bool, option("--by-speaker", "Score what each speaker says, and who speaks next.")] = False,
    combination: main.Combination,
    dynamic: Annotated[bool, option("--dynamic", "Keep training the LSTMs while reading.", main.MODEL)] = False,
    as_json: main.JsonOption = False,
    jsonl: main.JsonLinesOption = False,
) -> None:
    """Print the perplexity and bits per character of a model on a text, or compare several models on it."""
    if against is not None and len(run or []) > 1:
        raise InvalidInputError(f"--against compares one RUN with {against}, but {len(run or [])} are given")
    is_comparison = against is not None or len(run or []) > 1
    for_one_model = {"--run": more_runs, "--baselines": baselines, "--by-speaker": by_speaker, "--jsonl": jsonl}
    if is_comparison and (other := next((name for name, value in for_one_model.items() if value), "")):
        remedy = "name one RUN, or give each model of an ensemble as --run RUN"
        raise InvalidInputError(f"{other} is for one model, but several RUNs are compared; {remedy}")
    for_a_text = {"--normalized": normalized, "--baselines": baselines, "--dynamic": dynamic, "--jsonl": jsonl}
    if by_speaker and (other := next((name for name, value in for_a_text.items() if value), "")):
        raise InvalidInputError(f"{other} and --by-speaker cannot be combined; leave out one of them")
    names: list[str | None] = [*(run or []), *(more_runs or [])]
    if against is not None:
        names = [*(names or [None]), against]
    if text is None and names and all(map(is_pretrained_name, names)):  # before anything slow
        other = "" if is_comparison else ", or add a RUN to compare with it on the split of that run"
        raise InvalidInputError(f"{names[0]} is a model by others and has no split to score; use --text FILE{other}")
    runs = [loading.load_model_by_name(name, runs_dir, precision) for name in names or [None]]
    for each in runs:
        if each.nothing_learned:
            print(printable(f"note: {each.name}: {each.nothing_learned}"), file=sys.stderr)
    if strength is not None:  # of the first model, which is the only one with --against
        runs[0] = replace(runs[0], decoder=change_strength(runs[0].decoder, runs[0].name, strength))
    if against is not None and (runs[0].path, runs[0].epoch) == (runs[1].path, runs[1].epoch):
        raise InvalidInputError(f"--against {against} is the model {runs[0].name} itself; name another one")
    context_notes = list[str]()
    if is_comparison:
        runs, context_notes = _use_one_context(runs)
    combiners = [combine.ModelCombiner([each]) for each in runs] if is_comparison else [combine.ModelCombiner(runs)]
    combined = combine.CombinationOptions(**vars(combination), dynamic=dynamic)
    split_or_path = split if text is None else text
    content, is_script, source, notes = _read_common_text(combiners, split, text)
    notes += context_notes
    if by_speaker:
        script = content if is_script else scripts.script_text(scripts.read_scenes(content))
        _print_by_speaker(combiners[0], combined, script, split_or_path, as_json=as_json)
        return
    if is_comparison:
        models = []
        for combiner in combiners:
            together = combiner.combine(combined)
            models.append(Scored("", combiner.runs[0].name, together.model, together.description))
    else:
        models = _list_models(combiners[0], combined, baselines=baselines or (text is None and not as_json))
    modes = [each.config.data.mode for each in runs] if is_comparison else [runs[0].config.data.mode] * len(models)
    candidates = [scoring.Candidate(each.name, each.model, mode) for each, mode in zip(models, modes, strict=True)]
    with console.show_progress(TaskProgressColumn()) as progress:
        bars: dict[str, TaskID] = {}

        def report(candidate: scoring.Candidate, done: int, total: int) -> None:
            if progress.disable and not bars:
                _print_start(source, [each.name for each in models])
            if candidate.name not in bars:
                bars[candidate.name] = progress.add_task(f"{source}: {candidate.name}")
            progress.update(bars[candidate.name], completed=done, total=total)

        comparisons = scoring.compare_models(
            candidates, content, is_script=is_script, only_words=normalized, on_progress=report
        )
    if jsonl or (as_json and not is_comparison):
        _print_json_of_one_model(models, comparisons[0], runs, split_or_path, jsonl=jsonl)
        return
    for loaded in runs:
        about = [PRETRAINED_NOTE if directory.needs_base(loaded.config) else ""]
        if is_script and not loaded.decoder.tokenizer.is_open:
            about.append("reads the texts without the names, which it cannot spell")
        elif not is_script and loaded.config.data.mode == "dialogue":
            about.append(f"reads every line as said by {speakers.SOMEONE}")
        notes += [f"{loaded.name}: {remark}" for remark in about if remark]
    notes += [f"{each.name}: {each.note}" for each in models if each.note]
    words = dict[str, list[WordChange]]()
    if against is not None:  # the first comparison has all models, best first
        best, second = comparisons[0].scores
        own, reference = (best, second) if best.candidate is candidates[0] else (second, best)
        words = dict(zip(("gained", "lost"), most_changed_words(own, reference, NUM_WORDS), strict=True))
    if as_json:
        texts = [_comparison_record(each) for each in comparisons]
        record = {"split": split_or_path, "text": source, "texts": texts, "notes": notes}
        records = {name: [{**word._asdict(), "gain": word.gain} for word in each] for name, each in words.items()}
        console.print_json(record | ({"words": records} if words else {}))
        return
    for index, comparison in enumerate(comparisons):
        given = " of the utterances, given the names" if is_script else ""
        description = f"{FORMS[comparison.form]}{given}, {comparison.num_characters:,} characters"
        print(("\n" if index else "") + printable(f"{source}: {description}"))
        _print_comparison(comparison)
    if words and is_script:
        notes.append("line: of the script with each turn on one line, also where the file breaks it")
    for title, changes in words.items():
        _print_changes(f"{title} most", changes, console.report_names([each.name for each in models]))
    for note in notes:
        print(printable(note))


def _use_one_context(runs: Sequence[loading.LoadedModel]) -> tuple[list[loading.LoadedModel], list[str]]:
    """Return the models with the smallest context of them, and a note: more context alone makes a text cheaper."""
    networks = [each.decoder.model if isinstance(each.decoder, DialogueModel) else each.decoder for each in runs]
    sizes = [each.context_size if isinstance(each, base.LimitedModel) else 0 for each in networks]
    limits = set(sizes) - {0}
    if len(limits) < 2:
        return list(runs), []
    smallest = min(limits)
    limited = []
    for each, size in zip(runs, sizes, strict=True):
        decoder: Any = each.decoder
        limited.append(replace(each, decoder=decoder.with_context_size(smallest)) if size > smallest else each)
    return limited, [f"context: {smallest:,} tokens for all, the smallest of these models"]


def _print_start(source: str, names: Sequence[str]) -> None:
    print(printable(f"scoring {source} by {', '.join(names)} …"), file=sys.stderr, flush=True)


def _read_common_text(
    combiners: Sequence[combine.ModelCombiner], split: SplitName, path: str | None
) -> tuple[str, bool, str, list[str]]:
    """Return the text to score, whether it is a script, whose names all models get, its name and remarks.

    It is a file, or standard input, or else a split of the first run with an open vocabulary, whose text is as written,
    or of the first run. The lines that another run was trained on, and this one was not, are left out.
    """
    if path is not None:
        if path == "-":
            text = console.read_text("-", "--text", "", -1).removeprefix("\ufeff")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            tables.check_line_lengths(text.split("\n"), "standard input")
        else:
            text = corpus.read_whole_text(Path(path))
        has_dialogue = any(combiner.runs[0].config.data.mode == "dialogue" for combiner in combiners)
        is_script = has_dialogue and scripts.detect_style(text.splitlines()) is not None
        return scripts.script_text(scripts.read_scenes(text)) if is_script else text, is_script, path, []
    datasets, notes, failure = list[tuple[str, dataset.Dataset]](), list[str](), CorpusError("no run has a split")
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
    (owner, chosen), *others = datasets
    left_out = {_words_of(line.text) for _, other in others for line in other.splits.train}
    left_out -= {_words_of(line.text) for line in chosen.splits.train} if others else set()
    lines = getattr(chosen.splits, split)
    kept = [index for index, line in enumerate(lines) if not others or _words_of(line.text) not in left_out]
    name = f"{split} of {owner}"
    if not kept:
        raise CorpusError(f"every line of {name} is in the training text of another run; use --text FILE")
    if len(kept) < len(lines):
        notes.append(f"left out: {len(lines) - len(kept):,} of {len(lines):,} lines, which another run was trained on")
    return scoring.written_text(lines.take(np.array(kept)), chosen.mode), chosen.mode == "dialogue", name, notes


def _words_of(text: str) -> str:
    return " ".join(split_words(text))


def _list_models(
    combiner: combine.ModelCombiner, combination: combine.CombinationOptions, *, baselines: bool
) -> list[Scored]:
    """Return the runs alone, then each requested combination, added to the ones before it, and the baselines."""
    plain = combine.CombinationOptions()
    is_ensemble = len(combiner.runs) > 1
    names = console.report_names([run.name for run in combiner.runs])
    combinations = [("perplexity", "ensemble" if is_ensemble else names[0], plain)]
    if combination.dynamic:
        combinations.append(("dynamic", "with dynamic evaluation", replace(plain, dynamic=True)))
    if combination.cache:
        combinations.append(("cache", "with a cache", replace(plain, dynamic=combination.dynamic, cache=True)))
    if combination.mixture:
        combinations.append(("mixture", "mixture", combination))
    combined = [(key, name, combiner.combine(each)) for key, name, each in combinations]
    models = [Scored(key, name, each.model, each.description) for key, name, each in combined]
    if is_ensemble:
        models += [Scored("run", name, run.decoder) for name, run in zip(names, combiner.runs, strict=True)]
    if baselines:
        data = combiner.dataset
        models.append(Scored("unigram", "unigram", ngram.Unigram(data.train, data.tokenizer)))
        if len(data.train) <= ngram.MAX_KNESER_NEY_TOKENS:
            models.append(Scored("kneser_ney_5", "Kneser-Ney 5", combiner.kneser_ney))
    return models


def _print_comparison(comparison: scoring.FormComparison) -> None:
    names = console.report_names([scores.candidate.name for scores in comparison.scores])
    rows = []
    for name, scores in zip(names, comparison.scores, strict=True):
        tokenizer, mode = scores.candidate.model.tokenizer, scores.candidate.mode
        interval, evaluation = scores.confidence_interval, scores.evaluation
        is_plain = mode == "line" or tokenizer.reads_line_ends
        row = [printable(name), tokenizer.name if is_plain else f"{tokenizer.name}, {mode}"]
        bounds = f"{interval[0]:.2f}-{interval[1]:.2f}" if interval else MISSING
        rare = MISSING if tokenizer.is_open else f"{100 * evaluation.unk_rate:.1f} %"
        figures = f"{scores.bits_per_character:.3f}", bounds, f"{evaluation.perplexity:.2f}"
        rows.append([*row, *figures, f"{evaluation.tokens:,}", rare])
    # The most important figures come first: a narrow terminal has no room for the last ones.
    console.print_table(["run", "tokenizer"], ["bits/char", "95 % CI", "perplexity", "tokens", "rare"], rows)
    if (best_two := comparison.best_two) is not None:
        interval = best_two.confidence_interval
        result = f"{names[0]} needs {0 - best_two.difference:.3f} bits/char less than {names[1]}"  # "0 -": never -0.000
        reliability = "; the text is too short for a confidence interval"
        if interval is not None:
            reliability = f" (95 % CI {0 - interval[1]:.3f} to {0 - interval[0]:.3f})"
        print(printable(result + reliability))


def _print_changes(title: str, changes: Sequence[WordChange], names: Sequence[str]) -> None:
    rows = []
    for each in changes:
        figures = f"{each.gain:+.2f}", f"{each.bits:.2f}", f"{each.other_bits:.2f}", f"{each.line:,}"
        is_cut = len(each.context) > CONTEXT_LENGTH
        rows.append([printable(each.word), *figures, "…" * is_cut + printable(each.context[-CONTEXT_LENGTH:])])
    print()
    console.print_table([title], ["bits gained", *map(printable, names), "line"], rows, "in the text")


def _comparison_record(comparison: scoring.FormComparison) -> dict[str, object]:
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
    best_two = None
    if comparison.best_two is not None:
        best_two = {"runs": [scores.candidate.name for scores in comparison.scores[:2]], **asdict(comparison.best_two)}
    facts = {"text_form": comparison.form, "characters": comparison.num_characters}
    return {**facts, "models": models, "best_two": best_two}


def _print_json_of_one_model(
    models: Sequence[Scored],
    comparison: scoring.FormComparison,
    runs: Sequence[loading.LoadedModel],
    source: str,
    *,
    jsonl: bool,
) -> None:
    """Print the tokens or the figures of the complete combination, and the perplexities of all others."""
    scores_of = {id(scores.candidate.model): scores for scores in comparison.scores}  # a run may be called "mixture"
    combinations = [each for each in models if each.key in COMBINATION_KEYS]
    scores = scores_of[id((combinations or models[:1])[-1].model)]
    scored = scores.log_probs[scores.text.is_scored]
    if jsonl:
        tokens = scores.candidate.model.tokenizer.tokens
        for token, score in zip(scores.text.ids[scores.text.is_scored].tolist(), scored.tolist(), strict=True):
            console.print_json({"id": token, "text": tokens[token], "logprob": score})
        return
    perplexities = {each.key: scores_of[id(each.model)].evaluation.perplexity for each in models}
    record: dict[str, object] = {
        "run": "+".join(run.name for run in runs),
        "split": source,
        "mode": runs[0].config.data.mode,
        "pretrained_on_other_text": any(directory.needs_base(run.config) for run in runs),
        **asdict(scores.evaluation),
        "confidence_interval": scoring.perplexity_confidence_interval(scored),
        "text_form": comparison.form,
        "characters": comparison.num_characters,
        "bits_per_character": scores.bits_per_character,
        "bits_per_character_interval": scores.confidence_interval,
    }
    if baselines := {name: perplexities[name] for name in ("unigram", "kneser_ney_5") if name in perplexities}:
        record["baselines"] = baselines
    if combinations:
        record["plain"] = perplexities["perplexity"]
    for each in combinations:
        record |= {each.key: perplexities[each.key], f"{each.key}_description": each.note}
    console.print_json(record)


def _print_by_speaker(
    combiner: combine.ModelCombiner, combination: combine.CombinationOptions, script: str, source: str, *, as_json: bool
) -> None:
    run = "+".join(loaded.name for loaded in combiner.runs)
    model = check_has_cast(combiner.combine(combination, to_play=True).model, run, "--by-speaker")
    _print_start(source, [loaded.name for loaded in combiner.runs])
    script = scoring.convert_text(script, scoring.native_form(model.tokenizer), "dialogue")
    scenes = [[turn for turn in map(scripts.parse_line, scene.split("\n")) if turn] for scene in script.split("\n\n")]
    evaluation = evaluate_by_speaker(model, list(filter(None, scenes)))
    is_pretrained = any(directory.needs_base(loaded.config) for loaded in combiner.runs)
    if as_json:
        facts = {"run": run, "split": source, "mode": "dialogue", "pretrained_on_other_text": is_pretrained}
        console.print_json({**facts, **asdict(evaluation)})
        return
    rows = []
    for each in evaluation.speakers:
        figures = f"{each.perplexity:.2f}", f"{each.bits_per_character:.3f}", f"{each.tokens:,}", f"{each.lines:,}"
        rows.append([each.speaker, *figures])
    console.print_table(["speaker"], ["perplexity", "bits/char", "tokens", "lines"], rows)
    turns, note = evaluation.next_speaker, f"; {PRETRAINED_NOTE}" if is_pretrained else ""
    accuracy = f"{format_percent(turns.accuracy)} of {plural(turns.turns, 'turn')}"
    print(f"who speaks next: {turns.bits_per_turn:.2f} bits per turn, top-1 accuracy {accuracy}")
    print(printable(f"{source}, run {run}{note}; the rows are about the texts, without the names"))
