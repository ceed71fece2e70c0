"""Table of the slash commands: names, actions, arguments and help.

Most commands run the action of a key binding, which is named by its id. The others name an action of the screen.
"""

from dataclasses import dataclass

from textual.binding import Binding

from lotr_tui.app_base import LotrAppBase
from lotr_tui.screens.session.bindings import SESSION_BINDINGS

_TABLE = """
help        | app.help                  |         |
learn       | session.learn             | CHAPTER |
model       | session.runs              | RUN     | Use the model of a run, hf:FOLDER, hf:owner/name or gguf:FILE
fetch       | fetch_model               |         | Fetch SmolLM2, or go on with that
train       | session.train             |         |
export      | export_session            | PATH    | Write this session to a .md, .txt or .json file
new         | new_session               |         | Begin a new session; this one stays saved
sessions    | session.sessions          |         |
runs        | session.runs              |         |
lens        | session.lens              |         |
ladder      | session.ladder            |         |
compare     | session.compare           |         |
copied      | session.memorization      |         |
inside      | session.activations       |         |
as          | session.cast              | NAME    | Speak as one of the cast, or as a stranger
to          | session.cast              | NAME    | Choose who answers; anyone: the model chooses
system      | edit_system_prompt        | TEXT    | Tell a chat model who it is, such as /system You are Gandalf
scene       | go_on                     | TURNS NAMES | Go on for some turns, such as /scene 6 Frodo, Sam
best        |                           | NUMBER  | Draw so many answers and keep the most relevant, or auto
again       | session.regenerate        | NAME    | Answer again, as another speaker if one is named
more        | session.continue          |         |
edit        | session.edit              |         |
copy        | session.copy              |         |
find        | session.find              |         |
words       | session.inspect-words     |         |
tokens      | session.tokens            |         |
mode        | session.reply-mode        |         |
pace        | session.pace              |         |
preset      | session.preset            |         |
controls    | session.controls          |         |
temperature |                           | NUMBER  | Set the temperature, from 0 to 2
seed        | session.hold-seed         | NUMBER  | Use a fixed seed; without a number, keep the last one or let it vary
top-k       |                           | NUMBER  | Sample only from so many of the most likely words or tokens
top-p       |                           | NUMBER  | Sample only from the most likely words with this total probability
min-p       |                           | NUMBER  | Leave out words this much less likely than the best one
penalty     |                           | NUMBER  | Make words that were used less likely
length      |                           | NUMBER  | Set the maximum number of words or tokens
theme       | app.palette               | NAME    | Use a theme; without a name, show all of them
quit        | app.quit                  |         |
"""
_BINDINGS = {
    binding.id: binding for binding in (*SESSION_BINDINGS, *LotrAppBase.BINDINGS) if isinstance(binding, Binding)
}


@dataclass(frozen=True)
class SlashCommand:
    """Command with its name, without the slash."""

    name: str
    action: str
    """Action that the command runs without an argument; empty if it needs one."""
    is_app_action: bool
    """True for an action of the app, False for one of the session screen."""
    argument: str
    """Name of the argument, such as NUMBER; empty if the command takes none."""
    help: str

    @property
    def usage(self) -> str:
        """The command as the user types it, such as `/model [RUN]`."""
        if not self.argument:
            return f"/{self.name}"
        return f"/{self.name} [{self.argument}]" if self.action else f"/{self.name} {self.argument}"


def _parse_row(line: str) -> SlashCommand:
    name, action, argument, help = (field.strip() for field in line.split("|"))
    if "." not in action:
        return SlashCommand(name, action, False, argument, help)
    binding = _BINDINGS[action]
    return SlashCommand(name, binding.action, action.startswith("app."), argument, help or binding.tooltip)


SLASH_COMMANDS: dict[str, SlashCommand] = {
    command.name: command for command in map(_parse_row, _TABLE.strip().splitlines())
}
"""Commands by name, the ones that a new user needs first."""
