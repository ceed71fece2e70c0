"""Names of speakers: canonical form, marks, display and lookup."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import speakers
from engine.errors import InvalidInputError

CAST = ("GANDALF", "FRODO", "URUK-HAI", "KING OF THE DEAD", speakers.SOMEONE)
SPELLINGS = {
    "GANDALF": ["Gandalf", "\u00a0 GANDALF \u00a0"], "OLD MAN": ["  Old\t\n man "],
    "GOLLUM": ["(GOLLUM", "GOLLUM)", "(Gollum)", "[gollum]"], "MERRY AND PIPPIN": ["MERRY and PIPPIN"],
    "MRS BRACEGIRDLE": ["Mrs. Bracegirdle"], "O'BRIEN": ["O’Brien"], "ÉOMER": ["Éomer", "E\u0301omer"],
    "SOLDIER 1": ["SOLDIER #1:"], "SAM FRODO": ["SAM, FRODO"],
    "SAM": ["\x1b[31mSAM\x1b[0m", "[bold red]Sam[/bold red]", "<i>Sam</i>", "\u202eS\u200bam\x07\0"],
    "": ["", " \u00a0\t", "((()", "..."],
}  # fmt: skip
RESEMBLE_A_MARK = ["VOICE", "VOICE OVER", "OFF", "THE VOICE", "MAN'S VOICE", "OFFICER", "VOLDEMORT"]


@pytest.mark.parametrize(("name", "spellings"), [*SPELLINGS.items(), *((name, [name]) for name in RESEMBLE_A_MARK)])
def test_a_name_becomes_canonical(name, spellings):
    for raw in spellings:
        assert speakers.normalize_speaker(raw) == name, ascii(raw)


@pytest.mark.parametrize("form", ["Saruman {}", "SARUMAN ({})", "SARUMAN, {}", "SARUMAN - {} ", "Saruman [{}]"])
def test_a_voice_over_is_left_out_in_any_spelling(form):
    for mark in ("VOICE OVER", "voiceover", "Voice-Over", "V.O.", "V.O", "VO", "v/o"):
        assert speakers.normalize_speaker(form.format(mark)) == "SARUMAN"


def test_marks_and_remarks_beside_a_name_are_left_out():
    for raw in (
        "SAM (O.S.)",
        "SAM OFF",
        "SAM OFF-SCREEN",
        "SAM (CONT'D)",
        "SAM CONT’D",
        "SAM V.O. CONT'D",
        "SAM (softly)",
    ):
        assert speakers.normalize_speaker(raw) == "SAM"


def test_a_name_that_is_too_long_is_none():
    assert speakers.normalize_speaker("x" * speakers.MAX_NAME_CHARACTERS) == "X" * speakers.MAX_NAME_CHARACTERS
    assert speakers.normalize_speaker("x" * (speakers.MAX_NAME_CHARACTERS + 1)) == ""
    assert speakers.normalize_speaker(f"SAM ({'x' * 100})") == "SAM"
    assert speakers.normalize_speaker(f"SAM{' ' * 10_000}") == "SAM"
    assert speakers.normalize_speaker("[a]" * 300_000) == ""


PARTS = ["GANDALF", "sam", "voice", "over", "V.O.", "OFF", "(", ")", "[", "]", "-", "'", "&", ".", "/", "\x1b[1m"]
NAMES = st.text(max_size=60) | st.lists(st.sampled_from(PARTS), max_size=8).map(" ".join)


@given(NAMES)
def test_any_text_gives_a_plain_name_that_is_its_own_canonical_form(raw):
    name = speakers.normalize_speaker(raw)
    assert name == " ".join(name.split())
    assert name.isprintable()
    assert not set(name) & set(":,<>[](){}")
    assert len(name) <= speakers.MAX_NAME_CHARACTERS
    assert speakers.normalize_speaker(name) == name
    assert unicodedata.is_normalized("NFKC", name)


@given(st.text("([{<", max_size=450))
def test_open_brackets_hide_no_name(raw):
    assert speakers.normalize_speaker(raw + "sam") == "SAM"


@pytest.mark.parametrize(
    "shown",
    ["King of the Dead", "The King", "Uruk-Hai", "Eowyn/Merry", "O'Brien", "Man's Voice", "King Richard III", ""],
)
def test_a_name_is_displayed_with_capitals(shown):
    assert speakers.display_name(shown.upper()) == shown
    assert speakers.normalize_speaker(shown) == shown.upper()


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("GANDALF", ["GANDALF", "gandalf", " Gandalf (V.O.)", "GAN DALF", "Gan-dalf"]),
        ("KING OF THE DEAD", ["King of the dead"]),
        ("URUK-HAI", ["uruk hai"]),
        (speakers.SOMEONE, ["someone"]),
    ],
)
def test_a_speaker_is_found_whatever_case_marks_spaces_and_hyphens_are_typed(name, typed):
    assert {speakers.find_speaker(each, CAST) for each in typed} == {name}
    assert len({each.translate(speakers.JOINED) for each in typed if each.isupper()}) <= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gandolf", r"speaker 'gandolf' is not in the cast .*; did you mean GANDALF\?$"),
        ("Žižek", r"use one of GANDALF, FRODO, URUK-HAI, KING OF THE DEAD, SOMEONE$"),
        ("\x1b", "is not a name; use one of GANDALF"),
        ("x" * 10_000, "is not a name; use one of GANDALF"),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_an_unknown_speaker_is_refused_with_the_nearest_names(name, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        speakers.find_speaker(name, CAST)
    assert len(str(caught.value)) < 200


def test_gandalf_answers_or_else_the_first_who_is_no_stranger():
    assert speakers.first_to_answer(("STRANGER", "SAM", "GANDALF", "SOMEONE")) == "GANDALF"
    assert speakers.first_to_answer(("STRANGER", "ROMEO", "SOMEONE")) == "ROMEO"
    assert speakers.first_to_answer(("STRANGER", "SOMEONE")) == "STRANGER"
