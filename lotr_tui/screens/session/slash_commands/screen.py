"""Session screen whose prompt takes slash commands and is completed."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from textual import on
from textual.actions import parse
from textual.widgets import TextArea

from engine.errors import InvalidInputError, LotrError, printable
from lotr_tui.background_task import run_in_thread
from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.screens.session.model_screen import ModelSessionScreen
from lotr_tui.screens.session.slash_commands.command_list import SlashCommandList
from lotr_tui.screens.session.slash_commands.parsing import (
    complete_command,
    is_command,
    parse_command,
    unescape_prompt,
)
from lotr_tui.screens.session.slash_commands.table import SlashCommand
from lotr_tui.session.model_loading import known_model_names
from lotr_tui.theme import check_theme_name
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.prompt.completion import Completion
from lotr_tui.widgets.prompt.prompt_input import PromptInput

SAMPLER_COMMANDS = {
    "temperature": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "penalty": "repetition_penalty",
    "length": "max_tokens",
}
"""Fields of `SamplerSettings` by the command that sets them."""


class CommandSessionScreen(ModelSessionScreen):
    """Session screen that runs slash commands: the action of a key binding, or one of the methods here."""

    def submit_prompt(self, event: PromptInput.Submitted) -> None:
        """Send a prompt to the model."""
        raise NotImplementedError

    def action_learn(self, chapter: int | None = None) -> None:
        """Open a chapter of the class."""
        raise NotImplementedError

    def complete_word(self, text: str) -> str:
        """Return the rest of the last word of a prompt, or "" if there is nothing to complete."""
        raise NotImplementedError

    async def on_mount(self) -> None:
        """Add the list of commands, and complete the typed word."""
        await self.mount(SlashCommandList(), before="#prompt-line")
        self._prompt.completer = self._complete

    @property
    def _draft(self) -> str:
        """Prompt that is being typed; empty while a command is typed."""
        text = self._prompt.value
        return "" if is_command(text) else unescape_prompt(text)

    def _clear_submitted(self, event: PromptInput.Submitted) -> None:
        """Remove a submitted text from the prompt, and keep what was typed since."""
        typed_since = event.prompt_input.value.removeprefix(event.value)
        event.prompt_input.clear()
        if typed_since:
            event.prompt_input.value = typed_since

    # Completion

    def _complete(self, text: str) -> Completion:
        if is_command(text):
            return complete_command(text, self._argument_choices)
        return Completion(self.complete_word(text) if self.is_ready else "")

    @on(TextArea.Changed, "#prompt")
    def _list_commands(self, event: TextArea.Changed) -> None:
        self.query_one(SlashCommandList).show_matches(event.text_area.text)

    def on_slash_command_list_selected(self, event: SlashCommandList.Selected) -> None:
        """Type the clicked command."""
        self._prompt.value = f"/{event.command.name} " if event.command.argument else f"/{event.command.name}"
        self.set_focus(self._prompt)

    @on(PromptInput.HintChanged)
    def _show_hint(self) -> None:
        self.query_one(HelpLine).update_text()

    def _argument_choices(self, command: SlashCommand) -> Sequence[str]:
        """Return the values that complete the argument of a command."""
        if command.name == "theme":
            return sorted(self.app.available_themes)
        if command.name == "learn":
            return [chapter.name for chapter in CHAPTERS]
        if command.name == "model":
            from engine.runs.directory import bundled_run_names, find_run_dirs
            from engine.storage.files import default_runs_dir

            names = [printable(path.name) for path in find_run_dirs(self._runs_dir or default_runs_dir())]
            known = known_model_names(self.app.settings_store.current.recent_models)
            return [*sorted(names), *bundled_run_names(), *known]
        return ()

    # Execution

    @on(PromptInput.Submitted, "#prompt")
    async def _run_or_send(self, event: PromptInput.Submitted) -> None:
        if not is_command(event.value):
            self.submit_prompt(event)
            return
        try:
            command, argument = parse_command(event.value)
            if argument:
                self._run_with_argument(command, argument)
                self._clear_submitted(event)
            else:
                await self._run_action(command, event)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    async def _run_action(self, command: SlashCommand, event: PromptInput.Submitted) -> None:
        """Run the action of a command after the prompt was cleared, because the action may read or fill the prompt."""
        node = self.app if command.is_app_action else self
        _, name, parameters = parse(command.action)
        if not node.check_action(name, parameters):
            raise self._unavailable(command)
        self._clear_submitted(event)
        await self.app.run_action(command.action, node)

    def _run_with_argument(self, command: SlashCommand, argument: str) -> None:
        if command.name == "theme":
            check_theme_name(argument)
            self.app.choose_theme(argument)
        elif command.name == "model":
            self.load_named_model(argument)
        elif command.name == "learn":
            self.action_learn(find_chapter(argument))
        elif not self.is_ready:
            raise self._unavailable(command)
        elif command.name == "export":
            self.run_worker(self._export_to(self._session_file(), argument), group="export")
        elif command.name == "seed":
            self._panes.sampler.set_seed(argument)
        else:
            self._panes.sampler.set_value(SAMPLER_COMMANDS[command.name], argument)

    def _unavailable(self, command: SlashCommand) -> InvalidInputError:
        """Return the error for a command that cannot be used now."""
        if not self.is_ready:
            return InvalidInputError(f"/{command.name} needs a model, and none is loaded yet")
        return InvalidInputError(f"/{command.name} has no effect: all tokens of this model are whole words")

    # Sessions

    def action_new_session(self) -> None:
        """Begin a new session."""
        self._panes.conversation.begin_session()

    def action_export_session(self) -> None:
        """Ask for a path, and export this session there."""
        from lotr_tui.screens.dialogs.sessions import ask_to_export_session

        try:
            ask_to_export_session(self, self._session_file(), "md", partial(self.notify, markup=False))
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)

    def _session_file(self) -> Path:
        """Return the file of this session; raise InvalidInputError if there is none yet."""
        from lotr_tui.session.session_file import session_path

        name = self._panes.conversation.conversation.name
        if not name:
            raise InvalidInputError("this session has no reply yet that could be exported")
        return session_path(name)

    async def _export_to(self, session_file: Path, path: str) -> None:
        """Export the session to a typed path that does not exist yet."""
        from lotr_tui.session.export import check_session_target, export_session
        from lotr_tui.session.session_file import load_session

        try:
            target = await run_in_thread(check_session_target, path)
            if target.missing_folder is not None:
                raise InvalidInputError(f"the folder {target.missing_folder} does not exist; choose another one")
            await run_in_thread(export_session, await run_in_thread(load_session, session_file), target.path)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
        else:
            self.notify(f"Exported to {printable(str(target.path))}", markup=False)
