"""View of a line in which the words that tell its speaker are marked."""

from typing import ClassVar

from textual.content import Content
from textual.message import Message

from engine.data.speakers import display_name
from lotr_tui.screens.lens.shaded_text_view import ShadedTextView, difference_class
from lotr_tui.screens.lens.who.evidence import MINUS, LineEvidence, format_bits
from lotr_tui.screens.text.layout import Page
from lotr_tui.theme import MUTED

PLACEHOLDER = "Type a line below: who of the cast would say it?"
GIVEAWAY_MARKS = ("[", "]")


class SpeakerTextView(ShadedTextView):
    """The words of a line: the one that gave the speaker away in brackets, or each with its bits for one of two."""

    DEFAULT_CSS = """
    SpeakerTextView > .speaker-text--giveaway {
        color: $foreground; background: $accent 50%; text-style: bold underline;
    }
    SpeakerTextView:ansi > .speaker-text--giveaway { color: $block-cursor-foreground; background: $accent; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"speaker-text--giveaway"}
    HELP_LINE = "← → word by word: the bars show who was likely after it"

    class FocusChanged(Message):
        """Posted when the view gets or loses the focus, and with it its cursor."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(PLACEHOLDER, id=id)
        self._evidence: LineEvidence | None = None

    def show_evidence(self, evidence: LineEvidence) -> None:
        """Show a line with its evidence."""
        self._evidence = evidence
        words = evidence.guess.words
        page = Page.from_written_words(evidence.line.text)
        before, after = [""] * len(page.starts), [""] * len(page.starts)
        if evidence.pair is not None:
            after[: len(words)] = map(format_bits, evidence.word_bits)
        elif (index := evidence.giveaway) is not None:
            before[index], after[index] = GIVEAWAY_MARKS
        self.show(page.with_marks(before, after), self.cursor)

    def token_component_classes(self, index: int) -> list[str]:
        """Return the component class of a word."""
        evidence = self._evidence
        if evidence is None or index >= len(evidence.guess.words):
            return ["token-text-view--gap"]
        if evidence.pair is not None:
            names = [difference_class(evidence.word_bits[index])]
        else:
            names = ["speaker-text--giveaway" if index == evidence.giveaway else "token-text-view--token"]
        is_marked = self.has_focus and index == self.cursor
        return [*names, "token-text-view--cursor"] if is_marked else names

    def on_focus(self) -> None:
        """Show the cursor."""
        self.refresh()
        self.post_message(self.FocusChanged())

    def on_blur(self) -> None:
        """Hide the cursor."""
        self.refresh()
        self.post_message(self.FocusChanged())

    def legend(self) -> Content:
        """Return the meaning of the marks."""
        evidence = self._evidence
        if evidence is None or evidence.pair is None:
            mark = "word".join(GIVEAWAY_MARKS)
            return Content.assemble(mark, (" gave the speaker away: it raised the odds most", MUTED))
        pair = evidence.pair
        plus, minus = (
            Content.styled(text, self.get_visual_style(name))
            for text, name in (
                (f"+ {display_name(pair.first)}", "lens--much-better"),
                (f"{MINUS} {display_name(pair.second)}", "lens--much-worse"),
            )
        )
        return Content("  ").join([plus, minus, Content.styled("bits per word", MUTED)])
