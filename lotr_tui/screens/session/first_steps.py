"""Hints for somebody who plays for the first time: the next thing to try."""

from typing import Literal

Step = Literal["temperature", "words", "again", "bars", "chart", "train"]

HINTS: dict[Step, str] = {
    "temperature": "Next: F7 and F8 change the temperature: watch the bars",
    "words": "Next: ctrl+g shows the alternatives to each word",
    "again": "Next: ctrl+r replies again, ctrl+n keeps going",
    "bars": "The bars: the most likely next words, after sampling and raw from the model",
    "chart": "The chart: perplexity in training. Kneser-Ney is a model that counts words",
    "train": "Next: ctrl+t trains a model of your own; F1 lists all keys",
}

_NARROW_HINTS: dict[Step, str] = {"temperature": "Next: F7 and F8 change the temperature; F2 shows the bars"}


class FirstSteps:
    """One hint after each of the first replies; a hint is never shown twice, and a step that was done has none."""

    def __init__(self, num_earlier_prompts: int) -> None:
        """Leave out the hints that followed the earlier prompts of this user."""
        self._remaining = list(HINTS)[num_earlier_prompts:]
        self._current: Step | None = None

    def hint(self, *, is_narrow: bool) -> str:
        """Return the hint to show, or ""; a narrow terminal shows one pane at a time."""
        if self._current is None:
            return ""
        hint = HINTS[self._current]
        return _NARROW_HINTS.get(self._current, hint) if is_narrow else hint

    def show_next(self) -> None:
        """Show the next hint after a reply, or none after the last one."""
        self._current = self._remaining.pop(0) if self._remaining else None

    def finish(self, step: Step) -> None:
        """Skip the hint of a step that the user has done, and show the next one if it was visible."""
        if step in self._remaining:
            self._remaining.remove(step)
        if step == self._current:
            self.show_next()
