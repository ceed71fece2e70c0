"""Lens for a model that knows speakers: who would say a line, and which of two speakers its words belong to."""

from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from engine.models.dialogue import DialogueModel
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.text_area import LensTextArea
from lotr_tui.screens.lens.who.dialog import SpeakerPairDialog
from lotr_tui.screens.lens.who.evidence import MINUS, SpeakerPair
from lotr_tui.screens.lens.who.line import line_at
from lotr_tui.screens.lens.who.pane import WhoPane
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.key_footer import FooterKey, KeyFooter

WhoView = Literal["surprise", "who", "pair"]
"""Surprise of each word, the likely speakers of a line, or a line between two speakers."""
WHO_VIEWS: tuple[WhoView, ...] = ("surprise", "who", "pair")
TITLES: dict[WhoView, str] = {
    "surprise": "lens: surprise per word",
    "who": "lens: who would say this?",
    "pair": "lens: between two speakers",
}

FOOTER_KEYS: dict[WhoView, list[FooterKey]] = {
    "surprise": [
        FooterKey("lens.close"),
        FooterKey("lens.who"),
        FooterKey("lens.view"),
        FooterKey("lens.sentences"),
        FooterKey("lens.open"),
    ],
    "who": [FooterKey("lens.close"), FooterKey("lens.who", "two"), FooterKey("lens.pair"), FooterKey("lens.open")],
    "pair": [
        FooterKey("lens.close"),
        FooterKey("lens.who", "surprise"),
        FooterKey("lens.first", f"+/{MINUS}", "f6/7"),
        FooterKey("lens.pair"),
        FooterKey("lens.open"),
    ],
}


class WhoLensScreen(LensScreen):
    """Lens whose second and third view guess the speaker of the line at the text cursor while it is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "lens",
            """
            who | f5 | next_who_view | who | Who would say this: all, two speakers, or the surprise again
            """,
            show=True,
        ),
        # The text area has other uses for these keys.
        *(
            Binding(key, action, description, id=f"lens.{name}", tooltip=tooltip, priority=True)
            for name, key, action, description, tooltip in (
                ("first", "f6", "step_speaker(False)", "+ speaker", "Compare the next likely speaker, on the + side"),
                ("second", "f7", "step_speaker(True)", "− speaker", "Compare the next likely speaker, on the − side"),
                ("pair", "f8", "choose_pair", "names", "Type the names of the two speakers to compare"),
            )
        ),
    ]

    @property
    def is_idle(self) -> bool:
        """True once the current text is scored and its speaker is guessed."""
        return super().is_idle and self.query_one(WhoPane).guesser.is_idle

    @property
    def who_view(self) -> WhoView:
        """The view that is shown."""
        if not self.has_class("-who"):
            return "surprise"
        return "who" if self.query_one(WhoPane).pair is None else "pair"

    def create_footer(self) -> KeyFooter:
        """Return the footer with the keys of the shown view."""
        return KeyFooter(lambda: FOOTER_KEYS[self.who_view])

    def compose_other_view(self) -> ComposeResult:
        """Yield the pane that replaces the scores."""
        model = self._session_model.model
        assert isinstance(model, DialogueModel), "the screen is for models with a cast"
        yield WhoPane(model, id="who")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the keys of the shown view; line breaks always end a line."""
        if action == "toggle_line_ends":
            return False
        if action in ("next_view", "toggle_sentences"):
            return self.who_view == "surprise"
        if action in ("step_speaker", "choose_pair"):
            return self.who_view != "surprise"
        return super().check_action(action, parameters)

    @on(LensTextArea.Changed)
    @on(LensTextArea.SelectionChanged)
    def _guess_speaker(self) -> None:
        """Guess the speaker of the line at the text cursor, if the guess is shown."""
        if self.who_view != "surprise":
            cast, area = self._session_model.cast, self.query_one(LensTextArea)
            self.query_one(WhoPane).guess(line_at(self.shown_text, cast, area.cursor_index()))

    def action_next_who_view(self) -> None:
        """Show the next view."""
        self._show_view(WHO_VIEWS[(WHO_VIEWS.index(self.who_view) + 1) % len(WHO_VIEWS)])

    def action_step_speaker(self, is_second: bool) -> None:
        """Compare another speaker as the first or the second of the pair."""
        self.query_one(WhoPane).step_speaker(is_second)
        self._show_view("pair")

    def action_choose_pair(self) -> None:
        """Ask for the names of the two speakers to compare."""

        def compare(pair: SpeakerPair | None) -> None:
            if pair is not None:
                self.query_one(WhoPane).compare(pair)
                self._show_view("pair")

        pair = self.query_one(WhoPane).default_pair()
        self.app.push_screen(SpeakerPairDialog(self._session_model.cast, pair), compare)

    @on(WhoPane.PairChanged)
    def _show_pair_title(self) -> None:
        self.show_title(TITLES[self.who_view])

    def _show_view(self, view: WhoView) -> None:
        self.set_class(view != "surprise", "-who")
        pane, area = self.query_one(WhoPane), self.query_one(LensTextArea)
        if view == "pair":
            pane.compare_likeliest()
        else:
            pane.compare(None)
        self._guess_speaker()
        self.show_title(TITLES[view])
        self.refresh_bindings()
        if self.focused is not area:
            area.focus()  # the focused part of the other view is hidden
