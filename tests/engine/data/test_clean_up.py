"""Clean-up of dialogue lines for tokenizers that keep punctuation."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.clean_up import repair_dialogue
from engine.data.corpus import read_csv

TEXT = st.text("ab .,!?'\"", max_size=20).map(lambda text: " ".join(text.split()))


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        (
            "Forth and fear no darkness to your death! , What are you?",
            "Forth and fear no darkness to your death! What are you?",
        ),
        ("I know your face., Eowyn. Eowyn. ,Gandalf?", "I know your face. Eowyn. Eowyn. Gandalf?"),
        (", Show yourself.", "Show yourself."),
        ("we only wish to catch a fish , so juicy sweet", "we only wish to catch a fish, so juicy sweet"),
        ("Because' , it's my birthday", "Because', it's my birthday"),
        ("the empty clothes ,, cart", "the empty clothes, cart"),
        ("Arrghh!,", "Arrghh!"),
        ('"Go!", he said, and "Stay!" , too.', '"Go!", he said, and "Stay!" too.'),
        ("Yes, 3, and 1,000 more, Mr. Frodo.", "Yes, 3, and 1,000 more, Mr. Frodo."),
        ("No comma here!", "No comma here!"),
        (",", ""),
    ],
)
def test_marks_of_removed_stage_directions_are_repaired(line: str, repaired: str) -> None:
    assert repair_dialogue(line) == repaired


@given(TEXT)
def test_a_repaired_line_has_no_space_before_a_comma_and_needs_no_further_repair(text: str) -> None:
    repaired = repair_dialogue(text)
    assert " ," not in repaired
    assert repaired == " ".join(repaired.split())
    assert repair_dialogue(repaired) == repaired


@given(TEXT)
def test_only_commas_and_spaces_change(text: str) -> None:
    def without_commas(line: str) -> str:
        return line.replace(",", "").replace(" ", "")

    assert without_commas(repair_dialogue(text)) == without_commas(text)


def test_no_line_of_the_film_dialogues_keeps_a_loose_comma(lotr_csv: Path) -> None:
    raw = read_csv(lotr_csv, "dialog", "char", 20).lines
    repaired = read_csv(lotr_csv, "dialog", "char", 20, repair=True).lines
    assert sum(" ," in line.text for line in raw) > 200
    assert not any(" ," in line.text or line.text.startswith(",") for line in repaired)
