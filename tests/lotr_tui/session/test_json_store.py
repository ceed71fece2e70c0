"""What was kept: checked value by value when read, moved out of the way where it is damaged."""

from dataclasses import dataclass
from typing import Literal

import pytest

from engine.errors import UnusableInput
from lotr_tui.session.json_store import check_version, fits, from_record, parse, set_aside


@dataclass(frozen=True)
class Pony:
    name: str
    age: int | None = None


def test_a_record_becomes_what_it_tells_of():
    assert from_record(Pony, {"name": "rosa"}) == Pony("rosa")
    assert from_record(Pony, {"name": "rosa", "age": [7]}, age=lambda value: value[0]) == Pony("rosa", 7)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ([], "fields of Pony"),
        ({}, "name is missing"),
        ({"name": "rosa", "wings": 2}, "unknown field 'wings'"),
        ({"name": "rosa", "age": 7.0}, "age 7.0 is of the wrong type"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(record, why):
    with pytest.raises(UnusableInput, match=why):
        from_record(Pony, record)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (True, bool, True),
        (1, float, True),
        (1.0, int, False),
        (float("inf"), float, False),
        (2**63, int, False),
        (-(2**63), int, True),
        (None, int | None, True),
        ("b", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
    ],
)
def test_a_value_fits_its_type_or_not(value, hint, expected):
    assert fits(value, hint) is expected


@pytest.mark.parametrize("version", [None, "1", True, 0, 3])
def test_another_version_is_refused(version):
    check_version(2, 2)
    with pytest.raises(UnusableInput):
        check_version(version, 2)


@pytest.mark.parametrize("text", ["", "NaN", "[Infinity]", "[" * 100_000])
def test_what_is_not_json_is_refused(text):
    assert parse("[1]") == [1]
    with pytest.raises(UnusableInput, match="not JSON"):
        parse(text)


def test_no_file_set_aside_takes_the_place_of_another(tmp_path):
    for number in (1, 2):
        (tmp_path / "kept").write_text(f"damage {number}")
        assert f"set aside as kept.damaged-{number}" in set_aside(tmp_path / "kept", UnusableInput("damage"))
    assert [(tmp_path / f"kept.damaged-{n}").read_text() for n in (1, 2)] == ["damage 1", "damage 2"]


def test_what_is_gone_already_cannot_be_set_aside(tmp_path):
    assert "cannot be set aside" in set_aside(tmp_path / "gone", UnusableInput("damage"))
    assert list(tmp_path.iterdir()) == []
