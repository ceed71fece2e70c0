"""Hints for somebody who plays for the first time: the next thing to try."""

from typing import Literal

Step = Literal["cast", "system", "temperature", "words", "again", "bars", "chart", "train"]

HINTS: dict[Step, str] = {
    "temperature": "Next: F7 and F8 change the temperature: watch the bars",
    "words": "Next: ctrl+g shows the alternatives to each word",
    "again": "Next: ctrl+r replies again, ctrl+n keeps going",
    "bars": "The bars: the most likely next words, after sampling and raw from the model",
    "chart": "The chart: perplexity in training. Kneser-Ney is a model that counts words",
    "train": "Next: ctrl+t trains a model of your own; F1 lists all keys",
}
"""Hints in their order, for a model without speakers."""
CONVERSATION_HINTS: dict[Step, str] = {
    "cast": "Next: ctrl+d chooses who answers, and who you are",
    "again": "Next: ctrl+n goes on with the scene, ctrl+r answers again",
    "words": HINTS["words"],
    "temperature": HINTS["temperature"],
    "bars": "The bars: who is likely to answer, and the most likely next words",
    "chart": HINTS["chart"],
    "train": HINTS["train"],
}
"""Hints in their order, for a model with speakers."""

CHAT_HINTS: dict[Step, str] = {
    "system": "Next: /system You are Gandalf … tells the model who it is; ctrl+d edits it",
    "words": HINTS["words"],
    "again": HINTS["again"],
    "temperature": HINTS["temperature"],
    "bars": HINTS["bars"],
    "train": HINTS["train"],
}
"""Hints in their order, for a model with a chat template."""
HintsName = Literal["plain", "conversation", "chat"]
_HINTS: dict[HintsName, dict[Step, str]] = {"plain": HINTS, "conversation": CONVERSATION_HINTS, "chat": CHAT_HINTS}
_NARROW_HINTS: dict[Step, str] = {"temperature": "Next: F7 and F8 change the temperature; F2 shows the bars"}


class FirstSteps:
    """One hint after each of the first replies; a hint is never shown twice, and a step that was done has none."""

    def __init__(self, num_earlier_prompts: int) -> None:
        """Leave out the hints that followed the earlier prompts of this user."""
        self._num_earlier_prompts = num_earlier_prompts
        self._finished: set[Step] = set()
        """Steps that were done, or whose hint was shown."""
        self._hints = HINTS
        self._current: Step | None = None

    def set_hints(self, name: HintsName) -> None:
        """Give the hints for a model with speakers, for one with a chat template, or for one without both."""
        self._hints = _HINTS[name]
        if self._current not in self._hints:
            self._current = None

    def hint(self, *, is_narrow: bool) -> str:
        """Return the hint to show, or ""; a narrow terminal shows one pane at a time."""
        if self._current is None:
            return ""
        hint = self._hints[self._current]
        return _NARROW_HINTS.get(self._current, hint) if is_narrow else hint

    def show_next(self) -> None:
        """Show the next hint after a reply, or none after the last one."""
        steps = list(self._hints)[self._num_earlier_prompts :]
        self._current = next((step for step in steps if step not in self._finished), None)
        if self._current is not None:
            self._finished.add(self._current)

    def finish(self, step: Step) -> None:
        """Skip the hint of a step that the user has done, and show the next one if it was visible."""
        self._finished.add(step)
        if step == self._current:
            self.show_next()
