"""Base classes of the screens that show how a model reads a text."""

from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input

from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets
from engine.errors import describe_error
from engine.models.dialogue import DialogueModel
from lotr_tui.background_task import BackgroundTask, is_closed
from lotr_tui.screens.text.layout import Page, sanitize_text
from lotr_tui.screens.text.text_input import TextInputBar, cut_text
from lotr_tui.session.session_model import SessionModel
from lotr_tui.textual_fixes.app import TextualFixesScreen
from lotr_tui.theme import MUTED
from lotr_tui.widgets.status_bar import StatusBar

ResultT = TypeVar("ResultT")


class TextAnalysisScreen(TextualFixesScreen, Screen[None]):
    """A screen that analyses a text with one model and names that model in its status line."""

    def __init__(self, session_model: SessionModel) -> None:
        """Analyse texts with `session_model`."""
        super().__init__()
        self._session_model = session_model

    @property
    def is_idle(self) -> bool:
        """True once the current text is analysed."""
        raise NotImplementedError

    inspected_part: object = None
    """Model inside the model of the session that is shown; None for the whole."""

    def show_title(self, title: str) -> None:
        """Show the title of the screen and the model in the status line, and whether it is shown without its helpers.

        A cache or a mixture changes what the part predicts; the parts that know speakers do not.
        """
        model = self._session_model.model
        whole = model.model if isinstance(model, DialogueModel) else model
        if self.inspected_part not in (None, whole):
            title = f"{title} as trained"
        about = f" · {self._session_model.name} · {self._session_model.description}"
        self.show_line("#status", ("lotr-tui", "bold $accent"), "  ", (title, "bold"), (about, MUTED))

    def show_line(self, selector: str, *parts: str | tuple[str, str]) -> None:
        """Show texts, each plain or with its style, in a status bar."""
        self.query_one(selector, StatusBar).show(Content.assemble(*parts))

    def action_close(self) -> None:
        """Return to the previous screen."""
        self.dismiss()


class TextInputScreen(TextAnalysisScreen, Generic[ResultT]):
    """A screen with an input line for the text, which `compute` analyses in a thread."""

    AUTO_FOCUS: ClassVar[str]
    """Selector of the main widget, which the edit key switches to from the input line."""
    HEADING: ClassVar[str]
    """Title in the status line."""
    BUSY_MESSAGE: ClassVar[str]
    """Message shown during the analysis."""
    FAILURE_MESSAGE: ClassVar[str]
    """Start of the message about a failed analysis."""

    def __init__(self, session_model: SessionModel, text: str) -> None:
        """Analyse `text`, with a line break for each `<eos>`, once the screen is mounted."""
        super().__init__(session_model)
        self.text = cut_text(sanitize_text(text))
        """The analysed text."""
        self.page: Page | None = None
        """Layout of the analysed text; None before the first analysis."""
        self._analysis_task: BackgroundTask[ResultT] = BackgroundTask(
            self, "text-analysis", lambda results: self.show_result(results[0]), self._show_failure
        )

    # Parts that a subclass implements

    def show_page(self, page: Page, cursor: int | None) -> None:
        """Show a text that is not analysed yet, with the cursor on a word or token; None is the default."""
        raise NotImplementedError

    def find_problem(self) -> str:
        """Return why no text can be analysed, or "" if there is no reason."""
        raise NotImplementedError

    def lay_out(self, tokens: TokenizedText) -> Page:
        """Return the page of a text; by default, of its words."""
        return Page.from_words(tokens)

    def compute(self, tokens: TokenizedText) -> ResultT:
        """Analyse the text; called in a thread."""
        raise NotImplementedError

    def show_result(self, result: ResultT) -> None:
        """Show the analysis of the current text."""
        raise NotImplementedError

    def show_message(self, message: str) -> None:
        """Show a message in place of a result."""
        raise NotImplementedError

    # Analysis

    @property
    def is_idle(self) -> bool:
        """True once the current text is analysed."""
        return self.page is not None and not self._analysis_task.is_running

    def on_mount(self) -> None:
        """Start the analysis after the first paint."""
        self.show_title(self.HEADING)
        self.call_after_refresh(self._analyse_first_text)

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._analysis_task.cancel()

    def tokenize(self) -> TokenizedText:
        """Tokenize the text."""
        return self.tokenize_text(self.text)

    def tokenize_text(self, text: str) -> TokenizedText:
        """Tokenize a text as the model of the session reads it."""
        tokenizer = self._session_model.model.tokenizer
        eos_per_line = not tokenizer.is_open or self._session_model.predicts_eos
        return tokenize_with_offsets(text, tokenizer, eos_per_line=eos_per_line, cast=self._session_model.cast)

    def _analyse_first_text(self) -> None:
        if not is_closed(self):  # a key may close the screen before its first paint
            self.analyse()

    def analyse(self, cursor: int | None = None) -> None:
        """Show the text with the cursor on a word or token, and analyse it in a thread."""
        self._analysis_task.cancel()
        tokens = self.tokenize()
        self.page = self.lay_out(tokens)
        self.show_page(self.page, cursor)
        if problem := self.find_problem():
            self.show_message(problem)
        elif skipped := [] if len(tokens) else tokens.skipped_texts():
            self.show_message(f"the model cannot read {', '.join(skipped[:5])}; type words of the letters a to z")
        elif not len(tokens):
            self.show_message("the text has no words; type one below and press enter")
        else:
            self.show_message(self.BUSY_MESSAGE)
            self._analysis_task.start(lambda _: iter([self.compute(tokens)]))

    def _show_failure(self, error: BaseException) -> None:
        self.show_message(f"{self.FAILURE_MESSAGE}: {describe_error(error)}")

    @on(Input.Submitted)
    def _submit_text(self) -> None:
        self.text = self.query_one(TextInputBar).text
        self.analyse()
        self.query_one(self.AUTO_FOCUS).focus()

    def action_toggle_edit(self) -> None:
        """Focus the input line, or the main widget if the input line has the focus."""
        field = self.query_one(Input)
        (self.query_one(self.AUTO_FOCUS) if field.has_focus else field).focus()
