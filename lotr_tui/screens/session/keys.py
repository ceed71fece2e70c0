"""The keys and slash commands of the session: one table, from which footer, help, palette and menu are made."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from textual.binding import Binding, BindingType

from engine.data.speakers import best_known_first, display_name, find_speaker
from engine.errors import InvalidInputError, printable, suggest_nearest
from engine.models.pretrained.names import BASE_FILE
from engine.storage.files import default_runs_dir
from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.session.cast import A_STRANGER
from lotr_tui.session.model_loading import known_model_names
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT
from lotr_tui.widgets.keys import FooterKey
from lotr_tui.widgets.prompt import Choice, Completion
from lotr_tui.widgets.slider import SAMPLER_PRESETS

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from lotr_tui.session.session_model import SessionModel

SessionState = Literal["start", "idle", "writing", "words", "letters", "clicked", "panes", "search", "controls"]
"""start: nothing is written yet; idle: after a reply; writing: a reply is being written; words: the conversation has
the focus, so that letters are keys, and the cursor is on a word; letters: the same without a word; clicked: a word was
clicked, and keys still type into the prompt; panes, search and controls: one of these has the focus."""

# Name, key that also works in the prompt, letter, slash command's argument (- for none), action (of a command: without
# its argument; empty if it needs one), method of the screen's objects for the argument, label in the footer, help.
_TABLE = """
stop | escape | | | stop | | stop | Stop, close, or go back to the prompt
interrupt | ctrl+c | | | interrupt | | stop | Stop the reply; ctrl+q quits
pane | tab | | | pane(1) | | pane | The next pane
pane-back | shift+tab | | | pane(-1) | | back | The previous pane
enter | enter | | | enter | | pick | Pick the marked alternative, or go to the prompt
words | ctrl+g | | | call('view.take_keys') | | words | Why each word was picked, and letters as keys
again | ctrl+r | r | | call('view.again') | | again | Answer again with another seed
next | ctrl+n | n | | call('view.go_on') | | go on | The next turn, or more of the reply
as | | | NAME | call('slot.choose_roles', 'speaking-as') | slot.set_control | | Speak as one of the cast or another
to | | | NAME | call('slot.choose_roles') | slot.set_control | | Choose who answers; anyone: the model chooses; !NAME
scene | | | TURNS NAMES | call('view.go_on', 4) | view.play_scene | | Go on for some turns, such as /scene 6 Frodo, Sam
system | | | TEXT | call('slot.choose_roles') | slot.set_control | | Tell a chat model who it is, as: You are Gandalf
new | | | - | call('view.open_session') | | | Begin a new session; this one stays saved
sessions | | | - | call('view.choose_session') | | | Saved sessions: open, rename, delete, export
hotter | ctrl+up | plus | | call('slot.sampler.slider.action_step', 1) | | hotter | Raise the temperature by 0.05
cooler | ctrl+down | minus | | call('slot.sampler.slider.action_step', -1) | | cooler | Lower the temperature by 0.05
stronger | alt+up | | | call('slot.sampler.step_strength', 1) | | stronger | Raise the strength of the adapter by 0.05
weaker | alt+down | | | call('slot.sampler.step_strength', -1) | | weaker | Lower the strength of the adapter by 0.05
export | ctrl+s | | PATH | call('view.export') | view.export | export | Write this session to a .md, .txt or .json file
model | ctrl+o | | NAME | call('slot.choose') | slot.load | models | Models and runs; hf:FOLDER, hf:NAME, gguf:FILE
adapter | | | RUN:X | | slot.set_adapter | | Add another adapter, such as romeo:0.5; romeo off removes it
steer | | | NAME | | view.steer | | Steer to a speaker, or to the first of two files; off ends it
train | ctrl+t | | - | call('training.open') | | train | Start a training, or watch the running one
learn | | | CHAPTER | learn | action_learn | | The class: what a language model is
find | ctrl+f | | | call('view.search_bar.open') | | find | Find words in the conversation
redraw | ctrl+l | | | redraw | | redraw | Draw the screen again
talk | | p | | call('training.talk') | | talk | Talk to the model of the training
edit | | e | | edit | | edit | Change the prompt and send it again
copy | | y | | call('view.copy_reply') | | copy | Copy the prompt and its reply
earlier | | left_square_bracket | | call('view.step_answer', -1) | | answer | The answer before
later | | right_square_bracket | | call('view.step_answer', 1) | | answer | The next answer
who | | w | | call('slot.choose_roles') | | who | Who answers and who you are
options | | o | | call('slot.choose_controls') | | options | All sampling controls, best-of and the seed
units | | u | | call('slot.toggle_unit') | | units | Next words whole, or as their tokens
inspect | | | WHAT | | action_inspect | | Look at the text in another way: lens, tuning, strengths, compare …
lens | | l | | inspect('lens') | | lens | Surprise per word in any text
tuning | | f | | inspect('tuning') | | tuning | What fine-tuning changed: the words that gained and lost
temperatures | | t | | inspect('temperatures') | | temperatures | The prompt at several temperatures
strengths | | | | inspect('strengths') | | strengths | The prompt at several strengths of the adapter
compare | | c | | inspect('compare') | | compare | The prompt with several speakers or models
inside | | i | | inspect('inside') | | inside | Gates of an LSTM, or attention of a Transformer
copied | | m | | inspect('copied') | | copied | Which parts are copied from training
preset | | | NAME | | slot.set_control | | Set all sampling controls, such as /preset chat
temperature | | | NUMBER | | slot.set_control | | Set the temperature, from 0 to 2
strength | | | NUMBER | | slot.set_control | | How much of the adapter acts, 0 to 1.5; also romeo 0.5
penalty | | | NUMBER | | slot.set_control | | Make words that were used less likely, such as 1.1
set | | | NAME VALUE | | slot.set_control | | Set another control, such as /set seed 7
left | | left | | call('view.transcript.step', -1) | | word | The previous word
right | | right | | call('view.transcript.step', 1) | | word | The next word
up | | up | | call('view.step_vertically', -1) | | reply | The previous reply or match
down | | down | | call('view.step_vertically', 1) | | reply | The next reply or match
home | | home | | call('view.transcript.go_to_token', 0) | | first word | First word of the reply
end | | end | | call('view.transcript.go_to_token', -1) | | last word | Last word of the reply
page-up | | pageup | | call('view.scroll_by_pages', -1) | | scroll up | Earlier replies
page-down | | pagedown | | call('view.scroll_by_pages', 1) | | scroll down | Later replies
help | | | - | app.toggle_help | | | All keys and commands
quit | | | - | app.quit | | | Quit lotr-tui
"""
_DIGITS = "".join(
    f"branch-{n} | | {n} | | call('side.branch', {n}) | | pick | Branch to alternative {n}\n" for n in range(1, 9)
)
_ROWS = [[field.strip() for field in line.split("|")] for line in (_TABLE + _DIGITS).strip().splitlines()]

# Footer of each state, the most important key first: names, with a label or `label@keys` where it differs.
_FOOTERS: Mapping[SessionState, str] = {
    "start": "prompt.send pane hotter=temperature@^↑↓ stronger=strength@alt+↑↓ model train",
    "idle": "words again next pane hotter=temperature@^↑↓ stronger=strength@alt+↑↓ find model train export",
    "writing": "stop pane hotter=temperature@^↑↓ words",
    "words": "left=word@←→ stop=prompt branch-1=pick@1-8 enter=pick_marked again-letter next-letter "
    "later=answer@[_] edit copy who lens tuning temperatures compare inside copied units options",
    "letters": "stop=prompt who options temperatures lens tuning compare inside copied units "
    "hotter-letter=temperature@+-",
    "clicked": "stop=back words=keys again next",
    "panes": "stop=prompt pane words",
    "search": "up=earlier@↑ down=later@↓ stop=close",
    "controls": "slider.lower=change@←→ stop=prompt pane words",
}
STATE_HELP = {
    "words": "← → choose a word; 1-8 replace it and go on; esc back to the prompt",
    "letters": "Letters are keys here; esc back to the prompt",
    "clicked": "A click on an alternative branches to it; ctrl+g moves by keys; esc back",
    "search": "↑ and enter: the earlier match; ↓: the later; esc closes",
}
CONTROLS = {name: help for name, *_, method, _, help in _ROWS if method == "slot.set_control" and name != "set"} | {
    "top-k": "Sample only from so many of the most likely words or tokens",
    "top-p": "Sample only from the most likely words with this total probability",
    "min-p": "Leave out words this much less likely than the best one",
    "length": "Maximum number of words or tokens of a reply",
    "seed": "A number, last or random",
    "best-of": "Draw so many answers and keep the most relevant, or auto",
    "mode": "conversation, continue or reply",
    "pace": "Words or tokens per second; 0 is full speed",
}
"""Controls that /set sets, with their help."""
INSPECTORS = {row[0]: row[7] for row in _ROWS if row[4].startswith("inspect(")}
CAST_COMMANDS = ("as", "to", "scene")  # whose argument is a name in the cast, in any case
SCENE_TURNS, MAX_SCENE_TURNS = 4, 100
HINTS = (
    "Next: see the most likely next words, after sampling and raw from the model",
    "Next: ctrl+g shows the alternatives to each word",
    "Next: ctrl+r answers again, ctrl+n goes on",
    "Next: ctrl+↑ and ctrl+↓ change the temperature: watch the bars",
    "Next: ctrl+t trains a model of your own; f1 lists all keys",
)
"""The next thing to try, after each of the first prompts of a user."""
STRENGTH_HINT = "Next: alt+↑ and alt+↓ change the strength of the adapter: watch the bars"  # before the last one
CAST_HINT = "Next: /to Gollum chooses who answers, and /as Frodo who you are"
CHAT_HINT = "Next: /system You are Gandalf … tells the model who it is"


def _bindings() -> list[BindingType]:
    bindings: list[BindingType] = []
    for name, key, letter, _, action, _, label, help in _ROWS:
        for keys, id in ((key, name), (letter, f"{name}-letter" if key else name)):
            priority = keys.startswith(("ctrl+", "alt+", "escape"))  # a focused input would otherwise take them
            binding = Binding(keys, action, label, False, id=f"session.{id}", tooltip=help, priority=priority)
            bindings += [binding] if keys else []
    return bindings


def _footer(keys: str) -> tuple[FooterKey, ...]:
    footer = []
    for key in keys.split():
        name, _, label = key.partition("=")
        label, _, shown = label.replace("_", " ").partition("@")
        footer.append(FooterKey(name if "." in name else f"session.{name}", label, shown))
    return tuple(footer)


SESSION_BINDINGS = _bindings()
FOOTER_KEYS = {state: _footer(keys) for state, keys in _FOOTERS.items()}


class SlashCommand(NamedTuple):
    name: str
    argument: str  # such as NUMBER; empty if the command takes none
    action: str  # without an argument; empty if it needs one
    method: str  # that gets the argument
    help: str

    @property
    def usage(self) -> str:
        return f"/{self.name} {f'[{self.argument}]' if self.argument and self.action else self.argument}".strip()


SLASH_COMMANDS = {
    name: SlashCommand(name, typed.strip("-"), action, method, help)
    for name, _, _, typed, action, method, _, help in _ROWS
    if typed
}


def is_command(text: str) -> bool:
    """Return True if a typed text is a command and not a prompt; a second slash makes it a prompt."""
    return text.startswith("/") and not text.startswith("//")


def parse_command(text: str, model: "SessionModel | None") -> tuple[SlashCommand, str]:
    """Return a typed command and the argument of its method, or raise an InvalidInputError.

    The command is unknown, its argument is missing or not expected, or the model cannot do it or is not loaded (None).
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
    if problem := find_problem(command.name, model):
        raise InvalidInputError(problem)
    return command, f"{command.name} {argument}" if argument and command.name in CONTROLS else argument


