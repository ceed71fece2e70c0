"""Cleaning of hand-made books, and properties of every cleaned paragraph."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.tales.cleaning import clean_body, clean_paragraph, lower_opening
from tests.support.tales import PROSE

CLEANED_PROSE = " ".join(PROSE.split())

MARKED_TEXT = st.text(
    st.one_of(st.sampled_from(list("ab AZ.,;!?()[]12--—“”‘’'\"*_ \n\u00a0…`\u0301|")), st.characters(codec="utf-8"))
)


def cleaned(*blocks, between="\n\n"):
    """Return the paragraphs of a body whose first block is prose, without that block."""
    first, *others = clean_body(between.join([PROSE.strip(), *blocks]))
    assert first == CLEANED_PROSE
    return others


class TestParagraph:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("“It’s ‘late’,” he said.", "\"It's 'late',\" he said."),
            ("He said—and _meant_ it – so.", "He said--and meant it--so."),
            ("It was -- well -- late.", "It was--well--late."), ("Stop----", "Stop--"),
            ("Wait . . . what? And … so", "Wait ... what? And ... so"),
            ("A coracle [simple boat] came[12], and sank.[Footnote 3: Not at once.]", "A coracle came, and sank."),
            ("They lived “happily.”(3)", 'They lived "happily."'),
            ("Do (1) this and (2) that.", "Do (1) this and (2) that."),
            ("*THE* INTERIOR* of it", "THE INTERIOR of it"), ("Pega\u0304na, cafe\u0301", "Peg\u0101na, caf\u00e9"),
        ],
    )  # fmt: skip
    def test_typography_becomes_plain_and_notes_go(self, text, expected):
        assert clean_paragraph(text) == expected

    @given(MARKED_TEXT)
    def test_a_cleaned_paragraph_has_no_marker_and_no_line_break_and_stays_as_it_is(self, text):
        paragraph = clean_paragraph(text)
        assert not re.search(r"[_*|\[\]“”‘’—–…\u00a0\u00ad]|\s\s|[^\S ]|^ | $", paragraph)
        assert clean_paragraph(paragraph) == paragraph


VERSE = "    The moon is high,\n    And the water low;\n      And who will row?\n      --Old Song"
CONTENTS = "CONTENTS\n\n  I. The Ferry      11\n  II. The Net . . . 17\n\n  Afterword"
SPLIT_BY_A_PAGE = [
    "They went down to the water, and there they saw that the old boat of the\nferryman had",
    "38               Full page line-art drawing.",
    "37\nbeen stolen, with the oars.",
]


class TestLayout:
    @pytest.mark.parametrize(
        ("blocks", "expected"),
        [
            (["It was a well-\nknown thing--\nso he said\nto me."], ["It was a well-known thing--so he said to me."]),
            (["a two-\nor three-year-old horse came."], ["a two- or three-year-old horse came."]),
            (["“Yes.”", "“No?” said he.", "“NO!”"], ['"Yes."', '"No?" said he.', '"NO!"']),
            ([VERSE], ["The moon is high,", "And the water low;", "And who will row?"]),
            ([PROSE.replace("nobody", "Nobody")], [CLEANED_PROSE.replace("nobody", "Nobody")]),  # full lines, no verse
            (SPLIT_BY_A_PAGE, [f"{' '.join(SPLIT_BY_A_PAGE[0].split())} been stolen, with the oars."]),
        ],
        ids=["wrapped", "hanging hyphen", "dialogue", "verse", "capitals", "page number"],
    )
    def test_lines_become_paragraphs(self, blocks, expected):
        assert cleaned(*blocks) == expected


class TestFurniture:
    @pytest.mark.parametrize(
        "block",
        [
            *("* * * * *", "------", "[Illustration: The ferry by night]", "[1] Vulture.", "(3) Grimm.", "12", "IV."),
            *("[Footnote 2: In the old tongue,\na boat.]", "* Newly rough-cast.", "CHAPTER IV", "BOOK TWO", "THE END"),
            *("Produced by A. Volunteer and the Online Distributed\nProofreading Team", "Chapter 4. The Ferry"),
            *("[Transcriber's note: the macron has been left out.]", "This e-text was made from the 1907 edition."),
            *("THE FERRY COMES BACK", "ἐν ἀρχῇ ἦν ὁ λόγος", "(From the Portuguese.)", "CHAPTER 2\n\nWhat Did He?"),
        ],
    )
    def test_headings_notes_and_separators_go(self, block):
        assert cleaned(block, "“Yes,” said he.") == ['"Yes," said he.']

    def test_title_page_and_contents_go_and_a_preface_stays(self):
        title = "THE FERRY\n\nby\n\nA. Nobody\n\nAuthor of “The Net,” etc."
        assert clean_body(f"{title}\n\n{CONTENTS}\n\n\nCHAPTER I\n\n{PROSE}") == [CLEANED_PROSE]
        assert cleaned("CONTENTS\n\n  The Ferry\n  The Net", PROSE) == [CLEANED_PROSE]

    def test_the_source_of_a_tale_goes_and_its_last_sentence_stays(self):
        end = ("THE NEXT TALE", "There was a king.")
        assert cleaned("They lived long.", "Grimm.", *end) == ["They lived long.", "There was a king."]
        for last in ("So it is.", "It is.", "“Grimm.”", "Oh Grimm!"):
            assert len(cleaned("They lived long.", last, *end)) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SQUIRE TRELAWNEY, Dr. Livesey, and the rest", "Squire Trelawney, Dr. Livesey, and the rest"),
        ('"STOP! he cried', '"Stop! he cried'),
        ("I saw A. B. Smith", "I saw A. B. Smith"),
        ("STOP!", "STOP!"),
    ],
)
def test_capitals_at_the_start_of_a_chapter_become_a_sentence(text, expected):
    assert lower_opening(text, {"once", "the", "little", "have", "stop", "a"}) == expected
