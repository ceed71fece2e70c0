"""The model of a session, the settings and roles it answers with, their line, and the next model while it is loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import app, containers, style, widgets
from textual.content import Content

from engine.data.speakers import SOMEONE, best_known_first, display_name
from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.models.pretrained.names import SMOLLM2, is_base_stored, is_pretrained_name
from lotr_tui.app_state import ModelFetchChanged
from lotr_tui.background_task import is_closed, run_in_thread
from lotr_tui.formatting import STEERING, describe_strengths, truncate
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.session.keys import CONTROLS, find_name, find_problem
from lotr_tui.session import cast as names
from lotr_tui.session.cast import A_STRANGER, Roles
from lotr_tui.session.model_loading import UPDATE_INTERVAL, GivenAdapter, ModelLoader, add_recent_model, parse_adapter
from lotr_tui.session.settings import ModelSettings, PreviewUnit, ReplyMode, SessionSetup, read_best_of, read_strength
from lotr_tui.theme import MUTED
from lotr_tui.widgets.slider import SamplerPanel

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.generation.turns import SpeakerProb
    from lotr_tui.session.session_model import SessionModel
    from lotr_tui.session.steering import Steering

SAMPLER_NAMES = {"length": "max_tokens", "penalty": "repetition_penalty"}  # where a typed name is another one
ROLE_FIELDS = {"as": "speaking_as", "to": "speaker", "system": "system_prompt"}


class ModelSlot:
    """The place of the model: the one that answers, and a later one that is still being loaded or fetched."""

    session_model: "SessionModel"
    sampler: SamplerPanel

    def __init__(
        self,
        screen: AppScreen[None],
        use: "Callable[[SessionModel | None, str], None]",
        on_progress: Callable[[], None],
        on_roles: Callable[[], None],
        pace: float,
    ) -> None:
        """Call `use` with each model that was loaded (None: could not be) and a text about it, `on_progress` while
        `activity` changes, and `on_roles` when the reply mode, the roles or the number of answers have changed.
        """
        self._screen, self._use, self._on_progress, self._on_roles = screen, use, on_progress, on_roles
        self._state = screen.state
        self.reply_mode: ReplyMode = "continue"
        self.pace = pace  # of replies, in words per second; 0 is no limit
        self.speaker_probs: Sequence[SpeakerProb] = ()  # that *who answers* shows, likeliest first
        self.answerer = ""  # whose line the bars begin
        self._name = ""  # of the model in the settings
        self.preview_unit: PreviewUnit = "word"  # of what can come next
        self.loader: ModelLoader | Steering | None = None  # of the next model

    def put(self, session_model: "SessionModel") -> None:
        """Use a model from the next line on, in the same reply mode if it can do the same as the one before."""
        before, settings = getattr(self, "session_model", None), self._state.settings.current
        self._name = session_model.settings_name
        remembered = settings.models.get(self._name, session_model.default_settings).strengths
        beside = dict(session_model.adapters)  # which, as a vector, have the strengths that were given with them
        kept = {n: x for n, x in remembered.items() if n not in beside and not n.startswith(STEERING)}
        self.session_model = session_model.with_strengths(kept)
        # The words of a slow model, which take seconds to find, are shown once the user asks for them.
        self.preview_unit = "token" if session_model.is_slow else settings.preview_unit
        abilities = (session_model.reply_modes, bool(session_model.cast))
        if before is None or (before.reply_modes, bool(before.cast)) != abilities:
            modes = session_model.reply_modes
            self.reply_mode = settings.reply_mode if settings.reply_mode in modes else modes[0]
        if session_model.source:
            self._state.update_settings(recent_models=add_recent_model(session_model.source, settings.recent_models))

    # How it answers

    @property
    def settings(self) -> ModelSettings:
        return self._state.settings.current.models.get(self._name) or self.session_model.default_settings

    def change_settings(self, **changes: Any) -> None:
        before = self.settings
        if (changed := replace(before, **changes)) != before:
            self._state.update_settings(models={self._name: changed})

    def describe_changes(self, before: ModelSettings) -> str:
        """Return the end of a sentence with roles and temperature, if they differ from the ones `before` this model."""
        now, temperature = self.settings, self.settings.sampler.temperature
        strengths = describe_strengths(self.session_model.strengths)
        roles = f"as {display_name(now.speaking_as) or A_STRANGER} to {display_name(now.answering) or 'anyone'}, "
        named = f", {printable(self.session_model.name)} "  # which the sentence ends with
        strengths = f", {strengths}".replace(named, " ") if strengths else ""
        shown = f", with settings of its own: {roles if self.session_model.cast else ''}T {temperature:.2f}"
        same = replace(before, sampler=now.sampler, best_of=now.best_of, strengths=now.strengths) == now
        return strengths + ("" if same and temperature == before.sampler.temperature else shown)

    @property
    def roles(self) -> Roles:
        settings = self.settings
        return Roles(settings.speaking_as, settings.answering, self._state.settings.current.system_prompt)

    def set_roles(self, roles: Roles | None) -> None:
        """Use other roles from the next line on; None keeps the current ones."""
        if roles is not None:
            self._state.update_settings(system_prompt=roles.system_prompt)
            self.change_settings(answering=roles.speaker, speaking_as=roles.speaking_as)
            self._on_roles()

    def choose_roles(self, column: Literal["answering", "speaking-as"] = "answering") -> None:
        """Ask who answers or who the user is, or what tells a chat model who it is."""
        from lotr_tui.screens.dialogs.questions import CastDialog, SystemPromptDialog

        cast, chat, roles, app = self.session_model.cast, self.session_model.chat, self.roles, self._screen.app
        if chat is not None:
            app.push_screen(
                SystemPromptDialog(roles.system_prompt, chat.default_system_prompt),
                lambda text: self.set_roles(None if text is None else roles._replace(system_prompt=text)),
            )
            return
        people = best_known_first(cast)
        probs = {speaker.name: speaker.prob for speaker in self.speaker_probs}
        app.push_screen(CastDialog(cast, [*people, SOMEONE], people, roles, probs, column), self.set_roles)

    def set_reply_mode(self, mode: str = "") -> None:
        """Continue the prompt or answer it, in a conversation if the model knows speakers; "" is the next mode."""
        modes = self.session_model.reply_modes
        mode = mode or modes[(modes.index(self.reply_mode) + 1) % len(modes)]
        if mode not in modes:
            raise InvalidInputError(f"{self.session_model.name} has no mode {mode!r}; use {' or '.join(modes)}")
        if mode != self.reply_mode:
            self.reply_mode = modes[modes.index(mode)]
            # The first mode of a model without speakers must not keep the next session from being a conversation.
            self._state.update_settings(reply_mode="conversation" if mode == modes[0] else mode)
            self._on_roles()

    def toggle_unit(self) -> None:
        self.preview_unit = "word" if self.preview_unit == "token" else "token"
        if not self.session_model.is_slow:
            self._state.update_settings(preview_unit=self.preview_unit)
        self._on_roles()

    # Controls

    def set_control(self, argument: str) -> None:
        """Set a control or a role by its name and value, such as `seed 7` or `to Gollum`."""
        name, _, value = argument.partition(" ")
        name, value, cast = find_name(name, CONTROLS), value.strip(), self.session_model.cast
        if problem := find_problem(name, self.session_model):
            raise InvalidInputError(problem)
        if not value:
            raise InvalidInputError(f"type /set {name} VALUE: {CONTROLS[name]}")
        if name in names.NOBODY:
            value = names.read_name(name, value, cast)
            if note := names.describe_unknown_name(value, cast):
                self._screen.notify(note, markup=False)
        if name == "strength":
            self.set_strength(value)
        elif name in ROLE_FIELDS:
            self.set_roles(self.roles._replace(**{ROLE_FIELDS[name]: value}))
        elif name == "preset":
            self.sampler.apply_preset(value)
        elif name == "mode":
            self.set_reply_mode(value)
        elif name == "best-of":
            self.change_settings(best_of=read_best_of(value))
            self._on_roles()
        elif name == "pace":
            try:
                self._state.update_settings(pace=float(value))
            except ValueError:
                raise InvalidInputError(f"{value!r} is not a number") from None
            self.pace = float(value)
            self._on_roles()
        else:
            self.sampler.set_texts({SAMPLER_NAMES.get(name, name.replace("-", "_")): value})

    def set_strength(self, argument: str) -> None:
        """Set the strength of a change of the model by its name, which may be left out for the first one."""
        name, _, number = argument.rpartition(" ")
        named = {slider.change.lower(): slider for slider in self.sampler.strength_sliders}
        short = {each.removeprefix(STEERING): slider for each, slider in named.items() if each.startswith(STEERING)}
        named = short | named  # a steering, such as `steer Sam`, is also `sam`
        slider = named[find_name(name.strip(), dict.fromkeys(named, ""))] if name else self.sampler.strength_sliders[0]
        slider.value = read_strength(number, slider.change)

    def choose_controls(self) -> None:
        from lotr_tui.screens.dialogs.questions import SamplerDialog

        def use(texts: Mapping[str, str]) -> None:
            best_of = read_best_of(texts["best_of"].strip())
            replace(self.settings, best_of=best_of)  # refuses one out of range before anything changes
            self.sampler.set_texts({name: text for name, text in texts.items() if name != "best_of"})
            self.change_settings(best_of=best_of)
            self._on_roles()

        texts = {**self.sampler.texts(), "best_of": str(self.settings.best_of or "")}
        self._screen.app.push_screen(SamplerDialog(texts, use))

    # Loading and fetching

    @property
    def activity(self) -> str:
        if self.loader is not None:
            return self.loader.describe_briefly()
        fetch = self._state.model_fetch
        return fetch.describe() if fetch is not None and fetch.is_running else ""

    def choose(self) -> None:
        from lotr_tui.screens.runs.screen import choose_run  # imports numpy, which the first paint does not need

        choose_run(self._screen, self.load)

    def load(self, name: str, adapters: Sequence[GivenAdapter] = (), before: "SessionModel | None" = None) -> None:
        """Load a model, see `ModelLoader`, in a thread; ask first if it has to be fetched."""
        from engine.config import BUNDLED  # not needed for the first paint

        if name in (BUNDLED, SMOLLM2) and not is_base_stored(SMOLLM2):
            self.ask_to_fetch()
        else:
            loader = ModelLoader([name], self._state.runs_dir, adapters=adapters, before=before)
            if self.loader is not None:
                self._screen.notify(f"{self.loader.describe_briefly()}: cancelled", markup=False)
            self._screen.run_worker(self.load_with(loader), exclusive=True, group="load")

    def set_adapter(self, argument: str) -> None:
        """Put the adapter of a run beside the model, such as `romeo:0.5`, or take it away, as `romeo off`."""
        model, (name, _, end) = self.session_model, argument.rpartition(" ")
        if self.loader is not None:  # whose model would be replaced by this one
            raise InvalidInputError(f"{self.loader.describe_briefly()}; try again when that is done")
        beside = dict(model.adapters)
        adapters = [(run, model.strengths[each]) for each, run in beside.items() if (each, end) != (name, "off")]
        if end == "off" and name not in beside:
            use = f"the adapters beside it: {', '.join(beside) or 'none'}"
            raise InvalidInputError(f"{name[:40]!r} is no adapter beside {model.name}; {use}")
        new = [] if end == "off" else [parse_adapter(argument)]
        if new and new[0][0] in model.strengths:
            self.set_strength(" ".join(map(str, new[0])))
        else:
            self.load(model.typed_name, adapters + new, model)

    async def load_with(self, loader: "ModelLoader | Steering") -> None:
        try:
            session_model = await self._run(loader)
        except Exception as error:  # libraries for models raise errors of many types
            self._use(None, describe_error(error))
        else:
            is_told = getattr(loader, "effect", "")  # in a note about a steering
            self._use(session_model, "" if is_told else f"now using {session_model.name}")

    async def _run(self, loader: "ModelLoader | Steering") -> "SessionModel":
        """Return the model of a loader, which a thread calls while `activity` shows its progress."""
        self.loader = loader
        timer = self._screen.set_interval(UPDATE_INTERVAL, self._on_progress)
        try:
            return await run_in_thread(loader)
        finally:
            timer.stop()
            self.loader = None if self.loader is loader else self.loader
            if not is_closed(self._screen):
                self._on_progress()

    @property
    def setup(self) -> SessionSetup | None:
        """What answers now, to be restored with a saved session; None for a model that has no name to load it by."""
        model = self.session_model
        if not model.typed_name:
            return None
        strengths = dict(model.strengths)
        adapters = tuple((run, strengths[name]) for name, run in model.adapters)
        settings = replace(self.settings, strengths=strengths)
        system_prompt = self._state.settings.current.system_prompt
        return SessionSetup(model.typed_name, adapters, model.steering, settings, system_prompt, self.reply_mode)

    async def restore(self, setup: SessionSetup) -> list[str]:
        """Use what a saved session had. Return a line for each part that is not there, with the command for it."""
        from engine.runs.loading import find_model
        from lotr_tui.session.steering import Steering

        missing = []
        adapters = []
        for run, strength in setup.adapters:
            try:
                find_model(run, self._state.runs_dir)
                adapters.append((run, strength))
            except LotrError as error:
                missing.append(f"{error}; /adapter {run}:{strength:g} puts it beside the model again")
        model = self.session_model
        beside = [run for _, run in model.adapters]
        try:
            if (model.typed_name, beside) != (setup.model, [run for run, _ in adapters]):
                known = (SMOLLM2, *self._state.settings.current.recent_models)
                if is_pretrained_name(setup.model) and setup.model not in known:  # a file must not fetch a model
                    raise InvalidInputError(f"{setup.model} was not used lately")
                model = await self._run(ModelLoader([setup.model], self._state.runs_dir, adapters=adapters))
        except Exception as error:  # libraries for models raise errors of many types
            return [f"{describe_error(error)}; /model {setup.model} brings back the model of this session"]
        if model.steering != setup.steering:
            model = model.unsteered or model
        if setup.steering and model.steering != setup.steering:
            try:
                model = await self._run(Steering(setup.steering, model))
            except LotrError as error:
                missing.append(f"{error}; /steer {setup.steering} steers the model again")
        text = "" if model.is_variant_of(self.session_model) else f"now using {model.name}"
        self._state.update_settings(models={model.settings_name: setup.settings}, system_prompt=setup.system_prompt)
        self._use(model.with_strengths(setup.settings.strengths), text)
        if setup.reply_mode in model.reply_modes:
            self.reply_mode = setup.reply_mode
            self._on_roles()
        return missing

    def ask_to_fetch(self, *, at_start: bool = False) -> None:
        """Ask whether to fetch SmolLM2; when the app starts, only if it is missing, and once."""
        from lotr_tui.screens.dialogs.questions import FirstModelDialog  # not needed for the first paint

        state, choice = self._state, self._state.settings.current.first_model

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


class RoleLabel(widgets.Label):
    auto_links = False  # a click is an action, which a link's style would underline


class RoleLabels(containers.Horizontal):
    """Line above the prompt: who the user is, who answers, and how; a click on a part changes it."""

    ACTIONS: ClassVar[Mapping[str, str]] = {
        "as": "call('slot.choose_roles', 'speaking-as')",
        "to": "call('slot.choose_roles')",
        "system": "call('slot.choose_roles')",
        "reply-mode": "call('slot.set_reply_mode')",
        "best-of": "call('slot.choose_controls')",
    }

    def compose(self) -> app.ComposeResult:
        yield from (RoleLabel(id=id, markup=False) for id in self.ACTIONS)

    def show(self, slot: ModelSlot) -> None:
        mode, roles, cast, chat = slot.reply_mode, slot.roles, slot.session_model.cast, slot.session_model.chat

        def name(relation: str, name: str, unnamed: str) -> Content:
            color = f" ${names.speaker_style(name, cast)}" if name in cast else ""
            shown = (truncate(display_name(name), names.MAX_NAME_WIDTH), f"bold{color}") if name else (unnamed, MUTED)
            return Content.assemble((f"{relation} ", MUTED), shown)

        texts = {"reply-mode": Content.styled(mode, MUTED)}
        if chat is not None and mode == "conversation":
            system = printable(roles.system_prompt or chat.default_system_prompt)
            texts["system"] = Content.assemble(("system ", MUTED), system or ("none", MUTED))
        elif cast and mode == "conversation":
            texts["as"], texts["to"] = name("as", roles.speaking_as, A_STRANGER), name("to", roles.speaker, "anyone")
            texts["best-of"] = Content.styled(f"best of {slot.settings.best_of or 'auto'}", MUTED)
        elif cast:
            texts["to"] = name("a line of", roles.speaker, A_STRANGER)
        for label in self.query(RoleLabel):
            text, label.display = texts.get(label.id or "", Content("")), label.id in texts
            action = self.ACTIONS[label.id or ""]
            label.update(text.stylize(style.Style.from_meta({"@click": f"screen.{action}"})))
