"""Dashboard of a training: chart, metrics, samples and log, with the commands that control the training."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Rule, Static

from engine.control import MAX_SAMPLE_PROMPT_LENGTH, CommandKind, ControlCommand
from engine.errors import InvalidInputError, LotrError, printable
from engine.events import Checkpointed, DiagnosisKind, Evaluated, LinesScored, Sampled, Step, TrainingEvent
from engine.runs import locked_run
from engine.runs.directory import END_STATES
from engine.runs.loading import LoadedModel, load_model_by_name
from lotr_tui.app_state import OpenSession, TrainingChanged
from lotr_tui.background_task import run_in_thread
from lotr_tui.formatting import PRETRAINED_NOTE
from lotr_tui.monitor.run_follower import RunFollower
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dashboard import panes
from lotr_tui.screens.dialogs.dialog import Dialog, Field, confirm
from lotr_tui.screens.dialogs.paths import ask_to_export_csv
from lotr_tui.screens.runs.screen import choose_run
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import KeyFooter, binding_table
from lotr_tui.widgets.screen_lines import PaneTabs, StatusBar

PANES = {"chart": "curve", "samples": "samples", "tiles": "metrics", "log": "log"}
"""Ids and labels of the panes, of which a narrow terminal shows one at a time."""
REFRESH_INTERVAL = 1.0  # seconds between two updates of frequent figures; over a slow line, 3 KB take time
FOLLOW_INTERVAL = 0.05  # seconds between two polls of a run that another process trains
FREQUENT_EVENTS = (Step, Evaluated, Sampled, LinesScored, Checkpointed)  # shown at the next update; all others at once
MIN_LR_SCALE = 2.0**-10
# Actions that need an active training
CONTROL_ACTIONS = ("toggle_pause", "stop_training", "send_command", "change_prompt", "halve_lr", "reset_lr")
# Label of each command until the training has applied it
PENDING_LABELS: dict[CommandKind, str] = {
    "pause": "pausing",
    "resume": "resuming",
    "checkpoint": "saving",
    "stop": "stopping",
    "detach": "detaching",
}
# Ids of the bindings that help against a problem while the training is active
REMEDIES: dict[DiagnosisKind, str] = {
    **dict.fromkeys(("rising_validation", "forgetting", "unigram_model", "vanishing_gradients"), "dashboard.stop"),
    **dict.fromkeys(("loss_spike", "exploding_gradients"), "dashboard.halve-lr"),
}


class DashboardScreen(AppScreen[LoadedModel | None]):
    """Chart, metrics, samples and log of a training that is active or has ended.

    Above a session, the dashboard is dismissed with the model to use there, or with None to keep the model.
    """

    AUTO_FOCUS = ""
    VERTICAL_BREAKPOINTS = [(0, "-low"), (22, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "dashboard",
            """
            pause           | space                | toggle_pause               | pause    | Pause or resume training
            stop            | ctrl+c               | stop_training              | stop     | Stop training, best is kept
            pane            | tab                  | next_pane(1)               | pane     | The next pane
            previous-sample | left_square_bracket  | step_sample(-1)            | samples  | The previous sample | [ ]
            next-line       | n                    | step_line(1)               | line     | The next held-out line
            zoom-in         | plus,equals_sign     | zoom(0.5)                  | zoom     | Zoom into the curve | + -
            prompt          | e                    | change_prompt              | prompt   | Edit the samples' prompt
            halve-lr        | h                    | halve_lr                   | lower lr | Halve the learning rate
            save            | k                    | send_command('checkpoint') | save     | Save to resume from here
            detach          | d                    | send_command('detach')     | detach   | Go on without a screen
            play            | p                    | open_session               | play     | Play with the latest model
            runs            | ctrl+o               | choose_model               | runs     | All runs
            export          | ctrl+s               | export                     | export   | Export CSV files
            close           | escape               | close                      | close    | Close the dashboard
            """,
            show=True,
        ),
        *binding_table(
            "dashboard",
            """
            previous-pane | shift+tab            | next_pane(-1)   | previous pane | The previous pane
            dismiss       | x                    | dismiss_problem | dismiss       | Hide the problem; the log keeps it
            next-sample   | right_square_bracket | step_sample(1)  | next sample   | The next sample
            previous-line | N                    | step_line(-1)   | previous line | Words of the previous held-out line
            zoom-out      | minus                | zoom(2.0)       | zoom out      | Zoom out of the curve
            show-all      | z                    | zoom(0)         | whole curve   | Show the whole curve
            reset-lr      | H                    | reset_lr        | full lr       | The scheduled learning rate
            cursor-left   | left                 | move_cursor(-1) | cursor left   | Cursor on the curve to the left
            cursor-right  | right                | move_cursor(1)  | cursor right  | Cursor on the curve to the right
            first         | home                 | select_sample(0) | first sample | The first sample
            latest        | end                  | select_epoch    | latest        | Follow the latest sample
            log-up        | up                   | log('step', -1) | log up        | A line up in the log
            log-down      | down                 | log('step', 1)  | log down      | A line down in the log
            log-page-up   | pageup               | log('page', -1) | log page up   | A page up in the log
            log-page-down | pagedown             | log('page', 1)  | log page down | A page down in the log
            """,
        ),
    ]

    def __init__(
        self,
        view: TrainingView,
        send_command: Callable[[ControlCommand], None],
        *,
        exit_on_close: bool = False,
        attached: bool = False,
        follower: RunFollower | None = None,
    ) -> None:
        """Show a training, to which `send_command` sends a command or raises a `LotrError`.

        With `exit_on_close`, closing the dashboard exits the app. With `attached`, another process trains, so that
        closing the dashboard stops nothing; `follower` reads its run.
        """
        super().__init__()
        self.view = view
        self._send_command, self._exit_on_close = send_command, exit_on_close
        self._attached, self._follower = attached, follower
        self._pending: list[ControlCommand] = []  # sent, and not applied yet
        self._num_applied = len(view.applied_commands)
        self._was_controlled = False  # whether keys acted on the training when it was last shown
        self._is_outdated = False
        self._question: Dialog[Any] | None = None  # about the running training, asked last
        self._tiles, self._chart = panes.MetricTiles(id="tiles"), panes.TrainingChart(id="chart")
        self._samples, self._words = panes.SampleTimeline(id="samples"), panes.ChangedWords(id="words")
        self._log = panes.LogPane(id="log")

    @classmethod
    def following(cls, path: Path, *, exit_on_close: bool = False) -> "DashboardScreen":
        """Return the dashboard of a run that another process trains, or that has ended."""
        send, follower = partial(locked_run.send_command, path), RunFollower(path)
        return cls(follower.view, send, exit_on_close=exit_on_close, attached=True, follower=follower)

    def compose(self) -> ComposeResult:
        yield StatusBar(id="status")
        yield PaneTabs(PANES, id="panes")
        yield Rule(line_style="solid")
        yield panes.TrainingMetrics(id="metrics")
        yield self._tiles
        yield Static(id="diagnosis", markup=False)
        with Horizontal(id="body"):
            yield self._chart
            with Vertical(id="side"):
                yield self._samples
                yield self._words
                yield self._log
        yield KeyFooter()

    @property
    def _can_control(self) -> bool:
        """True while a process trains; of another one that was killed, the record has no end."""
        return self.view.is_active and not (self._attached and self.view.notice)

    def on_mount(self) -> None:
        self.action_next_pane(0)
        self.show_view(self.view)
        self.set_interval(REFRESH_INTERVAL, lambda: self.show_view(self.view) if self._is_outdated else None)
        if self._follower is not None:
            self.set_interval(FOLLOW_INTERVAL, self._poll_follower)

    def on_unmount(self) -> None:
        if self._follower is not None:
            self._follower.stop()

    def on_screen_suspend(self) -> None:
        self._tiles.set_machine_monitoring(False)

    def on_screen_resume(self) -> None:
        self.show_view(self.view)

    def on_training_changed(self, message: TrainingChanged) -> None:
        """Show the training of this process, unless another one is followed."""
        if self._follower is None:
            self._change_view(message.view, message.events)

    def _poll_follower(self) -> None:
        if self._follower is not None and self._follower.poll():
            self._change_view(self._follower.view, [])

    def _change_view(self, view: TrainingView, events: Sequence[TrainingEvent]) -> None:
        """Show rare events at once, and frequent ones at the next interval."""
        self.view, self._is_outdated = view, True
        applied = [(event.kind, event.value) for event in view.applied_commands[self._num_applied :]]
        self._pending = [command for command in self._pending if (command.kind, command.value) not in applied]
        self._num_applied = len(view.applied_commands)
        self._chart.update_smoothing(view)
        if not all(isinstance(event, FREQUENT_EVENTS) for event in events):
            self.show_view(view)

    def show_view(self, view: TrainingView) -> None:
        self.view, self._is_outdated = view, False
        if self._was_controlled != self._can_control:
            self._was_controlled = self._can_control
            self.refresh_bindings()
            if self._question is not None and self._question is self.app.screen:
                self._question.dismiss(None)
                self.notify("The training has ended meanwhile; nothing was changed.")
        self._show_status()
        self._show_problem()
        self.query_one(panes.TrainingMetrics).show(view)
        self._tiles.set_machine_monitoring(view.is_active and not self._attached and self.is_active)
        self._tiles.show(view)
        self._chart.show(view)
        self._show_samples()
        self._log.show(view.log)

    def _show_status(self) -> None:
        view, name, size = self.view, "training", ""
        state: str = "following" if self._attached else self.view.phase
        if (started := view.started) is not None:
            name = printable(started.run)
            size = (
                (f" · {PRETRAINED_NOTE}" if started.base else "")
                + f" · {started.parameters:,} parameters · vocabulary {started.vocabulary_size:,}"
                f" · {started.train_tokens:,} tokens · {printable(started.device)}"
            )
        pending = [PENDING_LABELS[each.kind] for each in self._pending if each.kind in PENDING_LABELS]
        style = MUTED
        if view.notice:
            state, style = printable(view.notice), "$text-warning"
        elif view.phase == "failed":
            style = "bold $text-error"
        elif view.finished:
            state = view.finished.reason if view.finished.reason in END_STATES else "finished"
            style = "bold $accent"
        elif pending or view.paused:
            state, style = f"{pending[-1]} …" if pending else "paused", "bold $accent"
        parts = [Content.styled(state, style)]
        if view.lr_scale != 1:
            parts.append(Content.styled(f"lr × {view.lr_scale:g}", "$accent"))
        if view.is_active and view.checkpoint_step is not None:
            parts.append(Content.styled(f"saved at {view.checkpoint_step:,}", MUTED))
        if view.phase == "finished" and view.evaluations and not self._attached:
            parts.append(Content.styled("press p to play", MUTED))
        left = Content.assemble(("lotr-tui", "bold $accent"), "  ", (name, "bold"), (size, MUTED))
        self.query_one("#status", StatusBar).show(left, Content(" · ").join(parts))

    def _show_problem(self) -> None:
        line, diagnoses = self.query_one("#diagnosis", Static), self.view.current_diagnoses
        line.display = bool(diagnoses)
        for latest in diagnoses[-1:]:
            remedy = REMEDIES.get(latest.kind) if self.view.is_active else None
            parts: list[tuple[str, str] | str] = [
                ("! ", "bold $text-warning"),
                (printable(latest.message), "$text-warning"),
                (" → ", MUTED),
                printable(latest.remedy),
            ]
            for binding in self.BINDINGS:
                if isinstance(binding, Binding) and binding.id in (remedy, "dashboard.dismiss"):
                    keys = self.app.get_key_display(binding)
                    parts += ["  ", (keys, "bold $accent"), (f" {binding.description}", MUTED)]
            if len(diagnoses) > 1:
                parts.append((f"  {len(diagnoses) - 1} more", MUTED))
            line.update(Content.assemble(*parts))

    # Panes, and the cursor of the chart and the samples: an epoch, or None for the latest one

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable control actions after the training, and the pane keys on wide terminals, which show all panes."""
        if action in CONTROL_ACTIONS:
            return self._can_control
        if action == "dismiss_problem":
            return bool(self.view.current_diagnoses)
        if action == "step_line":
            return self.view.num_lines > 1 and self._words.is_on_screen
        return action != "next_pane" or self.has_class("-narrow")

    def action_next_pane(self, offset: int) -> None:
        names = list(PANES)
        self.action_show_pane(names[(names.index(self.query_one(PaneTabs).pane) + offset) % len(names)])

    def action_show_pane(self, pane: str) -> None:
        self.query_one(PaneTabs).pane = pane
        for name in PANES:
            self.set_class(name == pane, f"-pane-{name}")

    def action_select_epoch(self, epoch: float | None = None) -> None:
        self._chart.set_cursor(epoch)
        self._show_samples()

    def _show_samples(self) -> None:
        self._samples.show(self.view, self._chart.cursor)
        self._words.show(self.view, self._chart.cursor)

    def action_select_sample(self, index: int) -> None:
        """Move the cursor to a sample; the last one is the latest, which is followed."""
        samples, index = self.view.samples, max(0, index)
        self.action_select_epoch(samples[index].epoch if index < len(samples) - 1 else None)

    def action_step_sample(self, offset: int) -> None:
        self.action_select_sample(self._samples.sample_index + offset)

    def action_step_line(self, offset: int) -> None:
        self._words.line += offset
        self._show_samples()

    def action_move_cursor(self, columns: int) -> None:
        self.action_select_epoch(self._chart.epoch_beside(columns))

    def action_zoom(self, factor: float) -> None:
        self._chart.zoom(factor)

    def action_log(self, unit: str, offset: int) -> None:
        self._log.action_step(offset) if unit == "step" else self._log.action_page(offset)

    def action_dismiss_problem(self) -> None:
        self.view.dismissed += self.view.current_diagnoses[-1:]
        self.show_view(self.view)
        self.refresh_bindings()

    # Control of the training

    def _request(self, command: ControlCommand | None) -> None:
        """Send a command, and show it as pending until the training has applied it."""
        if command is None:
            return
        try:
            if not self._can_control:
                raise InvalidInputError("No training is active.")
            self._send_command(command)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
        else:
            self._pending.append(command)
            self._show_status()

    def action_send_command(self, kind: CommandKind) -> None:
        self._request(ControlCommand(kind))

    def action_toggle_pause(self) -> None:
        kinds = [command.kind for command in self._pending if command.kind in ("pause", "resume")]
        will_be_paused = kinds[-1] == "pause" if kinds else self.view.paused
        self._request(ControlCommand("resume" if will_be_paused else "pause"))

    def action_halve_lr(self) -> None:
        scales = [command.lr_scale for command in self._pending if command.kind == "lr"]
        scale = (scales[-1] if scales else self.view.lr_scale) / 2
        if scale >= MIN_LR_SCALE:
            self._request(ControlCommand("lr", f"{scale:g}"))

    def action_reset_lr(self) -> None:
        self._request(ControlCommand("lr", "1"))

    def action_change_prompt(self) -> None:
        dialog = Dialog[ControlCommand](
            "Prompt of the samples, from the next evaluation on",
            fields=[Field("prompt", self.view.prompt, "the first words", max_length=MAX_SAMPLE_PROMPT_LENGTH)],
            submit=lambda texts: ControlCommand("prompt", " ".join(texts["prompt"].split())),
            verb="use",
        )
        self._question = dialog
        self.app.push_screen(dialog, self._request)

    def action_stop_training(self) -> None:
        question = "Stop the training? The best model so far is kept."
        if self.view.best and not self.view.best.step:
            question = "Stop the training? It has learned nothing yet: the best model is that of step 0."
        self._question = confirm(self.app, question, lambda: self._request(ControlCommand("stop")))

    # Navigation

    def action_open_session(self) -> None:
        if not self.view.evaluations or not self.view.started:
            self.notify("No model yet. The first evaluation saves one.")
        elif self._exit_on_close and not self._attached:
            events = [self.view.finished] if self.view.finished else self.view.evaluations[-1:]
            self.post_message(OpenSession(SessionModel.from_training(self.view, events, self.state.runs_dir)))
        else:
            self._load(self.view.started.run if self._follower is None else str(self._follower.path))

    def action_choose_model(self) -> None:
        choose_run(self, self._load)

    @work(exclusive=True, group="load")
    async def _load(self, name: str) -> None:
        try:
            loaded = await run_in_thread(load_model_by_name, name, self.state.runs_dir)
        except LotrError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        if self._exit_on_close:
            self.post_message(OpenSession(SessionModel.from_loaded(loaded)))
        else:
            self.dismiss(loaded)

    def action_export(self) -> None:
        path = self.state.run_path if self._follower is None else self._follower.path
        if path is None or not self.view.started:
            self.notify("Nothing to export yet.")
        else:
            ask_to_export_csv(self, path, path.name, partial(self.notify, markup=False))

    async def action_close(self) -> None:
        if self._exit_on_close:
            await self.app.action_quit()
        else:
            self.dismiss()
