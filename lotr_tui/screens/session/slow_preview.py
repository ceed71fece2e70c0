"""Preview of the next token for slow models: the model reads the text in a thread, once the user pauses."""

from collections.abc import Callable, Iterator

from textual.message_pump import MessagePump
from textual.timer import Timer

from engine.errors import describe_error
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask, is_closed
from lotr_tui.session.next_tokens import NextTokenContext, WordCompleter, read_next_token
from lotr_tui.session.read_text import TextReader, UnreadText

POLL_INTERVAL = 0.02
"""Seconds between two looks at the result."""
TYPING_PAUSE = 0.15
"""Seconds without a key after which the model reads the draft."""


class SlowPreview:
    """Text whose next token is shown, read in a thread; the latest request wins.

    A text that is known, because a reply has ended with it or it was read before, is shown at once.
    """

    def __init__(
        self,
        owner: MessagePump,
        completer: WordCompleter,
        show: Callable[[NextTokenContext], None],
        show_completion: Callable[[], None],
    ) -> None:
        """Prepare to call `show` with each text that was read, and `show_completion` for a completion of the draft.

        `owner` is the screen, which calls `cancel` when it is closed.
        """
        self._owner = owner
        self._completer = completer
        self._show = show
        self._show_completion = show_completion
        self.reader = TextReader()
        self._task: BackgroundTask[NextTokenContext | str] = BackgroundTask(
            owner, "next-token", self._deliver, self._fail, interval=POLL_INTERVAL
        )
        self._timer: Timer | None = None
        self._requested: UnreadText | None = None
        """Text that is shown, or that is shown once it is read."""
        self._context: NextTokenContext | None = None
        """The requested text after it was read."""
        self._draft = ""
        self._completion = ""
        """Text that completes `_draft`; empty if none is known."""

    @property
    def is_reading(self) -> bool:
        """True if a text is still to be shown."""
        return self._requested is not None and self._context is None

    def request(self, text: UnreadText, draft: str, *, may_read: bool = True) -> None:
        """Show a text: at once if its state is known, or else after a pause and once the model has read it.

        Args:
            text: The text.
            draft: Typed text, whose last word is completed.
            may_read: False to leave the model alone, because it generates a reply.
        """
        is_same = self._requested is not None and text.is_same_text(self._requested)
        if is_same and self._context is not None:
            self._show(self._context)
            return
        if (state := text.known_state) is not None:
            self._cancel_reading()
            self._requested, self._context = text, NextTokenContext.from_read(text, state)
            self._show(self._context)
        elif may_read and not is_same:
            self._cancel_reading()
            self._requested, self._context, self._draft, self._completion = text, None, draft, ""
            self._timer = self._owner.set_timer(TYPING_PAUSE, self._start)

    def completion(self, text: str) -> str:
        """Return the rest of the last word of a typed text, if it is known already."""
        known = self._draft + self._completion
        return (
            known[len(text) :] if self._completion and text.startswith(self._draft) and known.startswith(text) else ""
        )

    def cancel(self) -> None:
        """Stop reading, and show nothing more until the next request."""
        self._cancel_reading()
        self._requested = self._context = None

    def _cancel_reading(self) -> None:
        self._task.cancel()
        if self._timer is not None:
            self._timer.stop()
            self._timer = None

    def _start(self) -> None:
        text, draft = self._requested, self._draft
        if text is None or is_closed(self._owner):
            return

        def source(cancellation: Cancellation) -> Iterator[NextTokenContext | str]:
            context = read_next_token(self.reader, text, cancellation)
            if context is not None:
                yield context
                yield self._completer.complete(text.model, draft, cancellation)

        self._task.start(source)

    def _deliver(self, items: list[NextTokenContext | str]) -> None:
        for item in items:
            if isinstance(item, NextTokenContext):
                self._context = item
                self._show(item)
            elif item:
                self._completion = item
                self._show_completion()

    def _fail(self, error: BaseException) -> None:
        self._owner.app.notify(describe_error(error), severity="error", markup=False)