def find_problem(command: str, model: "SessionModel | None") -> str:
    """Return what a command needs if that is another model, or one that is loaded; empty if it can be used."""
    if command in ("model", "train", "learn", "help", "quit"):
        return ""
    if model is None:
        return f"/{command} needs a model, and none is loaded yet"
    if command == "system" and model.chat is None:
        return "/system needs a model with a chat template, such as an instruct model from hf:"
    if command == "strength" and not model.strengths:
        return f"/strength needs a model with an adapter, and {model.name} has none: /model bundled"
    if command == "adapter" and not (model.strengths or model.source):
        return f"/adapter needs a model that adapters are made for, and {model.name} is none: /model smollm2"
    if command == "steer":
        from engine.analysis.steering import find_steerable  # not needed for the first paint

        return "" if find_steerable(model.model) else "/steer needs a Transformer of two layers or more: /model bundled"
    if command in CAST_COMMANDS and not model.cast:
        return f"/{command} needs a model that knows speakers: /model bundled, or train one with --mode dialogue"
    return ""


def find_hint(model: "SessionModel", num_prompts: int) -> str:
    """Return the next thing to try after a number of prompts of a user; empty once all hints were shown."""
    if num_prompts == 1 and (model.cast or model.chat):
        return CAST_HINT if model.cast else CHAT_HINT
    hints = [*HINTS[:-1], *([STRENGTH_HINT] if model.strengths else []), HINTS[-1]]
    return dict(enumerate(hints, 1)).get(num_prompts, "")


