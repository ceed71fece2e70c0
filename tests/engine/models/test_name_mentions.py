"""Names that a line mentions."""

import time

import pytest

from engine.models.name_mentions import find_mentions

CAST = ("FRODO", "SAM", "PIPPIN", "THEODEN", "KING OF THE DEAD", "O'NEIL", "ED", "2ND GUARD", "SOMEONE")


def names(text: str) -> set[str]:
    return {CAST[speaker] for speaker in find_mentions(text, CAST).named}


def addressed(text: str) -> set[str]:
    return {CAST[speaker] for speaker in find_mentions(text, CAST).addressed}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Run, Frodo, run!", {"FRODO"}),
        ("frodo and SAM went", {"FRODO", "SAM"}),
        ("Frodo's ring", set()),
        ("Samwise the brave", {"SAM"}),
        ("It is all the same, samwise", set()),
        ("Pip! Where is Pip?", {"PIPPIN"}),
        ("pip", set()),
        ("The time has come", set()),
        ("Theod is no name but Theo may be", {"THEODEN"}),
        ("the King of the Dead waits", {"KING OF THE DEAD"}),
        ("the king of the living", set()),
        ("Well, O'Neil.", {"O'NEIL"}),
        ("Ed or Edward?", {"ED"}),
        ("Someone said it", set()),
        ("Frodo-like", {"FRODO"}),
        ("", set()),
        ("[bold]Sam[/bold]", {"SAM"}),
    ],
)
def test_names_of_a_line(text: str, expected: set[str]) -> None:
    assert names(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Run, Frodo!", {"FRODO"}),
        ("run frodo", {"FRODO"}),
        ("Frodo has it", set()),
        ("Frodo has it, Sam, and Frodo knows", {"SAM"}),
        ("Hear me, King of the Dead: rise", {"KING OF THE DEAD"}),
        ("Sam , come", {"SAM"}),
    ],
)
def test_addressed_speakers(text: str, expected: set[str]) -> None:
    assert addressed(text) == expected


def test_a_name_that_two_of_the_cast_share_names_both() -> None:
    cast = ("MERRY", "MERRYDOWN", "SOMEONE")
    assert find_mentions("Merry!", cast).named == {0}
    assert find_mentions("Merryd!", cast).named == {0, 1}


def test_a_long_line_and_a_large_cast_are_searched_fast() -> None:
    cast = [*(f"NAME{'x' * (index % 30)}{index}" for index in range(5000)), "SOMEONE"]
    find_mentions("", cast)
    start = time.perf_counter()
    assert find_mentions("Namexxx " * 100_000 + "Frodo", ["FRODO", *cast]).addressed >= {0}
    assert time.perf_counter() - start < 2
