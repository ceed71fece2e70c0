"""Scripts that people type: who says which line, and checks of models and names before anything is generated."""

from collections.abc import Sequence

from engine.data.scripts import split_name
from engine.data.speakers import SOMEONE, find_speaker, merge_key, normalize_speaker
from engine.errors import InvalidInputError, PromptError, shell_word
from engine.generation.turns import Turn


def parse_script(text: str, cast: Sequence[str], speaker: str = SOMEONE) -> list[Turn]:
    """Return the turns of a script, whose lines have the form "NAME: text".

    A name is of `cast`, in any case, or in capitals, and then SOMEONE says the line. A line without a name continues
    the line before it; `speaker` says the first line if it has no name. Empty lines are left out.

    Raises:
        PromptError: If a name has no text.
    """
    member_of_key = {merge_key(member): member for member in reversed(cast)}
    turns: list[Turn] = []
    for line in map(str.split, text.splitlines()):
        head, colon, said = " ".join(line).partition(":")
        named = split_name(" ".join(line))
        has_head = colon and said[:1] in ("", " ")
        member = member_of_key.get(merge_key(normalize_speaker(head).name)) if has_head else None
        if member is not None:
            turns.append(Turn(member, said.strip()))
        elif named is not None and named.case == "upper":
            turns.append(Turn(SOMEONE, named.text))
        elif turns:
            turns[-1] = Turn(turns[-1].speaker, " ".join([*turns[-1].text.split(), *line]))
        elif line:
            turns.append(Turn(speaker, " ".join(line)))
    for turn in turns:
        if not turn.text:
            raise PromptError(f"the line of {turn.speaker} is empty; write a text after {turn.speaker}:")
    return turns


def format_turn(turn: Turn) -> str:
    """Return a turn as a line of a script."""
    return f"{turn.speaker}: {turn.text}"


def check_has_cast(cast: Sequence[str], run: str, use: str) -> None:
    """Raise an InvalidInputError if a model knows no speakers, which `use` needs: an option or command."""
    if not cast:
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
