"""The keys and slash commands of the session: one table each, from which footer, help, palette and menu are made."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from textual.binding import Binding, BindingType

from engine.errors import InvalidInputError, printable, suggest_nearest
from lotr_tui.widgets.keys import FooterKey
from lotr_tui.widgets.prompt import Choice, Completion

SessionState = Literal["start", "idle", "writing", "words", "panes", "search", "controls"]
"""start: nothing is written yet; idle: after a reply; writing: a reply is being written; words: the cursor is on a
word; panes: another pane has the focus, so that letters are keys; search and controls: one of these has the focus."""

# Name, key that also works in the prompt, letter, action, label in the footer, help.
_KEYS = """
stop         | escape    |   | stop                     | stop     | Stop, close, or change panes
interrupt    | ctrl+c    |   | interrupt                | stop     | Stop the reply; ctrl+q quits
pane         | tab       |   | pane(1)                  | pane     | The next pane
pane-back    | shift+tab |   | pane(-1)                 | back     | The previous pane
enter        | enter     |   | enter                    | pick     | Pick the marked alternative, or go to the prompt
words        | ctrl+g    |   | words                    | words    | Why each word was picked, and its alternatives
again        | ctrl+r    | r | again       | again    | Answer again with another seed
next         | ctrl+n    | n | go_on                    | go on    | The next turn, or more of the reply
hotter       | ctrl+up   | plus | call('sampler.step_temperature', 1) | hotter   | Raise the temperature by 0.05
cooler       | ctrl+down | minus | call('sampler.step_temperature', -1) | cooler   | Lower the temperature by 0.05
models       | ctrl+o    |   | choose_model             | models   | Models and runs: use one, compare, delete
train        | ctrl+t    |   | train                    | train    | Start a training, or watch the running one
find         | ctrl+f    | slash | call('view.search_bar.open')  | find     | Find words in the conversation
export       | ctrl+s    |   | export_session           | export   | Write this session to a file
redraw       | ctrl+l    |   | redraw                   | redraw   | Draw the screen again
talk         |           | p | talk                     | talk     | Talk to the model of the training
edit         |           | e | edit                     | edit     | Change the prompt and send it again
copy         |           | y | call('view.copy_reply')       | copy     | Copy the prompt and its reply
earlier      |           | left_square_bracket | call('view.step_answer', -1)  | answer   | The answer before
later        |           | right_square_bracket | call('view.step_answer', 1)   | answer   | The next answer
answers      |           | z | call('view.toggle_answers')   | all      | All answers, from where they differ
who          |           | w | choose_cast              | who      | Who answers and who you are
options      |           | o | options                  | options  | All sampling controls and the seed
units        |           | u | toggle_units             | units    | Next words whole, or as their tokens
lens         |           | l | inspect('lens')          | lens     | Surprise per word in any text
temperatures |           | t | inspect('temperatures')  | temperatures | The prompt at several temperatures
compare      |           | c | inspect('compare')       | compare  | The prompt with several models
inside       |           | i | inspect('inside')        | inside   | Gates of an LSTM, or attention of a Transformer
copied       |           | m | inspect('copied')        | copied   | Which parts are copied from training
left         |           | left | call('view.transcript.step', -1) | word     | The previous word
right        |           | right | call('view.transcript.step', 1) | word     | The next word
up           |           | up | vertical(-1)             | reply    | The previous reply or match
down         |           | down | vertical(1)              | reply    | The next reply or match
home         |           | home | call('view.transcript.go_to_token', 0) | first word | First word of the reply
end          |           | end | call('view.transcript.go_to_token', -1) | last word | Last word of the reply
page-up      |           | pageup | scroll_page(-1)          | scroll up | Earlier replies
page-down    |           | pagedown | scroll_page(1)           | scroll down | Later replies
"""
_DIGITS = "".join(
    f"branch-{n} | | {n} | call('view.branch', {n}) | pick | Branch to alternative {n}\n" for n in range(1, 9)
)

# Footer of each state, the most important key first: names, with a label or `label@keys` where it differs.
_FOOTERS: Mapping[SessionState, str] = {
    "start": "prompt.send pane hotter=temperature@^↑↓ models train",
    "idle": "words again next={more} pane hotter=temperature@^↑↓ find models train export",
    "writing": "stop pane hotter=temperature@^↑↓ words",
    "words": "left={noun}@←→ stop=prompt branch-1=pick@1-8 enter=pick_marked again-letter next-letter={more} "
    "later=answer@[_] edit copy who find-letter lens temperatures compare inside copied answers units options",
    "panes": "stop=prompt pane who options temperatures lens compare inside copied units hotter-letter=temperature@+-",
    "search": "up=earlier@↑ down=later@↓ stop=close",
    "controls": "slider.lower=change@←→ stop=prompt options who",
}

# Name, argument, action without one (empty if it is needed), help.
_COMMANDS = """
as          | NAME    | choose_cast('speaking-as') | Speak as one of the cast, or as a stranger
to          | NAME    | choose_cast('answering') | Choose who answers; anyone: the model chooses
scene       | TURNS NAMES | go_on(4) | Go on for some turns, such as /scene 6 Frodo, Sam
system      | TEXT    | choose_cast         | Tell a chat model who it is, such as /system You are Gandalf
new         |         | call('view.begin_session') | Begin a new session; this one stays saved
sessions    |         | choose_session      | Saved sessions: open, rename, delete, export
export      | PATH    | export_session      | Write this session to a .md, .txt or .json file
model       | NAME    | choose_model        | Use the model of a run, hf:FOLDER, hf:owner/name or gguf:FILE
train       |         | train               | Start a training, or watch the running one
learn       | CHAPTER | learn               | The class: what a language model is
inspect     | WHAT    |                     | Look at the text: lens, temperatures, compare, copied or inside
preset      | NAME    |                     | Set all sampling controls, such as /preset chat
temperature | NUMBER  |                     | Set the temperature, from 0 to 2
penalty     | NUMBER  |                     | Make words that were used less likely, such as 1.1
set         | NAME VALUE |                  | Set another control, such as /set seed 7
help        |         | app.toggle_help     | All keys and commands
quit        |         | app.quit            | Quit lotr-tui
"""
SETTINGS = {
    "top-k": "Sample only from so many of the most likely words or tokens",
    "top-p": "Sample only from the most likely words with this total probability",
    "min-p": "Leave out words this much less likely than the best one",
    "length": "Maximum number of words or tokens of a reply",
    "seed": "A number, last or random",
    "answers": "Draw so many answers and keep the most relevant, or auto",
    "mode": "conversation, continue or reply",
    "pace": "Words or tokens per second; 0 is full speed",
}
"""Controls that /set sets, with what they do."""
INSPECTORS = {
    "lens": "Surprise per word in any text",
    "temperatures": "The prompt at several temperatures",
    "compare": "The prompt with several models",
    "copied": "Which parts are copied from training",
    "inside": "Gates of an LSTM, or attention of a Transformer",
}
CAST_COMMANDS = ("as", "to", "scene")  # whose argument is a name in the cast, in any case
ArgumentChoices = Callable[[str], Sequence[str] | Mapping[str, str]]
"""Function that returns the values that are offered for the argument of a command, perhaps with their help."""

HINTS = {
    "plain": (
        "Next: ctrl+↑ and ctrl+↓ change the temperature: watch the bars",
        "Next: ctrl+g shows the alternatives to each word",
        "Next: ctrl+r replies again, ctrl+n keeps going",
        "The bars: the most likely next words, after sampling and raw from the model",
        "Next: ctrl+t trains a model of your own; f1 lists all keys",
    ),
    "conversation": (
        "Next: /to Gollum chooses who answers, and /as Frodo who you are",
        "Next: ctrl+n goes on with the scene, ctrl+r answers again",
        "Next: ctrl+g shows the alternatives to each word",
        "Next: ctrl+↑ and ctrl+↓ change the temperature: watch the bars",
        "Next: ctrl+t trains a model of your own; f1 lists all keys",
    ),
    "chat": (
        "Next: /system You are Gandalf … tells the model who it is",
        "Next: ctrl+g shows the alternatives to each word",
        "Next: ctrl+r answers again, ctrl+n keeps going",
        "Next: ctrl+↑ and ctrl+↓ change the temperature: watch the bars",
        "Next: ctrl+t trains a model of your own; f1 lists all keys",
    ),
}
"""The next thing to try, after each of the first prompts of a user, by what the model can do."""


def _parse(table: str) -> list[list[str]]:
    return [[field.strip() for field in line.split("|")] for line in table.strip().splitlines()]


def _bindings() -> list[BindingType]:
    bindings: list[BindingType] = []
    for name, key, letter, action, label, help in _parse(_KEYS + _DIGITS):
        for keys, id in ((key, name), (letter, f"{name}-letter" if key else name)):
            priority = keys.startswith(("ctrl+", "escape"))  # a focused input would otherwise take them
            if keys:
                bindings.append(
                    Binding(keys, action, label, False, id=f"session.{id}", tooltip=help, priority=priority)
                )
    return bindings


def _footer(keys: str) -> tuple[FooterKey, ...]:
    footer = []
    for key in keys.split():
        name, _, label = key.partition("=")
        label, _, shown = label.partition("@")
        footer.append(
            FooterKey(name if "." in name else f"session.{name}", label.replace("_", " "), shown.replace("_", " "))
        )
    return tuple(footer)


SESSION_BINDINGS = _bindings()
FOOTER_KEYS = {state: _footer(keys) for state, keys in _FOOTERS.items()}
"""Keys of each state; `{noun}` is the noun for a token, and `{more}` what keeps going."""


class SlashCommand(NamedTuple):
    name: str
    argument: str  # such as NUMBER; empty if the command takes none
    action: str  # without an argument; empty if it needs one
    help: str

    @property
    def usage(self) -> str:
        """The command as the user types it, such as `/model [NAME]`."""
        argument = f"[{self.argument}]" if self.argument and self.action else self.argument
        return f"/{self.name} {argument}".strip()


SLASH_COMMANDS = {row[0]: SlashCommand(*row) for row in _parse(_COMMANDS)}


def is_command(text: str) -> bool:
    """Return True if a typed text is a command and not a prompt; a second slash makes it a prompt."""
    return text.startswith("/") and not text.startswith("//")


def parse_command(text: str) -> tuple[SlashCommand, str]:
    """Return a typed command and its argument.

    Raises:
        InvalidInputError: If there is no such command, or its argument is missing or not expected.
    """
    name, _, argument = text.removeprefix("/").strip().partition(" ")
    argument = argument.strip()
    command = SLASH_COMMANDS.get(name.lower())
    if command is None:
        nearest = suggest_nearest(f"/{name}", [f"/{other}" for other in SLASH_COMMANDS])
        raise InvalidInputError(f"/{printable(name)} is not a command{nearest} Begin with // to send it as text.")
    if argument and not command.argument:
        raise InvalidInputError(f"/{command.name} takes no argument")
    if not argument and not command.action:
        raise InvalidInputError(f"type {command.usage}: {command.help}")
    return command, argument


def complete_command(text: str, argument_choices: ArgumentChoices) -> Completion:
    """Return the commands that a typed text may become, or the values of its argument, as a menu."""
    name, space, argument = text.removeprefix("/").partition(" ")
    if not space:
        commands = [each for each in SLASH_COMMANDS.values() if each.name.startswith(name.lower())]
        commands.sort(key=lambda command: command.name != name.lower())  # /to before /to…
        if not commands:
            return Completion(hint="No such command; begin with // to send it as text")
        choices = [Choice(f"/{c.name}{' ' if c.argument else ''}", c.usage, c.help) for c in commands]
        # A command that works without an argument is complete without the space.
        choices = [
            choice._replace(text=choice.text.rstrip()) if command.action else choice
            for command, choice in zip(commands, choices, strict=True)
        ]
        return Completion(commands[0].name[len(name) :] if name else "", "↑ ↓ choose, enter runs, esc clears", choices)
    command = SLASH_COMMANDS.get(name.lower())
    if command is None:
        return Completion(hint="No such command; begin with // to send it as text")
    values = argument_choices(command.name)
    helps = values if isinstance(values, Mapping) else {}
    typed = argument.replace(",", " ").rpartition(" ")[2] if command.name == "scene" else argument
    before = text[: len(text) - len(typed)]

    def matches(value: str) -> bool:
        start = value[: len(typed)]
        return start == typed or (command.name in CAST_COMMANDS and start.casefold() == typed.casefold())

    found = [value for value in values if matches(value) and len(value) > len(typed)]
    end = " " if command.name == "set" and " " not in argument else ""
    choices = [Choice(f"{before}{typed}{value[len(typed) :]}{end}", value, helps.get(value, "")) for value in found]
    rest = found[0][len(typed) :] if found and typed else ""
    return Completion(rest, f"{command.usage}   {command.help}", choices, -1)
