"""The first line of the dashboard: which training, and how it stands."""

from collections.abc import Sequence

from textual.content import Content

from engine.control import Command
from engine.errors import printable
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

ASKED = {"pause": "pausing", "go_on": "going on", "checkpoint": "saving", "stop": "stopping", "detach": "detaching"}
"""What is said until it is done."""


class TrainingStatus(StatusBar):
    """The run on the left; on the right whether it goes on, what was asked of it, and what is saved."""

    def tell(self, view: TrainingView, asked: Sequence[Command] = (), *, follows: bool = False) -> None:
        """Show how `view` stands, and what was asked and is not done yet."""
        parts: list[tuple[str, str]] = [("lotr-tui", "bold $accent"), ("  ", "")]
        if view.started:
            started = view.started
            facts = (
                f" · {started.parameters:,} parameters · {started.vocabulary:,} words"
                f" · {started.train_tokens:,} tokens · {printable(started.device)}"
            )
            parts += [(printable(started.run), "bold"), (facts, MUTED)]
        else:
            parts.append(("training", "bold"))
        self.show(Content.assemble(*parts), Content(" · ").join(self._state(view, asked, follows=follows)))

    def _state(self, view: TrainingView, asked: Sequence[Command], *, follows: bool) -> list[Content]:
        """The most telling first."""
        waiting = [ASKED[command.what] for command in asked if command.what in ASKED]
        if view.notice:
            state = Content.styled(printable(view.notice), "$text-warning")
        elif view.phase == "failed":
            state = Content.styled("failed", "bold $text-error")
        elif view.finished:
            ended = {"stopped": "stopped", "detached": "detached"}.get(view.finished.reason, "finished")
            state = Content.styled(ended, "bold $accent")
        elif waiting:
            state = Content.styled(f"{waiting[-1]} …", "bold $accent")
        elif view.paused:
            state = Content.styled("paused", "bold $accent")
        else:
            state = Content.styled("following" if follows else view.phase, MUTED)
        told = [state]
        if view.lr_share != 1:
            told.append(Content.styled(f"lr × {view.lr_share:g}", "$accent"))
        if view.active and view.saved_step is not None:
            told.append(Content.styled(f"saved at {view.saved_step:,}", MUTED))
        if view.phase == "finished" and view.evaluations and not follows:
            told.append(Content.styled("p plays with it", MUTED))
        return told
