"""`lotr-tui who` and `tokenize`: which speaker would say a text, and how a text is split, as a table or as JSON."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from rich.text import Text

from engine.analysis.speakers import SpeakerGuess, SpeakerPosterior, guess_written_speaker
from engine.config import Config
from engine.data import dataset, scripts
from engine.data.corpus import read_whole_text
from engine.data.speakers import SOMEONE, normalize_speaker
from engine.errors import InvalidInputError, printable, shell_word
from engine.generation.generate import encode_prompt
from engine.generation.turns import read_turns
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.names import is_pretrained_name
from engine.runs import directory, loading
from engine.storage.files import absolute_path
from lotr_tui.cli import console, main
from lotr_tui.formatting import bar, displayable, format_percent, plural, truncate
from lotr_tui.session.reply import parse_script

MAX_WHO_BYTES = 10_000  # the model reads the text as every speaker
MAX_CONTEXT_BYTES = 4_000_000  # which take a minute or two
MIN_SPEAKERS, MAX_SPEAKERS = 2, 64  # of a cast that a person names
MAX_LISTED_SPEAKERS, MAX_JSON_SPEAKERS, MAX_LISTED_WORDS = 8, 10, 24
MAX_NAME_WIDTH, MAX_WORD_WIDTH, MAX_LEADER_WIDTH = 24, 20, 16
MIN_BAR_WIDTH, MAX_BAR_WIDTH, NUM_OTHER_CELLS, EVIDENCE_WIDTH = 11, 30, 54, 10
JUDGES = {"text": "its text model", "lm": "the language model"}
GIVEAWAY_GAIN = math.log(2)  # smallest gain in log odds of a word that can give a speaker away: the odds double
CAST_HELP = "Speakers to choose from, for a model that knows none. Default: those in the context."
BY_HELP = (
    "Judge of the text: the run's text model, or the language model itself, by Bayes' rule: prior times likelihood, "
    "which is not calibrated. Default: text, or lm without a text model."
)
MAX_TEXT_BYTES = 1_000_000  # of standard input
TOKEN_STYLES = ("reverse", "underline")  # of neighbouring tokens, which show their borders without colour
commands = main.Commands()


@commands.command("who", cls=main.Command, epilog='lotr-tui who "we wants it" --context scene.txt')
def who(
    text: Annotated[str | None, main.option("TEXT", "Text; - or nothing: standard input.")] = None,
    run: main.RunOption = None,
    runs_dir: main.RunsDirOption = None,
    precision: main.PrecisionOption = "auto",
    context: Annotated[Path | None, main.option("--context FILE", "Lines before the text, each as NAME: text.")] = None,
    cast: Annotated[str | None, main.option("--cast A,B,...", CAST_HELP)] = None,
    by: Annotated[Literal["text", "lm"] | None, main.option("--by text|lm", BY_HELP)] = None,
    as_json: main.JsonOption = False,
) -> None:
    """Show which speaker would say a text, and which words gave the speaker away.

    A speaker's probability is proportional to how likely the speaker is to speak after the context (without one, how
    often the speaker speaks), times the likelihood of the words and letters by the run's text model, each to a power
    that was fitted on validation lines, so that about 60 % of the guesses with 60 % are right.
    """
    content = console.read_text(text, "TEXT", 'lotr-tui who "we wants it"', MAX_WHO_BYTES)
    if not content.strip():
        raise InvalidInputError("the text is empty; give at least one word")
    if (size := len(content.encode(errors="surrogateescape"))) > MAX_WHO_BYTES:
        raise InvalidInputError(f"the text has {size:,} bytes; use at most {MAX_WHO_BYTES:,} of it")
    script = "" if context is None else read_whole_text(absolute_path(context), MAX_CONTEXT_BYTES)
    loaded = loading.load_model_by_name(run, runs_dir, precision)
    model, name = loaded.model, shell_word(loaded.name)
    if by == "text" and not (isinstance(model, DialogueModel) and model.text_model is not None):
        raise InvalidInputError(f"{name} has no text model; leave out --by text")
    if not model.tokenizer.is_open:  # bytes that are not UTF-8 are skipped like other symbols
        content = content.encode(errors="surrogateescape").decode(errors="replace")
    if isinstance(model, DialogueModel):
        if cast is not None:
            remark = f"{name} knows {len(model.cast)}; leave it out"
            raise InvalidInputError(f"--cast is for models without speakers, and {remark}")
        turns, speakers = parse_script(script, model.cast), model.cast
    else:
        turns, speakers = _read_cast(script, cast, f"--context {context}", name)
    encoded = encode_prompt(content, model.tokenizer)
    console.report_unknown_text(encoded, model.tokenizer)
    if isinstance(model, DialogueModel):
        state = read_turns(model, turns) if turns else None
        by = by or ("lm" if model.text_model is None else "text")
        guess = SpeakerPosterior(model, state, by_language_model=by == "lm").update(content, is_complete=True)
    else:
        has_eos = loaded.config.data.mode != "stream"
        guess = guess_written_speaker(model, speakers, turns, content, eos_per_line=has_eos)
    if as_json:
        facts = {"run": loaded.name, "text": content, "context": [asdict(turn) for turn in turns]}
        console.print_json({**facts, "unknown": encoded.unknown_tokens, "by": by or "lm", **_guess_record(guess)})
    else:
        _print_guess(guess)
        label = console.report_names([loaded.name])[0] if is_pretrained_name(loaded.name) else f"run {loaded.name}"
        place = f"after {plural(len(turns), 'line')}" if turns else "at the start of a scene"
        print(printable(f"{label}, {place}, by {JUDGES[by or 'lm']}"))
        if turns:
            print(truncate(printable(scripts.turn_text(turns[-1]).rstrip()), console.MIN_TERMINAL_WIDTH))


def _read_cast(script: str, cast: str | None, source: str, name: str) -> tuple[list[scripts.Turn], tuple[str, ...]]:
    """Return the turns of a script, and the speakers to consider for a model without a cast: `cast`, or those in it."""
    if cast is None and not script.strip():
        raise InvalidInputError(
            f"`lotr-tui who` needs a model that knows speakers, and {name} does not; name them: --cast FRODO,SAM, or "
            "train one: lotr-tui train --mode dialogue"
        )
    if script.strip() and scripts.detect_style(script.splitlines()) is None:
        raise InvalidInputError(f"{source} names no speakers; write its lines as NAME: text")
    turns = [turn for scene in scripts.read_scenes(script) for turn in scene if turn.speaker != SOMEONE]
    typed = [turn.speaker for turn in turns] if cast is None else cast.split(",")
    speakers = tuple(dict.fromkeys(filter(None, (normalize_speaker(each) for each in typed))))
    if not MIN_SPEAKERS <= len(speakers) <= MAX_SPEAKERS:
        given, limits = source if cast is None else f"--cast {cast}", f"{MIN_SPEAKERS} to {MAX_SPEAKERS}"
        problem = f"the number of speakers of {given} is {len(speakers)}"
        raise InvalidInputError(f"{problem}; name {limits}, such as --cast FRODO,SAM")
    return turns, speakers


def _guess_record(guess: SpeakerGuess) -> dict[str, object]:
    ranking, place = guess.ranking(), {name: index for index, name in enumerate(guess.cast)}
    listed = [item.name for item in ranking[:MAX_JSON_SPEAKERS]]
    speakers = [
        {"speaker": item.name, "probability": item.prob, "prior": float(guess.prior[place[item.name]])}
        for item in ranking
    ]
    words = [
        {
            "word": word.word,
            "log_odds_gain": word.gain,
            "probabilities": {name: float(word.posterior[place[name]]) for name in listed},
            "evidence": {name: float(word.evidence[place[name]]) for name in listed},
        }
        for word in guess.words
    ]
    return {"speaker": ranking[0].name, "speakers": speakers, "words": words}


def _print_guess(guess: SpeakerGuess) -> None:
    """Print the likeliest speakers as bars, and the words with the strongest evidence for or against the first."""
    ranking = guess.ranking()
    width = max(MIN_BAR_WIDTH, min(MAX_BAR_WIDTH, console.make_console().width - NUM_OTHER_CELLS))
    prior_of = dict(zip(guess.cast, guess.prior.tolist(), strict=True))
    rows = [(item.name, item.prob, prior_of[item.name]) for item in ranking[:MAX_LISTED_SPEAKERS]]
    if others := ranking[MAX_LISTED_SPEAKERS:]:
        prior = sum(prior_of[item.name] for item in others)
        rows.append((plural(len(others), "other"), sum(item.prob for item in others), prior))
    cells = [
        (truncate(printable(name), MAX_NAME_WIDTH), bar(prob, width), format_percent(prob), format_percent(prior))
        for name, prob, prior in rows
    ]
    console.print_table(["speaker", "probability"], ["", "before the text"], cells)
    print()

    strongest = sorted(range(len(guess.words)), key=lambda index: -abs(guess.words[index].gain))[:MAX_LISTED_WORDS]
    scale = max((abs(word.gain) for word in guess.words), default=0) or 1.0
    leader, words = ranking[0].name, []
    for word in (guess.words[index] for index in sorted(strongest)):
        length = "█" * round(abs(word.gain) / scale * EVIDENCE_WIDTH)
        sides = (length.rjust(EVIDENCE_WIDTH), "") if word.gain < 0 else ("", length)
        share = format_percent(float(word.posterior[guess.cast.index(leader)]))
        words.append((truncate(printable(word.word), MAX_WORD_WIDTH), *sides, _format_factor(word.gain), share))
    texts = ["word", "against".rjust(EVIDENCE_WIDTH), "for"]
    console.print_table(texts, ["odds", truncate(leader, MAX_LEADER_WIDTH)], words)
    if len(guess.words) > MAX_LISTED_WORDS:
        print(f"{MAX_LISTED_WORDS} of {len(guess.words):,} words: those with the strongest evidence")
    print()
    best = max(guess.words, key=lambda word: word.gain, default=None)
    if best is not None and best.gain >= GIVEAWAY_GAIN:
        shown = truncate(printable(best.word), console.MIN_TERMINAL_WIDTH // 2)
        print(f'"{shown}" gave {leader} away: odds {_format_factor(best.gain)}')


def _format_factor(gain: float) -> str:
    """Return the factor by which the odds change, as "× 12" or "÷ 3.4"."""
    factor = math.exp(min(abs(gain), math.log(1e6)))
    return f"{'×' if gain >= 0 else '÷'} {factor:,.{0 if factor >= 10 else 1}f}"


@commands.command("tokenize", cls=main.Command, epilog='lotr-tui tokenize "my precious" --tokenizer bpe')
def tokenize(
    text: Annotated[str | None, main.option("TEXT", "Text; - or nothing: standard input.")] = None,
    run: main.RunOption = None,
    runs_dir: main.RunsDirOption = None,
    tokenizer: main.TokenizerOption = None,
    vocabulary_size: main.VocabularySizeOption = None,
    as_json: main.JsonOption = False,
) -> None:
    """Show how a text is split: by the tokenizer of a run, or by one that is learned from the bundled dialogues."""
    if run is not None and tokenizer is not None:
        raise InvalidInputError("--run has its own tokenizer; leave out --run or --tokenizer")
    content = console.read_text(text, "TEXT", 'lotr-tui tokenize "Where is Frodo"', MAX_TEXT_BYTES).removesuffix("\n")
    if not content:
        raise InvalidInputError("the text is empty; give at least one character")
    if tokenizer is not None:
        values = {"tokenizer": tokenizer} | ({} if vocabulary_size is None else {"vocabulary_size": vocabulary_size})
        splitter = dataset.load_dataset(Config().with_values(**values).data).tokenizer
        source = "learned from the bundled dialogues"
    elif is_pretrained_name(run):
        loaded = loading.load_model_by_name(run, runs_dir)
        splitter, (source,) = loaded.decoder.tokenizer, console.report_names([loaded.name])
    else:
        run_dir, _ = loading.find_model(run, runs_dir)
        splitter = loading.read_config_and_tokenizer(run_dir)[1]
        source = f"run {run or directory.bundled_runs()[run_dir]}"
    spans, unknown = splitter.spans(content), [span.text for span in splitter.unknown_spans(content)]
    if as_json:
        tokens = [
            {
                "id": span.id,
                "token": splitter.tokens[span.id],
                "text": content[span.start : span.end],
                "start": span.start,
            }
            for span in spans
        ]
        facts = {"tokenizer": splitter.name, "vocabulary_size": len(splitter), "characters": len(content)}
        console.print_json({**facts, "unknown": unknown, "tokens": tokens})
        return
    marked, end = Text(), 0
    for index, span in enumerate(spans):
        marked.append(_visible(content[end : span.start]), "dim")
        marked.append(_visible(content[span.start : span.end]), TOKEN_STYLES[index % 2])
        end = max(end, span.end)
    marked.append(_visible(content[end:]), "dim")
    parts = [plural(len(spans), "token"), plural(len(content), "character")]
    parts += [f"{len(content) / len(spans):.1f} characters per token"] if spans else []
    parts += [f"unknown: {', '.join(map(printable, unknown))}"] if unknown else []
    parts.append(f"{splitter.name}, {len(splitter):,} tokens, {source}")
    output = console.make_console()
    output.print(marked, soft_wrap=True)
    output.print(" ".join(f"{_visible(splitter.tokens[span.id])}:{span.id}" for span in spans), soft_wrap=True)
    output.print(" · ".join(parts), soft_wrap=True)


def _visible(text: str) -> str:
    """Return text on one line in which line feeds can be seen, and without other control characters."""
    return displayable(text).replace("\n", "⏎")