def parse_scene(argument: str, cast: Sequence[str]) -> tuple[int, tuple[str, ...] | None]:
    """Return the number of turns and the speakers of a typed scene, such as `6 Frodo, Sam`; None for all speakers.

    A number out of range, or a name that is not in the cast, raises an InvalidInputError.
    """
    number, _, names = argument.partition(" ")
    if not number.isdecimal():
        number, names = str(SCENE_TURNS), argument
    num_turns = int(number) if len(number) < 10 else 0
    if not 1 <= num_turns <= MAX_SCENE_TURNS:
        raise InvalidInputError(f"{number[:20]} turns is out of range; use 1 to {MAX_SCENE_TURNS}")
    speakers = dict.fromkeys(find_speaker(name, cast) for name in map(str.strip, names.split(",")) if name)
    return num_turns, tuple(speakers) or None


def find_name(name: str, known: Mapping[str, str]) -> str:
    if name.lower() not in known:
        raise InvalidInputError(f"{name[:40]!r} is unknown{suggest_nearest(name, known)} Use {', '.join(known)}.")
    return name.lower()


def complete_command(
    text: str, model: "SessionModel | None", runs_dir: Path | None = None, recent_models: Sequence[str] = ()
) -> Completion:
    """Return the commands that a typed text may become, or the values of its argument, as a menu.

    A model (None: not loaded yet) is offered only the ones that it can do.
    """

    def is_usable(command: str) -> bool:
        return model is None or not find_problem(command, model)

    name, space, argument = text.removeprefix("/").partition(" ")
    if not space:
        commands = [c for c in SLASH_COMMANDS.values() if c.name.startswith(name.lower()) and is_usable(c.name)]
        commands.sort(key=lambda command: command.name != name.lower())  # /to before /to…
        # A command that works without an argument is complete without the space.
        choices = [Choice(f"/{c.name}{'' if c.action else ' '}", c.usage, c.help) for c in commands]
        if choices:
            rest = commands[0].name[len(name) :] if name else ""
            return Completion(rest, "↑ ↓ choose, enter takes it, esc clears", choices)
    command = SLASH_COMMANDS.get(name.lower())
    if command is None:
        return Completion(hint="No such command; begin with // to send it as text")
    if model is not None and (problem := find_problem(command.name, model)):
        return Completion(hint=problem)
    people = [] if model is None or not model.cast else [display_name(name) for name in best_known_first(model.cast)]
    choices_of: dict[str, Collection[str]] = {
        "as": [*people, A_STRANGER],
        "to": [*people, "anyone"],
        "scene": people,
        "steer": [*people, *([] if model is None or model.unsteered is None else ["off"])],
        "system": (EXAMPLE_SYSTEM_PROMPT,),
        "learn": [chapter.name for chapter in CHAPTERS],
        "inspect": INSPECTORS,
        "preset": {name: preset.describe() for name, preset in SAMPLER_PRESETS.items()},
        "set": {name: help for name, help in CONTROLS.items() if is_usable(name)},
    }
    if command.name == "strength" and model is not None:
        names = [f"{printable(name)} " for name in model.strengths] if len(model.strengths) > 1 else [""]
        choices_of |= {"strength": [f"{name}{number}" for name in names for number in ("0", "0.5", "1", "1.5")]}
    values = choices_of.get(command.name, ())
    if command.name in ("model", "adapter"):
        from engine.runs.directory import bundled_runs, find_run_dirs  # not needed for the first paint

        runs = {path: printable(path.name) for path in sorted(find_run_dirs(runs_dir or default_runs_dir()))}
        runs |= bundled_runs()
        values = [*runs.values(), *known_model_names(recent_models)]
        if command.name == "adapter" and model is not None:
            others = [name for path, name in runs.items() if (path / BASE_FILE).is_file()]
            values = [*others, *(f"{name} off" for name, _ in model.adapters)]
    helps = values if isinstance(values, Mapping) else {}
    typed = argument.replace(",", " ").rpartition(" ")[2] if command.name == "scene" else argument
    before, is_name = text[: len(text) - len(typed)], command.name in (*CAST_COMMANDS, "steer")
    end = " " if command.name == "set" and " " not in argument else ""
    fold: Callable[[str], str] = str.casefold if is_name else str
    found = [value for value in values if len(value) > len(typed) and fold(value[: len(typed)]) == fold(typed)]
    choices = [Choice(f"{before}{typed}{value[len(typed) :]}{end}", value, helps.get(value, "")) for value in found]
    rest = found[0][len(typed) :] if found and typed else ""
    # Enter takes the only value that fits, unless what is typed is a value itself, or any text is one.
    is_complete = command.name == "system" or fold(typed) in map(fold, values)
    chosen = 0 if rest and len(found) == 1 and not is_complete else -1
    return Completion(rest, f"{command.usage}   {command.help}", choices, chosen)
