"""Names of speakers: canonical form, marks, display and lookup."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.speakers import (
    MAX_NAME_CHARACTERS,
    SOMEONE,
    display_name,
    find_speaker,
    merge_key,
    normalize_speaker,
)
from engine.errors import InvalidInputError

CAST = ("GANDALF", "FRODO", "URUK-HAI", "KING OF THE DEAD", SOMEONE)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Gandalf", "GANDALF"),
        ("\u00a0 GANDALF \u00a0", "GANDALF"),
        ("  Old\t\n man ", "OLD MAN"),
        ("(GOLLUM", "GOLLUM"),
        ("GOLLUM)", "GOLLUM"),
        ("(Gollum)", "GOLLUM"),
        ("[gollum]", "GOLLUM"),
        ("MERRY and PIPPIN", "MERRY AND PIPPIN"),
        ("EOWYN/MERRY", "EOWYN/MERRY"),
        ("Merry & Pippin", "MERRY & PIPPIN"),
        ("Mrs. Bracegirdle", "MRS BRACEGIRDLE"),
        ("O’Brien", "O'BRIEN"),
        ("Éomer", "ÉOMER"),
        ("E\u0301omer", "ÉOMER"),
        ("SOLDIER #1:", "SOLDIER 1"),
        ("SAM, FRODO", "SAM FRODO"),
        ("", ""),
        (" \u00a0\t", ""),
        ("((()", ""),
        ("...", ""),
    ],
)
def test_a_name_becomes_canonical(raw: str, name: str) -> None:
    assert normalize_speaker(raw) == (name, ())


@pytest.mark.parametrize("mark", ["VOICE OVER", "voiceover", "Voice-Over", "V.O.", "V.O", "VO", "v/o"])
@pytest.mark.parametrize("form", ["Saruman {}", "SARUMAN ({})", "SARUMAN, {}", "SARUMAN - {} ", "Saruman [{}]"])
def test_a_voice_over_is_separated_from_the_name_in_any_spelling(mark: str, form: str) -> None:
    assert normalize_speaker(form.format(mark)) == ("SARUMAN", ("VOICE OVER",))


@pytest.mark.parametrize(
    ("raw", "marks"),
    [
        ("SAM (O.S.)", ("OFF SCREEN",)),
        ("SAM OFF", ("OFF SCREEN",)),
        ("SAM OFF-SCREEN", ("OFF SCREEN",)),
        ("SAM (CONT'D)", ("CONTINUED",)),
        ("SAM CONT’D", ("CONTINUED",)),
        ("SAM (contd.)", ("CONTINUED",)),
        ("SAM (V.O.) (CONT'D)", ("VOICE OVER", "CONTINUED")),
        ("SAM V.O. CONT'D", ("VOICE OVER", "CONTINUED")),
        ("SAM VOICE", ("VOICE",)),
        ("SAM (whispering)", ("WHISPERING",)),
    ],
)
def test_marks_are_separated_from_the_name(raw: str, marks: tuple[str, ...]) -> None:
    assert normalize_speaker(raw) == ("SAM", marks)


@pytest.mark.parametrize("name", ["VOICE", "VOICE OVER", "OFF", "THE VOICE", "MAN'S VOICE", "OFFICER", "VOLDEMORT"])
def test_a_name_that_resembles_a_mark_is_kept(name: str) -> None:
    assert normalize_speaker(name) == (name, ())


TAGGED = ["\x1b[31mSAM\x1b[0m", "[bold red]Sam[/bold red]", "[b]Sam[/]", "<i>Sam</i>", "S\u200bam", "\u202eSam\x07\0"]


@pytest.mark.parametrize("raw", TAGGED)
def test_control_characters_and_markup_leave_only_the_name(raw: str) -> None:
    assert normalize_speaker(raw).name == "SAM"


def test_a_name_that_is_too_long_is_none() -> None:
    assert normalize_speaker("x" * MAX_NAME_CHARACTERS).name == "X" * MAX_NAME_CHARACTERS
    assert normalize_speaker("x" * (MAX_NAME_CHARACTERS + 1)).name == ""
    assert normalize_speaker("x" * 10_000).name == ""
    assert normalize_speaker(f"SAM ({'x' * 100})") == ("SAM", ("X" * MAX_NAME_CHARACTERS,))
    assert normalize_speaker(f"SAM{' ' * 10_000}") == ("SAM", ())
    assert normalize_speaker("[a]" * 300_000) == ("", ())


PARTS = ["GANDALF", "sam", "voice", "over", "V.O.", "OFF", "(", ")", "[", "]", "-", "'", "&", ".", "/", "\x1b[1m"]
NAMES = st.text(max_size=60) | st.lists(st.sampled_from(PARTS), max_size=8).map(" ".join)


@given(NAMES)
def test_any_text_gives_a_plain_name_that_is_its_own_canonical_form(raw: str) -> None:
    name, marks = normalize_speaker(raw)
    assert len(name) <= MAX_NAME_CHARACTERS
    assert name == " ".join(name.split())
    for text in (name, *marks):
        assert text.isprintable()
        assert not set(text) & set(":,<>[](){}")
        assert len(text) <= MAX_NAME_CHARACTERS
    assert normalize_speaker(name) == (name, ())
    assert unicodedata.is_normalized("NFKC", name)


@given(st.text("([{<", max_size=450))
def test_open_brackets_hide_no_name(raw: str) -> None:
    assert normalize_speaker(raw + "sam").name == "SAM"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("GANDALF", "Gandalf"),
        ("KING OF THE DEAD", "King of the Dead"),
        ("THE KING", "The King"),
        ("MERRY AND PIPPIN", "Merry and Pippin"),
        ("URUK-HAI", "Uruk-Hai"),
        ("EOWYN/MERRY", "Eowyn/Merry"),
        ("O'BRIEN", "O'Brien"),
        ("MAN'S VOICE", "Man's Voice"),
        ("KING RICHARD III", "King Richard III"),
        ("ÉOMER", "Éomer"),
        ("", ""),
    ],
)
def test_a_name_is_displayed_with_capitals(name: str, shown: str) -> None:
    assert display_name(name) == shown
    assert normalize_speaker(shown).name == name


class TestFindSpeaker:
    @pytest.mark.parametrize("name", ["GANDALF", "gandalf", " Gandalf (V.O.)", "GAN DALF", "Gan-dalf"])
    def test_case_marks_spaces_and_hyphens_do_not_matter(self, name: str) -> None:
        assert find_speaker(name, CAST) == "GANDALF"

    def test_names_of_several_words_are_found(self) -> None:
        assert find_speaker("King of the dead", CAST) == "KING OF THE DEAD"
        assert find_speaker("uruk hai", CAST) == "URUK-HAI"
        assert find_speaker("someone", CAST) == SOMEONE

    def test_the_nearest_name_is_suggested(self) -> None:
        with pytest.raises(
            InvalidInputError, match=r"speaker 'gandolf' is not in the cast .*; did you mean GANDALF\?$"
        ):
            find_speaker("gandolf", CAST)

    @pytest.mark.parametrize("name", ["wormtongue", "Žižek"])
    def test_the_cast_is_listed_if_no_name_is_near(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=r"use one of GANDALF, FRODO, URUK-HAI, KING OF THE DEAD, SOMEONE$"):
            find_speaker(name, CAST)

    @pytest.mark.parametrize("name", ["", " ", "\x1b", "x" * 10_000])
    def test_a_text_that_is_no_name_is_refused_in_a_short_line(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match=r"is not a name; use one of GANDALF") as caught:
            find_speaker(name, CAST)
        assert len(str(caught.value)) < 200

    def test_a_long_cast_is_not_listed_whole(self) -> None:
        cast = [f"SOLDIER {number}" for number in range(5000)]
        with pytest.raises(InvalidInputError, match=r"SOLDIER 11, …$"):
            find_speaker("x", cast)


@given(st.permutations(["GAN DALF", "GANDALF", "GAN-DALF"]))
def test_names_that_differ_in_spaces_and_hyphens_have_one_key(names: list[str]) -> None:
    assert {merge_key(name) for name in names} == {"GANDALF"}
