"""Columns being written in threads, without a screen: who writes which, what came, and what went wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.errors import PromptError, reason_of
from engine.generation.batch import Event
from engine.generation.columns import Column, in_step
from engine.generation.generate import Prompt, encode_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.screens.comparison.columns import ColumnText


@dataclass(eq=False)
class Slot:
    """A column of the screen: who writes it, how hot, and its text."""

    text: ColumnText
    model: LanguageModel | None
    """None while it is being loaded."""
    temperature: float


@dataclass(frozen=True)
class _Writing:
    """A worker, and the slots that its columns are."""

    worker: Worker[Event]
    slots: Sequence[Slot]


class ColumnWriters:
    """One worker for all columns that start together; one that is added or changed later has its own."""

    def __init__(self) -> None:
        self._writings: list[_Writing] = []

    def __bool__(self) -> bool:
        """Whether words may still come."""
        return bool(self._writings)

    def start(self, slots: Sequence[Slot], prompt: str, settings: SamplerSettings, seed: int, pace: float) -> None:
        """Continue `prompt` in those of `slots` that are blank and have a model that can read it."""
        busy = {slot for writing in self._writings for slot in writing.slots}
        starting: list[Slot] = []
        columns: list[Column] = []
        for slot in slots:
            if slot.model is not None and slot.text.blank and slot not in busy:
                starting.append(slot)
                columns.append(Column(slot.text.title, slot.model, replace(settings, temperature=slot.temperature)))

        def source(cancellation: Cancellation) -> Iterator[Event]:
            return in_step(columns, prompt, seed, cancellation, pace)

        if columns:
            self._writings.append(_Writing(Worker("columns", source).start(), starting))

    def take_in(self) -> bool:
        """Put the words that came since the last call into their texts; tells whether a worker has ended."""
        before = len(self._writings)
        for writing in list(self._writings):
            ended = not writing.worker.running  # asked before draining, so that no last event is missed
            for number, event in writing.worker.drain():
                writing.slots[number].text.events.append(event)
            if ended:
                self._writings.remove(writing)
                if (error := writing.worker.failure) is not None:
                    for slot in writing.slots:
                        if slot.text.done is None:
                            slot.text.failure = f"broken off: {reason_of(error)}"
        return len(self._writings) < before

    def stop(self) -> None:
        """Ask for an end; the last events are still to be taken in."""
        for writing in self._writings:
            writing.worker.cancel()

    def drop(self) -> None:
        """End, and forget what may still come."""
        self.stop()
        self._writings = []

    def keep_only(self, slots: Sequence[Slot]) -> None:
        """Stop those who write for none of `slots`."""
        for writing in self._writings:
            if not any(slot in slots for slot in writing.slots):
                writing.worker.cancel()


def read_prompt(slots: Sequence[Slot], prompt: str) -> dict[Slot, Prompt | PromptError]:
    """What the model of each slot makes of `prompt`, or why it can make nothing of it."""
    of_vocabulary: dict[int, Prompt | PromptError] = {}
    reads: dict[Slot, Prompt | PromptError] = {}
    for slot in slots:
        if slot.model is None:
            continue
        key = id(slot.model.vocabulary)  # that of a Mixture is its first model's
        if key not in of_vocabulary:
            try:
                of_vocabulary[key] = encode_prompt(prompt, slot.model.vocabulary)
            except PromptError as error:
                of_vocabulary[key] = error
        reads[slot] = of_vocabulary[key]
    return reads


def unknown_words(reads: dict[Slot, Prompt | PromptError]) -> str:
    """Which words of a prompt are not known, and where not everywhere, to whom; empty if all are."""
    lists = {slot: ", ".join(read.unknown[:8]) for slot, read in reads.items() if isinstance(read, Prompt)}
    if not any(lists.values()):
        return ""
    if len(set(lists.values())) == 1:
        return f"not in the vocabulary, read as <unk>: {next(iter(lists.values()))}"
    told = "; ".join(f"{words} ({slot.text.title})" for slot, words in lists.items() if words)
    return f"not in every vocabulary, read as <unk>: {told}"
