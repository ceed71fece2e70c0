"""The first line of the session: which model plays, and how the training behind it goes."""

from typing import TYPE_CHECKING

from textual.content import Content

from lotr_tui.formatting import duration
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.session.player import Player


class SessionStatus(StatusBar):
    """The model on the left; on the right the training that goes on, if one does."""

    def tell(self, player: "Player | None", view: "TrainingView | None") -> None:
        """Show both as they stand."""
        left = Content.styled("lotr-tui", "bold $accent")
        if player is not None:
            left = Content.assemble(left, "  ", (player.name, "bold"), (f" · {player.description}", MUTED))
        right = Content("")
        if view is not None and view.active:
            text = f"training: {view.note}"
            if view.started and view.evaluations:
                left_over = f" · {duration(view.steps.last.eta_seconds)} left" if view.steps.last else ""
                valid = view.evaluations[-1].valid_perplexity
                text = f"training epoch {view.epoch:.1f}/{view.epochs} · {valid:.1f}{left_over}"
            right = Content.styled(text, "$accent")
        self.show(left, right)
