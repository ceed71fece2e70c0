"""What was said: prompts, and the words as they come."""

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.sampling import Done, TokenEvent
from lotr_tui.wording import ending


class Exchange(Vertical):
    """A prompt, the model's words, and how they came about."""

    DEFAULT_CSS = """
    Exchange { height: auto; padding: 0 1; margin-bottom: 1; }
    Exchange > .words { padding-left: 2; }
    """

    def __init__(self, prompt: str, unknown: tuple[str, ...], seed: int, chain: str) -> None:
        super().__init__()
        heading = Content.assemble(("❯ ", "bold $accent"), (prompt, "bold"))
        if unknown:
            names = ", ".join(unknown)
            heading = Content.assemble(heading, "\n", (f"  not in the vocabulary, read as <unk>: {names}", "$warning"))
        self._heading = Static(heading, markup=False)
        self._body = Static("", classes="words", markup=False)
        self._words: list[str] = []
        self._notes = [f"seed {seed}", chain]
        self._writing = True

    def compose(self) -> ComposeResult:
        """The prompt stays; the words under it grow."""
        yield self._heading
        yield self._body

    def on_mount(self) -> None:
        """Show the cursor at once."""
        self._show()

    def add(self, events: list[TokenEvent | Done]) -> None:
        """Take in what has come since the last call."""
        for event in events:
            if isinstance(event, TokenEvent):
                self._words.append(event.text)
            else:
                self._writing = False
                self._notes.append(f"{event.tokens_per_second:,.0f} words/s")
                self._notes.append(ending(event))
        self._show()

    def fail(self, message: str) -> None:
        """Show why no more words come; those that came stay."""
        self._writing = False
        self._notes.append(f"broken off: {message}")
        self._show()

    def _show(self) -> None:
        words = " ".join(self._words)
        if self._writing:
            self._body.update(Content.assemble(words, ("▌", "$accent")))
        else:
            notes = (" · ".join(self._notes), "$foreground 60%")
            self._body.update(Content.assemble(words, "\n" if words else "", notes))


class Transcript(VerticalScroll):
    """Exchanges, latest last; follows the end until the reader scrolls away."""

    DEFAULT_CSS = """
    Transcript { padding: 1 1 0 1; scrollbar-size-vertical: 1; }
    Transcript > #welcome, Transcript > .note { color: $text-muted; padding: 0 1; margin-bottom: 1; }
    """

    def __init__(self, welcome: Content, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._welcome = welcome

    def compose(self) -> ComposeResult:
        """At first, what there is to do."""
        yield Static(self._welcome, id="welcome", markup=False)

    def on_mount(self) -> None:
        """Follow the end."""
        self.anchor()

    def note(self, text: str) -> None:
        """A line of our own between the exchanges."""
        self.mount(Static(text, classes="note", markup=False))

    def begin(self, exchange: Exchange) -> None:
        """A new exchange, at the end."""
        self.mount(exchange)
        self.anchor()
