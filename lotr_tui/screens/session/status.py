"""First line of the session: the model, and the progress of a training."""

from typing import TYPE_CHECKING

from textual.content import Content

from lotr_tui.formatting import format_duration
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.session.session_model import SessionModel


class SessionStatus(StatusBar):
    """Model of the session on the left, and a running training on the right."""

    HELP_LINE = "valid: perplexity on unseen text, lower is better. Kneser-Ney: counted words"

    def update_status(
        self, session_model: "SessionModel | None", view: "TrainingView | None", activity: str = ""
    ) -> None:
        """Show a model and the state of a training, each of which may be missing.

        The text `activity`, about a model that is being loaded or fetched, replaces the state of the training.
        """
        left = Content.styled("lotr-tui", "bold $accent")
        if session_model is not None:
            description = f" · {session_model.description}"
            left = Content.assemble(left, "  ", (session_model.name, "bold"), (description, MUTED))
        right = Content("")
        if view is not None and view.is_active:
            text = f"training: {view.activity}"
            if view.started and view.evaluations:
                unit = view.unit
                valid = unit.format(view.evaluations[-1].valid_perplexity)
                valid += "" if unit.is_perplexity else f" {unit.title}"
                eta = f" · {format_duration(view.steps.last.eta_seconds)} left" if view.steps.last else ""
                text = f"training epoch {view.epoch:.1f}/{view.epochs} · {valid}{eta}"
            right = Content.styled(text, "$accent")
        if activity:
            right = Content.styled(activity, "$accent")
        self.show(left, right)
