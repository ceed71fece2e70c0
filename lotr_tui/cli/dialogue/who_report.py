"""Report on who would say a text: the speakers as bars, and the evidence of each word, as tables or JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from engine.analysis.speakers import SpeakerGuess, SpeakerPosterior, WordEvidence, guess_written_speaker
from engine.data.scripts import Turn, turn_text
from engine.errors import InvalidInputError, printable, shell_word
from engine.generation.prompt import encode_prompt
from engine.generation.turns import read_turns
from engine.models.dialogue import DialogueModel
from engine.models.pretrained.names import is_pretrained_name
from engine.runs.loading import LoadedModel
from lotr_tui.cli.console import MIN_TERMINAL_WIDTH, make_console, print_json
from lotr_tui.cli.dialogue.script import parse_script, read_script
from lotr_tui.cli.generate_console import report_unknown_text
from lotr_tui.cli.model_names import report_name
from lotr_tui.formatting import format_percent, plural, truncate
from lotr_tui.widgets.bars import bar

MAX_SPEAKERS = 8
"""Number of speakers that the table names; the others share a row."""
MAX_JSON_SPEAKERS = 10
"""Number of speakers whose probabilities the JSON has after each word."""
MAX_WORDS = 24
"""Number of words that the table lists: those with the strongest evidence."""
MAX_NAME_WIDTH, MAX_WORD_WIDTH = 24, 20
"""Cells of the first column of the tables."""
MAX_LEADER_WIDTH = 16
"""Cells of the heading that names the likeliest speaker."""
MIN_BAR_WIDTH, MAX_BAR_WIDTH = 11, 30
"""Cells of a bar that stands for certainty."""
NUM_OTHER_CELLS = 54
"""Cells of the table of speakers without the bars."""
EVIDENCE_WIDTH = 10
"""Cells of a bar that stands for the strongest evidence."""
JUDGES = {"text": "its text model", "lm": "the language model"}
GIVEAWAY_GAIN = math.log(2)
"""Smallest gain in log odds of a word that can give a speaker away: the odds double."""


@dataclass(frozen=True)
class WhoReport:
    """Posterior over the cast after a text, with the text and its context."""

    run: str
    text: str
    context: tuple[Turn, ...]
    unknown: tuple[str, ...]
    """Parts of the text that the model does not know."""
    guess: SpeakerGuess
    by: Literal["text", "lm"]

    @property
    def giveaway(self) -> WordEvidence | None:
        """The word that made the likeliest speaker most likelier; None if no word says much."""
        best = max(self.guess.words, key=lambda word: word.gain, default=None)
        return best if best is not None and best.gain >= GIVEAWAY_GAIN else None


def guess_speaker(
    loaded: LoadedModel,
    text: str,
    script: str,
    cast: Sequence[str] | None = None,
    context_name: str = "the context",
    by: Literal["text", "lm"] | None = None,
) -> WhoReport:
    """Judge by a model who says a text, after the lines of a script.

    A model that knows no speakers reads the names of `cast`, or else of the script, as they are written.

    Args:
        loaded: Model that guesses.
        text: Text of an unknown speaker.
        script: Lines before the text, of the form "NAME: text"; may be empty.
        cast: Names of the speakers as typed; None for those that the model knows, or that are in the script.
        context_name: Name of the script in messages.
        by: Judge of the text: the text model or the language model; None for the text model if there is one.

    Raises:
        InvalidInputError: If there are no speakers, or the model knows no word of the text, or has no text model.
    """
    model, known = loaded.model, loaded.cast
    if by == "text" and not (isinstance(model, DialogueModel) and model.text_model is not None):
        raise InvalidInputError(f"{shell_word(loaded.name)} has no text model; leave out --by text")
    if known and cast is not None:
        raise InvalidInputError(
            f"--cast is for models without speakers, and {shell_word(loaded.name)} knows {len(known)}; leave it out"
        )
    if not known and cast is None and not script.strip():
        raise InvalidInputError(
            f"`lotr-tui who` needs a model that knows speakers, and {shell_word(loaded.name)} does not; name them: "
            "--cast FRODO,SAM, or train one: lotr-tui train --mode dialogue"
        )
    if not model.tokenizer.is_open:  # bytes that are not UTF-8 are skipped like other symbols
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    encoded = encode_prompt(text, model.tokenizer)
    report_unknown_text(encoded, model.tokenizer)
    if isinstance(model, DialogueModel):
        turns = parse_script(script, model.cast)
        context = read_turns(model, turns) if turns else None
        by = by or ("lm" if model.text_model is None else "text")
        guess = SpeakerPosterior(model, context, by_language_model=by == "lm").update(text, is_complete=True)
    else:
        turns, names = read_script(script, cast, context_name)
        eos_per_line = loaded.config.data.mode != "stream"
        guess = guess_written_speaker(model, names, turns, text, eos_per_line=eos_per_line)
    return WhoReport(loaded.name, text, tuple(turns), encoded.unknown_tokens, guess, by or "lm")


def print_guess_as_json(report: WhoReport) -> None:
    """Print the probability of every speaker, and the evidence of every word, as one JSON object."""
    guess = report.guess
    ranking = guess.ranking()
    leader = ranking[0].name
    listed = ranking[:MAX_JSON_SPEAKERS]
    place = {name: index for index, name in enumerate(guess.cast)}
    print_json(
        {
            "run": report.run,
            "text": report.text,
            "context": [asdict(turn) for turn in report.context],
            "unknown": report.unknown,
            "by": report.by,
            "speaker": leader,
            "speakers": [
                {"speaker": item.name, "probability": item.prob, "prior": float(guess.prior[place[item.name]])}
                for item in ranking
            ],
            "words": [
                {
                    "word": word.word,
                    "log_odds_gain": word.gain,
                    "probabilities": {item.name: float(word.posterior[place[item.name]]) for item in listed},
                    "evidence": {item.name: float(word.evidence[place[item.name]]) for item in listed},
                }
                for word in guess.words
            ],
        }
    )


def print_guess(report: WhoReport) -> None:
    """Print the likeliest speakers as bars, and the words with the strongest evidence for the first of them."""
    console = make_console()
    bar_width = max(MIN_BAR_WIDTH, min(MAX_BAR_WIDTH, console.width - NUM_OTHER_CELLS))
    console.print(_make_speaker_table(report.guess, bar_width))
    leader = report.guess.ranking()[0].name
    console.print()
    console.print(_make_word_table(report, leader))
    if (num_words := len(report.guess.words)) > MAX_WORDS:
        console.print(f"{MAX_WORDS} of {num_words:,} words: those with the strongest evidence")
    console.print()
    if report.giveaway is not None:
        word = truncate(printable(report.giveaway.word), MIN_TERMINAL_WIDTH // 2)
        console.print(Text(f'"{word}" gave {leader} away: odds {_format_factor(report.giveaway.gain)}'))
    context = f"after {plural(len(report.context), 'line')}" if report.context else "at the start of a scene"
    console.print(Text(printable(f"{_describe_model(report.run)}, {context}, by {JUDGES[report.by]}")))
    if report.context:
        console.print(Text(truncate(printable(turn_text(report.context[-1]).rstrip()), MIN_TERMINAL_WIDTH)))


def _describe_model(name: str) -> str:
    return report_name(name) if is_pretrained_name(name) else f"run {name}"


def _make_speaker_table(guess: SpeakerGuess, bar_width: int) -> Table:
    """Return a table of the likeliest speakers, with their probabilities before and after the text."""
    ranking = guess.ranking()
    prior_of = dict(zip(guess.cast, guess.prior.tolist(), strict=True))
    table = Table(box=None, pad_edge=False)
    table.add_column("speaker")
    table.add_column("probability", width=bar_width)
    table.add_column("", justify="right")
    table.add_column("before the text", justify="right")
    named, others = ranking[:MAX_SPEAKERS], ranking[MAX_SPEAKERS:]
    rows = [(item.name, item.prob, prior_of[item.name]) for item in named]
    if others:
        prior = sum(prior_of[item.name] for item in others)
        rows.append((plural(len(others), "other"), sum(item.prob for item in others), prior))
    for name, prob, prior in rows:
        cells = (truncate(printable(name), MAX_NAME_WIDTH), bar(prob, bar_width))
        table.add_row(*map(Text, cells), format_percent(prob), format_percent(prior))
    return table


def _make_word_table(report: WhoReport, leader: str) -> Table:
    """Return a table of words in text order: how each changes the odds of `leader`, and the probability after it."""
    words = _strongest(report.guess.words)
    index = report.guess.cast.index(leader)
    scale = max(abs(word.gain) for word in words) or 1.0
    table = Table(box=None, pad_edge=False)
    table.add_column("word")
    table.add_column("against", justify="right", width=EVIDENCE_WIDTH)
    table.add_column("for", width=EVIDENCE_WIDTH)
    table.add_column("odds", justify="right")
    table.add_column(truncate(leader, MAX_LEADER_WIDTH), justify="right")
    for word in words:
        length = "█" * round(abs(word.gain) / scale * EVIDENCE_WIDTH)
        sides = (length, "") if word.gain < 0 else ("", length)
        table.add_row(
            Text(truncate(printable(word.word), MAX_WORD_WIDTH)),
            *map(Text, sides),
            _format_factor(word.gain),
            format_percent(float(word.posterior[index])),
        )
    return table


def _strongest(words: Sequence[WordEvidence]) -> list[WordEvidence]:
    """Return the words with the strongest evidence, for or against a speaker, in text order."""
    order = sorted(range(len(words)), key=lambda index: -abs(words[index].gain))
    return [words[index] for index in sorted(order[:MAX_WORDS])]


def _format_factor(gain: float) -> str:
    """Return the factor by which the odds change, as "× 12" or "÷ 3.4"."""
    factor = math.exp(min(abs(gain), math.log(1e6)))
    number = f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"
    return f"{'×' if gain >= 0 else '÷'} {number}"
