"""Clean-up of dialogue lines for tokenizers that keep punctuation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.clean_up import repair_dialogue
from engine.data.corpus import read_csv

TEXT = st.text("ab .,!?'\"", max_size=20).map(lambda text: " ".join(text.split()))


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("Fear no darkness to your death! , What are you?", "Fear no darkness to your death! What are you?"),
        ("I know your face., Eowyn. Eowyn. ,Gandalf?", "I know your face. Eowyn. Eowyn. Gandalf?"),
        (", Show yourself.", "Show yourself."),
        ("Because' , it's my birthday", "Because', it's my birthday"),
        ("Arrghh!,,", "Arrghh!"),
        ('"Go!", he said, and "Stay!" , too.', '"Go!", he said, and "Stay!" too.'),
        ("Yes, 3, and 1,000 more, Mr. Frodo.", "Yes, 3, and 1,000 more, Mr. Frodo."),
    ],
)
def test_marks_of_removed_stage_directions_are_repaired(line, repaired):
    assert repair_dialogue(line) == repaired


@given(TEXT)
def test_a_repaired_line_has_no_loose_comma_and_keeps_everything_else(text):
    repaired = repair_dialogue(text)
    assert " ," not in repaired
    assert repaired == " ".join(repaired.split())
    assert repair_dialogue(repaired) == repaired
    assert repaired.replace(",", "").replace(" ", "") == text.replace(",", "").replace(" ", "")


def test_no_line_of_the_film_dialogues_keeps_a_loose_comma(lotr_csv):
    raw = read_csv(lotr_csv, "dialog", "char", 20).lines
    repaired = read_csv(lotr_csv, "dialog", "char", 20, repair=True).lines
    assert sum(" ," in line.text for line in raw) > 200
    assert not any(" ," in line.text or line.text.startswith(",") for line in repaired)
