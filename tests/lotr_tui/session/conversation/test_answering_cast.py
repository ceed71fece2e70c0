"""Who can answer a line: someone who is called by name, or else everybody but the user."""

import pytest

from lotr_tui.session.conversation.cast import answering_cast

CAST = ("STRANGER", "GANDALF", "SAM", "KING OF THE DEAD", "URUK-HAI", "GOLLUM", "SOMEONE")
OTHERS = ("GANDALF", "SAM", "KING OF THE DEAD", "URUK-HAI", "GOLLUM")


@pytest.mark.parametrize(
    ("line", "called"),
    [
        ("Gollum, do you want the Ring?", ("GOLLUM",)),
        ("hello gandalf", ("GANDALF",)),
        ("Thank you, Sam.", ("SAM",)),
        ("Good night, Sam! Good night, Gandalf!", ("GANDALF", "SAM")),
        ("where is frodo, sam", ("SAM",)),
        ("Sam", ("SAM",)),
        ("Where is Mr. Gollum, Sam?", ("SAM",)),
        ("Mr. Gollum, come back!", ("GOLLUM",)),
        ("Thank you, master Sam.", ("SAM",)),
        ("He is a man. Sam, come!", ("SAM",)),
        ("Who are you, King  of the dead?", ("KING OF THE DEAD",)),
        ("Hey uruk hai!", ("URUK-HAI",)),
        ("Do you know Gollum?", OTHERS),
        ("What do you think of Sam", OTHERS),
        ("Gandalf is old.", OTHERS),
        ("Samwise, come!", OTHERS),
        ("Stranger, who are you?", OTHERS),
        ("", OTHERS),
    ],
)
def test_who_is_called_by_name_answers(line: str, called: tuple[str, ...]) -> None:
    assert answering_cast(CAST, "", line) == called


def test_the_user_does_not_answer() -> None:
    assert answering_cast(CAST, "SAM", "Sam, I say!") == ("GANDALF", "KING OF THE DEAD", "URUK-HAI", "GOLLUM")
    assert answering_cast(("SAM", "SOMEONE"), "SAM", "Hello!") == ("SAM", "SOMEONE")


def test_names_are_no_patterns() -> None:
    cast = ("A.B", "C++", "(D", "SOMEONE")
    assert answering_cast(cast, "", "axb, come") == ("A.B", "C++", "(D")
    assert answering_cast(cast, "", "hello A.B!") == ("A.B",)


def test_a_line_of_any_length_is_searched_at_once() -> None:
    assert answering_cast(CAST, "", ", " * 50_000 + "Sam!") == ("SAM",)
    assert answering_cast(CAST, "", "Sam " * 50_000) == OTHERS
