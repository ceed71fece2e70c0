"""Banner of the dashboard with a problem of the training and its remedy."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget

from engine.errors import printable
from engine.events import Diagnosed, DiagnosisKind
from lotr_tui.theme import MUTED

REMEDY_BINDINGS: dict[DiagnosisKind, str] = {
    "rising_validation": "dashboard.stop",
    "forgetting": "dashboard.stop",
    "unigram_model": "dashboard.stop",
    "vanishing_gradients": "dashboard.stop",
    "loss_spike": "dashboard.halve-lr",
    "exploding_gradients": "dashboard.halve-lr",
}
"""Ids of the bindings that help against a problem while the training is active."""
DISMISS_BINDING = "dashboard.dismiss"


class DiagnosisBanner(Widget, can_focus=False):
    """The latest problem with its remedy, and the keys that act on it; hidden without a problem."""

    DEFAULT_CSS = """
    DiagnosisBanner { height: auto; max-height: 3; padding: 0 1; margin-top: 1; display: none; }
    DiagnosisBanner.-shown { display: block; }
    """
    HELP_LINE: ClassVar[str] = "A problem of the training and its remedy; the log keeps it"

    def __init__(
        self, bindings: Sequence[BindingType], format_keys: Callable[[Binding], str], *, id: str | None = None
    ) -> None:
        """Show keys of `bindings`, which include the ones of `REMEDY_BINDINGS`, as `format_keys` returns them."""
        super().__init__(id=id)
        self._binding_by_id = {binding.id: binding for binding in bindings if isinstance(binding, Binding)}
        self._format_keys = format_keys
        self._diagnosis: Diagnosed | None = None
        self._num_others = 0
        self._is_active = False

    def show(self, diagnoses: Sequence[Diagnosed], *, is_active: bool) -> None:
        """Show the last of `diagnoses`, and the number of others; `is_active` if the training can still be changed."""
        diagnosis, num_others = (diagnoses[-1], len(diagnoses) - 1) if diagnoses else (None, 0)
        if (diagnosis, num_others, is_active) == (self._diagnosis, self._num_others, self._is_active):
            return
        self._diagnosis, self._num_others, self._is_active = diagnosis, num_others, is_active
        self.set_class(diagnosis is not None, "-shown")
        self.refresh(layout=True)

    def render(self) -> Content:
        """Return the keys, the observation and the remedy as one paragraph, so that nothing is lost on few columns."""
        diagnosis = self._diagnosis
        if diagnosis is None:
            return Content("")
        parts: list[tuple[str, str] | str] = [
            ("! ", "bold $text-warning"),
            (printable(diagnosis.message), "$text-warning"),
            (" → ", MUTED),
            printable(diagnosis.remedy),
        ]
        remedy_binding = REMEDY_BINDINGS.get(diagnosis.kind) if self._is_active else None
        for binding_id in filter(None, (remedy_binding, DISMISS_BINDING)):
            binding = self._binding_by_id[binding_id]
            parts += ["  ", (self._format_keys(binding), "bold $accent"), (f" {binding.description}", MUTED)]
        if self._num_others:
            parts.append((f"  {self._num_others} more", MUTED))
        return Content.assemble(*parts)
