"""Reading of the text before an inspected token with a slow model, in a thread."""

from collections.abc import Callable, Iterator

from textual.message_pump import MessagePump

from engine.errors import describe_error
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.screens.session.conversation.inspection import TokenInspection
from lotr_tui.session.read_text import UnreadText
from lotr_tui.session.reply import Reply

POLL_INTERVAL = 0.02
"""Seconds between two looks at the result."""


class InspectionReader:
    """Task that reads the text before a token, so that its alternatives are known; the latest token wins."""

    def __init__(self, owner: MessagePump, on_read: Callable[[Reply, int], None]) -> None:
        """Prepare to call `on_read` with each token whose alternatives are known; `owner` calls `cancel` at its end."""
        self._owner = owner
        self._on_read = on_read
        self._task: BackgroundTask[tuple[Reply, int]] = BackgroundTask(
            owner, "inspection", self._deliver, self._fail, interval=POLL_INTERVAL
        )

    def read(self, inspection: TokenInspection, reply: Reply, token_index: int) -> None:
        """Read the text before a token, and keep the result in `inspection`."""
        text = UnreadText.of_reply(reply, token_index)

        def source(cancellation: Cancellation) -> Iterator[tuple[Reply, int]]:
            context = inspection.read(text, cancellation)
            if context is not None:
                inspection.keep(reply, token_index, context)
                yield reply, token_index

        self._task.start(source)

    def cancel(self) -> None:
        """Stop reading."""
        self._task.cancel()

    def _deliver(self, items: list[tuple[Reply, int]]) -> None:
        self._on_read(*items[-1])

    def _fail(self, error: BaseException) -> None:
        self._owner.app.notify(describe_error(error), severity="error", markup=False)
