"""Generation of the texts of several columns in threads."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from textual.message_pump import MessagePump

from engine.errors import InvalidInputError, describe_error
from engine.generation.generate import IndexedEvent
from engine.generation.settings import SamplerSettings
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.session.columns import ColumnSlot, GenerationColumn, PromptContext, generate_columns


class ColumnWriters:
    """Tasks that generate text: one for the columns of a model that start together, another for each later one.

    A model that is slow or fails holds up no other model.
    """

    def __init__(self, owner: MessagePump, on_tokens: Callable[[], None], on_end: Callable[[], None]) -> None:
        """Prepare to generate; timers of `owner` call `on_tokens` for new tokens, and `on_end` after a task."""
        self._owner = owner
        self._on_tokens = on_tokens
        self._on_end = on_end
        self._tasks: dict[BackgroundTask[IndexedEvent], list[ColumnSlot]] = {}

    @property
    def is_writing(self) -> bool:
        """True while tokens may still come."""
        return any(task.is_running for task in self._tasks)

    def start(
        self,
        slots: Sequence[ColumnSlot],
        prompt: str,
        context: PromptContext,
        settings: SamplerSettings,
        seed: int,
        pace: float,
    ) -> None:
        """Continue or answer `prompt` in the slots that are empty, idle and have a model, each with its temperature."""
        self._tasks = {task: written for task, written in self._tasks.items() if task.is_running}
        busy = {slot for written in self._tasks.values() for slot in written}
        starting = [slot for slot in slots if slot.model is not None and slot.output.is_empty and slot not in busy]
        groups: dict[int, list[ColumnSlot]] = {}
        for slot in starting:
            groups.setdefault(id(slot.model), []).append(slot)
        for group in groups.values():
            try:
                columns = [slot.column(prompt, context, settings) for slot in group]
            except InvalidInputError as error:
                self._fail(group, error)
                continue
            task: BackgroundTask[IndexedEvent] = BackgroundTask(
                self._owner, "columns", partial(self._take_events, group), partial(self._fail, group), self._on_end
            )
            self._tasks[task] = group
            task.start(partial(_generate, columns, seed, pace))

    def stop(self) -> None:
        """Ask all tasks to stop; their last tokens are still shown."""
        for task in self._tasks:
            task.stop()

    def discard(self) -> None:
        """Stop all tasks and drop their remaining tokens."""
        for task in self._tasks:
            task.cancel()

    def stop_except(self, slots: Sequence[ColumnSlot]) -> None:
        """Stop the tasks that generate for none of `slots`."""
        for task, written in self._tasks.items():
            if not any(slot in slots for slot in written):
                task.stop()

    def _take_events(self, slots: Sequence[ColumnSlot], events: list[IndexedEvent]) -> None:
        for index, event in events:
            slots[index].output.add_event(event)
        self._on_tokens()

    def _fail(self, slots: Sequence[ColumnSlot], error: BaseException) -> None:
        for slot in slots:
            if slot.output.done_event is None:
                slot.output.failure = f"failed: {describe_error(error)}"
        self._on_end()


def _generate(
    columns: Sequence[GenerationColumn], seed: int, pace: float, cancellation: Cancellation
) -> Iterator[IndexedEvent]:
    return generate_columns(columns, seed, cancellation, pace)
