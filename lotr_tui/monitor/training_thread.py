"""The training that goes on in a thread of this process."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.control import Command
from engine.errors import UnusableInput, reason_of
from engine.events import Evaluated, Failed, Preparing, Step, TrainingEvent
from engine.runtime.allocator import give_back_freed_memory, keep_freed_memory
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.monitor.training_view import TrainingView

if TYPE_CHECKING:
    from engine.training.job import TrainingJob

Told = TrainingEvent | TrainingView
"""What goes on, or all that was known before."""
LOOK_SECONDS = 0.5
GIVE_BACK_SECONDS = 60.0
"""Between two times that freed memory is handed back, which takes some 0.05 s.

Replies and ladders keep models of evaluations for different times; what is kept for one that is gone is not always
right for the next, and in some hours adds up to tens of megabytes.
"""


class OwnTraining:
    """Its thread, what is known of it, and what can be asked of it."""

    def __init__(self, prepare: "Callable[[], TrainingJob]", left: Path | None = None) -> None:
        """Train what `prepare`, called in the thread, makes ready; `left` is the run directory that it goes on with."""
        self.view = TrainingView()
        self._prepare = prepare
        self._left = left
        self._job: TrainingJob | None = None
        keep_freed_memory()
        self._worker: Worker[Told] = Worker("training", self._source, droppable=_is_step).start()

    def poll(self) -> tuple[list[TrainingEvent], bool]:
        """Take in what it told since the last call: the events, and whether they were the last ones."""
        ended = not self._worker.running  # asked before draining, so that no last event is missed
        events: list[TrainingEvent] = []
        for told in self._worker.drain():
            if isinstance(told, TrainingView):
                self.view = told
            else:
                events.append(told)
                self.view.apply(told)
        if ended and self._worker.failure is not None:
            events.append(Failed(reason_of(self._worker.failure)))
            self.view.apply(events[-1])
        return events, ended

    def steer(self, command: Command) -> None:
        """Ask something of it.

        Raises:
            UnusableInput: it has not begun yet.
        """
        if self._job is not None:
            self._job.steering.send(command)
        elif command.what == "stop":
            self.stop()
        else:
            raise UnusableInput("the training is being prepared; ask again when it has begun")

    def stop(self) -> None:
        """Ask it to save and end at the next update."""
        self._worker.cancel()

    def join(self, seconds: float) -> bool:
        """Wait for its end, at most so long; tells whether it ended."""
        return self._worker.join(seconds)

    def go_on_to_the_end(self) -> None:
        """Wait for its end, however long that takes, though nobody reads what it tells: its record does."""
        while not self._worker.join(LOOK_SECONDS):
            self._worker.drain()

    @property
    def has_something_to_save(self) -> bool:
        """Whether it goes on, and has come so far that it saves when it is stopped; until then it is only prepared."""
        self.poll()
        return self._worker.running and self.view.started is not None

    @property
    def path(self) -> Path | None:
        """The run directory, once there is one."""
        return None if self._job is None else self._job.run.path

    def _source(self, cancellation: Cancellation) -> Iterator[Told]:
        if self._left is not None:
            yield TrainingView.of_resumed(self._left)
        yield Preparing("reading the corpus")
        self._job = self._prepare()
        given_back = time.monotonic()
        try:
            for event in self._job.events(cancellation):
                yield event
                if isinstance(event, Evaluated) and time.monotonic() - given_back >= GIVE_BACK_SECONDS:
                    give_back_freed_memory()
                    given_back = time.monotonic()
        finally:
            give_back_freed_memory()


def _is_step(event: Told) -> bool:
    return isinstance(event, Step)
