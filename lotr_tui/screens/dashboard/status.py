"""Status bar of the dashboard."""

from collections.abc import Sequence

from textual.content import Content

from engine.control import CommandKind, ControlCommand
from engine.errors import printable
from lotr_tui.formatting import PRETRAINED_NOTE
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

PENDING_COMMAND_LABELS: dict[CommandKind, str] = {
    "pause": "pausing",
    "resume": "resuming",
    "checkpoint": "saving",
    "stop": "stopping",
    "detach": "detaching",
}
"""Label of each command until the training has applied it."""


class TrainingStatus(StatusBar):
    """Name and size of the run on the left; state, learning rate scale and last checkpoint on the right."""

    def update_status(
        self, view: TrainingView, pending: Sequence[ControlCommand] = (), *, is_following: bool = False
    ) -> None:
        """Show the state of a training, and of the pending commands, oldest first; `is_following` another process."""
        parts: list[tuple[str, str]] = [("lotr-tui", "bold $accent"), ("  ", "")]
        if (started := view.started) is not None:
            size = (
                (f" · {PRETRAINED_NOTE}" if started.base else "")
                + f" · {started.parameters:,} parameters · vocabulary {started.vocabulary_size:,}"
                f" · {started.train_tokens:,} tokens · {printable(started.device)}"
            )
            parts += [(printable(started.run), "bold"), (size, MUTED)]
        else:
            parts.append(("training", "bold"))
        state = [_state(view, pending, is_following=is_following)]
        if view.lr_scale != 1:
            state.append(Content.styled(f"lr × {view.lr_scale:g}", "$accent"))
        if view.is_active and view.checkpoint_step is not None:
            state.append(Content.styled(f"saved at {view.checkpoint_step:,}", MUTED))
        if view.phase == "finished" and view.evaluations and not is_following:
            state.append(Content.styled("press p to play", MUTED))
        self.show(Content.assemble(*parts), Content(" · ").join(state))


def _state(view: TrainingView, pending: Sequence[ControlCommand], *, is_following: bool) -> Content:
    """Return a notice, the end of the training, the last pending command or the phase, in this order."""
    labels = [PENDING_COMMAND_LABELS[command.kind] for command in pending if command.kind in PENDING_COMMAND_LABELS]
    if view.notice:
        return Content.styled(printable(view.notice), "$text-warning")
    if view.phase == "failed":
        return Content.styled("failed", "bold $text-error")
    if view.finished:
        reason = view.finished.reason
        return Content.styled(reason if reason in ("stopped", "detached", "pruned") else "finished", "bold $accent")
    if labels:
        return Content.styled(f"{labels[-1]} …", "bold $accent")
    if view.paused:
        return Content.styled("paused", "bold $accent")
    return Content.styled("following" if is_following else view.phase, MUTED)
