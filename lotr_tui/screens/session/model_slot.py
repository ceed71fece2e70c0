"""The model of a session, the settings and roles it answers with, and the next model while it is loaded."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from textual.timer import Timer

from engine.data.speakers import SOMEONE, STRANGER
from engine.errors import InvalidInputError, describe_error
from engine.models.pretrained.names import SMOLLM2, is_base_stored
from lotr_tui.app_state import ModelFetchChanged
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import token_noun
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.runs.open_run import choose_run
from lotr_tui.screens.session.keys import SETTINGS, find_name
from lotr_tui.session.cast import A_STRANGER, Roles, describe_unknown_name, read_name
from lotr_tui.session.model_loading import UPDATE_INTERVAL, ModelLoader, add_recent_model
from lotr_tui.session.settings import ModelSettings, PreviewUnit, ReplyMode, check_system_prompt
from lotr_tui.widgets.sampler_panel import SamplerPanel

if TYPE_CHECKING:  # this module imports numpy, which the first paint does not need
    from engine.generation.turns import SpeakerProb
    from lotr_tui.session.session_model import SessionModel

SAMPLER_NAMES = {"length": "max_tokens", "penalty": "repetition_penalty"}  # where a typed name is another one
BEST_OF_CHOICES = (0, 1, 8, 16)  # that a click steps through; 0 is automatic


class ModelSlot:
    """The place of the model: the one that answers, and a later one that is still being loaded or fetched."""

    session_model: "SessionModel"
    sampler: SamplerPanel

    def __init__(
        self,
        screen: AppScreen[None],
        use: "Callable[[SessionModel, str], None]",
        on_progress: Callable[[], None],
        on_roles: Callable[[], None],
        pace: float,
    ) -> None:
        """Call `use` with each model that was loaded and a text about it, `on_progress` while `activity` changes, and
        `on_roles` when the reply mode, the roles or the number of answers have changed.
        """
        self._screen, self._use, self._on_progress, self._on_roles = screen, use, on_progress, on_roles
        self.reply_mode: ReplyMode = "continue"
        self.pace = pace  # of replies, in words per second; 0 is no limit
        self._slow_unit: PreviewUnit = "token"  # for a slow model, whose words would take seconds to find
        self._loader: ModelLoader | None = None
        self._timer: Timer | None = None

    def put(self, session_model: "SessionModel", *, keeps_mode: bool) -> None:
        """Use a model from the next line on."""
        self.session_model, self._slow_unit = session_model, "token"
        settings = self._screen.state.settings.current
        if not keeps_mode:
            self.reply_mode = session_model.reply_mode_at_start(settings.reply_mode)
        if session_model.source:
            recent = add_recent_model(session_model.source, settings.recent_models)
            self._screen.state.update_settings(recent_models=recent)

    # How it answers

    @property
    def settings(self) -> ModelSettings:
        """Settings by which the model answers: the user's, or else its defaults."""
        models = self._screen.state.settings.current.models
        return models.get(self.session_model.settings_name) or self.session_model.default_settings

    def change_settings(self, **changes: Any) -> None:
        """Change some settings of the model, here and in later sessions; out of range raises an InvalidInputError."""
        before = self.settings
        changed = replace(before, **changes)
        if changed != before:
            self._screen.state.update_settings(models={self.session_model.settings_name: changed})

    @property
    def roles(self) -> Roles:
        """Saved roles of the user and of the model."""
        settings = self.settings
        return Roles(settings.speaking_as, settings.answering, self._screen.state.settings.current.system_prompt)

    def set_roles(self, roles: Roles | None) -> None:
        """Use other roles from the next line on; None keeps the current ones."""
        if roles is not None:
            self.change_settings(answering=roles.speaker, speaking_as=roles.speaking_as)
            self._on_roles()

    def set_system_prompt(self, text: str | None) -> None:
        """Use a system prompt from the next line on; None keeps the current one."""
        if text is not None:
            check_system_prompt(text)
            self._screen.state.update_settings(system_prompt=text)
            self._on_roles()

    def set_speaker(self, name: str) -> None:
        self.set_roles(self.roles._replace(speaker=name))

    def read_speaker(self, typed: str) -> None:
        """Choose who answers, in the cast or not, or let the model choose."""
        self.set_speaker(self._read_name(typed, ("anyone", "anybody")))

    def read_speaking_as(self, typed: str) -> None:
        """Choose who the user is, in the cast or not, or a stranger."""
        name = self._read_name(typed, (A_STRANGER, "stranger", "me"))
        self.set_roles(self.roles._replace(speaking_as=name))

    def _read_name(self, typed: str, nobody: Sequence[str]) -> str:
        cast = self.session_model.cast
        name = "" if typed.casefold() in nobody else read_name(typed, cast)
        if note := describe_unknown_name(name, cast):
            self._screen.notify(note, markup=False)
        return name

    def choose_roles(self, column: Literal["answering", "speaking-as"], probs: "Sequence[SpeakerProb]") -> None:
        """Ask who answers and who the user is, or what tells a chat model who it is."""
        from lotr_tui.screens.dialogs.questions import CastDialog, SystemPromptDialog

        cast, chat, roles, app = self.session_model.cast, self.session_model.chat, self.roles, self._screen.app
        if chat is not None:
            system = SystemPromptDialog(roles.system_prompt, chat.default_system_prompt)
            app.push_screen(system, self.set_system_prompt)
            return
        people = [name for name in cast if name not in (STRANGER, SOMEONE)]
        by_name = {speaker.name: speaker.prob for speaker in probs}
        app.push_screen(CastDialog(cast, [*people, SOMEONE], people, roles, by_name, column), self.set_roles)

    def footer_words(self) -> dict[str, str]:
        """Return the noun for a token, and the word for what keeps going."""
        is_conversation = self.reply_mode == "conversation" and self.session_model.cast
        noun = token_noun(self.session_model.model.tokenizer)
        return {"noun": noun, "more": "go on" if is_conversation else "more"}

    def set_best_of(self, number: int) -> None:
        self.change_settings(best_of=number)
        self._on_roles()

    def next_best_of(self) -> None:
        number = self.settings.best_of
        self.set_best_of(next((choice for choice in BEST_OF_CHOICES if choice > number), BEST_OF_CHOICES[0]))

    def set_reply_mode(self, mode: ReplyMode) -> None:
        """Continue the prompt or answer it, in a conversation if the model knows speakers."""
        modes = self.session_model.reply_modes
        if mode not in modes:
            raise InvalidInputError(f"{self.session_model.name} has no mode {mode!r}; use {' or '.join(modes)}")
        if mode != self.reply_mode:
            self.reply_mode = mode
            # The first mode of a model without speakers must not keep the next session from being a conversation.
            self._screen.state.update_settings(reply_mode="conversation" if mode == modes[0] else mode)
            self._on_roles()

    def next_mode(self) -> None:
        modes = self.session_model.reply_modes
        self.set_reply_mode(modes[(modes.index(self.reply_mode) + 1) % len(modes)])

    @property
    def preview_unit(self) -> PreviewUnit:
        """Unit of what can come next: the saved one, or for a slow model tokens until the user asks for words."""
        return self._slow_unit if self.session_model.is_slow else self._screen.state.settings.current.preview_unit

    def toggle_unit(self) -> None:
        unit: PreviewUnit = "word" if self.preview_unit == "token" else "token"
        if self.session_model.is_slow:
            self._slow_unit = unit
        else:
            self._screen.state.update_settings(preview_unit=unit)
        self._on_roles()

    # Controls

    def set_control(self, argument: str) -> None:
        """Set a control by its name and value, such as `seed 7`."""
        name, _, value = argument.partition(" ")
        name, value = find_name(name, SETTINGS), value.strip()
        if not value:
            raise InvalidInputError(f"type /set {name} VALUE: {SETTINGS[name]}")
        if name == "mode":
            self.set_reply_mode(value)  # type: ignore[arg-type]
        elif name == "answers":
            if value != "auto" and not value.isdecimal():
                raise InvalidInputError(f"{value[:20]!r} is no number of answers; use auto or a number from 1")
            self.set_best_of(0 if value == "auto" else int(value[:9]))
        elif name == "pace":
            try:
                pace = float(value)
            except ValueError:
                raise InvalidInputError(f"{value!r} is not a number") from None
            self._screen.state.update_settings(pace=pace)
            self.pace = pace
            self._on_roles()
        else:
            self.sampler.set_texts({SAMPLER_NAMES.get(name, name.replace("-", "_")): value})

    def choose_controls(self) -> None:
        """Ask for all sampling controls but the temperature."""
        from lotr_tui.screens.dialogs.questions import SamplerDialog

        self._screen.app.push_screen(SamplerDialog(self.sampler.texts(), self.sampler.set_texts))

    # Loading and fetching

    @property
    def activity(self) -> str:
        """Progress of loading or fetching; empty if there is none."""
        if self._loader is not None:
            return self._loader.describe_briefly()
        fetch = self._screen.state.model_fetch
        return fetch.describe() if fetch is not None and fetch.is_running else ""

    def choose(self) -> None:
        choose_run(self._screen, self.load)

    def load(self, name: str) -> None:
        """Load the model of a run, or a model by others, in a thread; ask first if it has to be fetched."""
        from engine.config import BUNDLED  # not needed for the first paint

        if name in (BUNDLED, SMOLLM2) and not is_base_stored(SMOLLM2):
            self.ask_to_fetch()
        else:
            self._screen.run_worker(self._load(name), exclusive=True, group="load")

    async def _load(self, name: str) -> None:
        loader = None
        try:
            loader = self._loader = ModelLoader([name], self._screen.state.runs_dir)
            self._timer = self._timer or self._screen.set_interval(UPDATE_INTERVAL, self._on_progress)
            session_model = await run_in_thread(loader)
        except Exception as error:  # libraries for models raise errors of many types
            self._screen.notify(describe_error(error), severity="error", markup=False, timeout=10)
            return
        finally:  # also if the user has chosen another model, which cancels this worker
            if self._loader is loader and not is_closed(self._screen):
                self._loader = None
                if self._timer is not None:
                    self._timer.stop()
                    self._timer = None
                    self._on_progress()
        self._use(session_model, f"now using {session_model.name}")

    def ask_to_fetch(self, *, at_start: bool = False) -> None:
        """Ask whether to fetch SmolLM2; when the app starts, only if it is missing, and once."""
        from lotr_tui.screens.dialogs.questions import FirstModelDialog  # not needed for the first paint

        state, choice = self._screen.state, self._screen.state.settings.current.first_model

        def choose(wants_smollm2: bool | None) -> None:
            state.update_settings(first_model="smollm2" if wants_smollm2 else "lstm")
            if wants_smollm2:
                state.fetch_model()

        if at_start and (is_base_stored(SMOLLM2) or choice):
            if choice == "smollm2" and not is_base_stored(SMOLLM2):
                self._screen.notify("SmolLM2 is not complete yet; /model smollm2 goes on with it", timeout=10)
        elif state.model_fetch is not None and state.model_fetch.is_running:
            self._screen.notify(state.model_fetch.describe(), markup=False)
        else:
            self._screen.app.push_screen(FirstModelDialog(), choose)

    def follow_fetch(self, message: ModelFetchChanged, *, has_begun: bool) -> str:
        """Use SmolLM2 once it is complete, unless a conversation has begun. Return a note about it."""
        if message.has_ended and message.fetch.failure:
            return f"SmolLM2 was not fetched: {message.fetch.failure}; /model smollm2 tries again"
        if not message.has_ended or not is_base_stored(SMOLLM2):
            return ""
        if has_begun:
            return "SmolLM2 is there: /model bundled talks to it"
        self.load("bundled")
        return ""
