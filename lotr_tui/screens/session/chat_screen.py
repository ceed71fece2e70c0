"""Session screen for models with a chat template: the system prompt."""

from collections.abc import Sequence

from textual import on

from engine.errors import InvalidInputError
from lotr_tui.screens.dialogs.questions import SystemPromptDialog
from lotr_tui.screens.session.preview_screen import PreviewSessionScreen
from lotr_tui.screens.session.role_labels import RoleLabel
from lotr_tui.screens.session.slash_commands.table import SlashCommand
from lotr_tui.session.settings import EXAMPLE_SYSTEM_PROMPT, check_system_prompt


class ChatSessionScreen(PreviewSessionScreen):
    """Session screen that can tell a model who it is. The system prompt is kept in the settings."""

    def _show_roles(self) -> None:
        """Show the roles and the reply mode around the prompt."""
        raise NotImplementedError

    @property
    def _is_chat_model(self) -> bool:
        """True if the model can answer by a chat template."""
        return self.is_ready and self.session_model.chat is not None

    @property
    def is_chatting(self) -> bool:
        """True if the model answers by its chat template."""
        return self._is_chat_model and self.reply_mode == "conversation"

    # System prompt

    @on(RoleLabel.Clicked, "#system")
    def action_edit_system_prompt(self) -> None:
        """Ask for the text that tells a model with a chat template who it is."""
        chat = self.session_model.chat
        if chat is not None:
            current = self.app.settings_store.current.system_prompt
            self.app.push_screen(SystemPromptDialog(current, chat.default_system_prompt), self._set_system_prompt)

    def _set_system_prompt(self, text: str | None) -> None:
        """Use a system prompt from the next line on; None keeps the current one."""
        if text is not None:
            self.app.update_settings(system_prompt=text)
            self._first_steps.finish("system")
            self._show_roles()
            self._update_keys()

    # Commands

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return False for the system prompt of a model without a chat template; see also the base class."""
        if action == "edit_system_prompt" and not self._is_chat_model:
            return False
        return super().check_action(action, parameters)

    def _argument_choices(self, command: SlashCommand) -> Sequence[str]:
        """Return an example of a system prompt for its command; see also the base class."""
        return (EXAMPLE_SYSTEM_PROMPT,) if command.name == "system" else super()._argument_choices(command)

    def _run_with_argument(self, command: SlashCommand, argument: str) -> None:
        if command.name != "system":
            super()._run_with_argument(command, argument)
            return
        if not self._is_chat_model:
            raise self._unavailable(command)
        check_system_prompt(argument)
        self._set_system_prompt(argument)

    def _unavailable(self, command: SlashCommand) -> InvalidInputError:
        """Return the error for a command that the model of the session has no use for."""
        if command.name == "system" and self.is_ready:
            return InvalidInputError("/system needs a model with a chat template, such as an instruct model from hf:")
        return super()._unavailable(command)
