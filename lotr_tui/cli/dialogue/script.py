"""Scripts that people type: who says which line, and checks of models and names before anything is generated."""

from collections.abc import Sequence

from engine.analysis.tokenized_text import read_label
from engine.data.scripts import Turn, detect_style, read_utterances
from engine.data.speakers import SOMEONE, find_member, find_speaker, normalize_speaker
from engine.errors import InvalidInputError, PromptError, shell_word
from engine.models.base import LanguageModel
from engine.models.dialogue import DialogueModel

MIN_SPEAKERS, MAX_SPEAKERS = 2, 64
"""Limits of a cast that a person names. The model reads the text once for each speaker."""


def parse_script(text: str, cast: Sequence[str], speaker: str = SOMEONE) -> list[Turn]:
    """Return the turns of a script, whose lines have the form "NAME: text".

    A name is of `cast`, in any case, or any name in capitals. A line without a name continues the line before it;
    `speaker` says the first line if it has no name. Empty lines are left out.

    Raises:
        PromptError: If a name has no text.
    """
    turns: list[Turn] = []
    for line in (" ".join(line.split()) for line in text.splitlines()):
        name, length = read_label(line, cast)
        if name:
            turns.append(Turn(name, line[length:].strip()))
        elif turns:
            turns[-1] = Turn(turns[-1].speaker, f"{turns[-1].text} {line}".strip())
        elif line:
            turns.append(Turn(speaker, line))
    for turn in turns:
        if not turn.text:
            raise PromptError(f"the line of {turn.speaker} is empty; write a text after {turn.speaker}:")
    return turns


def read_script(script: str, names: Sequence[str] | None, source: str) -> tuple[list[Turn], tuple[str, ...]]:
    """Return the turns of a script of any cast, and the names of the speakers to consider, for a model without a cast.

    `names` are those of speakers as typed, in any case; None for all names in the script, in order of appearance.
    `source` is the name of the script in messages.

    Raises:
        InvalidInputError: If there are too few or too many speakers, one of `names` is no name or given twice, or a
            script without names does not name them.
    """
    cast = [] if names is None else [" ".join(name.split()) for name in names]
    keys = [normalize_speaker(name).name for name in cast]
    for index, key in enumerate(keys):
        if not key:
            raise InvalidInputError(f"--cast: {cast[index]!r} is not a name; give names such as --cast FRODO,SAM")
        if key in keys[:index]:
            raise InvalidInputError(f"--cast names {cast[index]} twice; name every speaker once")
    turns = []
    lines = script.splitlines()
    if script.strip() and detect_style(lines) is None:
        raise InvalidInputError(f"{source} names no speakers; write its lines as NAME: text")
    for utterance in read_utterances(iter(lines), source) if script.strip() else ():
        if not utterance.speaker:
            continue
        key = normalize_speaker(utterance.speaker).name
        member = find_member(key, keys)
        if member is None and names is None:
            cast.append(utterance.speaker)
            keys.append(key)
            member = key
        turns.append(Turn(utterance.speaker if member is None else cast[keys.index(member)], utterance.text))
    if not MIN_SPEAKERS <= len(cast) <= MAX_SPEAKERS:
        given = source if names is None else f"--cast {','.join(cast)}"
        raise InvalidInputError(
            f"the number of speakers of {given} is {len(cast)}; name {MIN_SPEAKERS} to {MAX_SPEAKERS}, such as "
            "--cast FRODO,SAM"
        )
    return turns, tuple(cast)


def check_has_cast(model: LanguageModel, run: str, use: str) -> DialogueModel:
    """Return a model that knows speakers; for another one, raise an error that names the option that needs them.

    Raises:
        InvalidInputError: If the model of `run` knows no speakers, which `use` needs: an option or command.
    """
    if isinstance(model, DialogueModel):
        return model
    raise InvalidInputError(
        f"{use} needs a model that knows speakers, and {shell_word(run)} does not; "
        "train one: lotr-tui train --mode dialogue"
    )


def find_cast(names: Sequence[str] | None, cast: Sequence[str]) -> tuple[str, ...] | None:
    """Return the members of `cast` that `names` mean; None, which stands for everybody, stays None.

    Raises:
        InvalidInputError: If a name is unknown or given twice, or if there are fewer than two.
    """
    if names is None:
        return None
    members = tuple(find_speaker(name, cast) for name in names)
    for index, member in enumerate(members):
        if member in members[:index]:
            raise InvalidInputError(f"--cast names {member} twice; name every speaker once")
    if len(members) < 2:
        others = [member for member in cast if member not in members]
        raise InvalidInputError(
            f"--cast has only {members[0]}, but a scene needs two speakers; add one, such as "
            f"--cast {shell_word(','.join([*members, *others[:1]]))}"
        )
    return members
