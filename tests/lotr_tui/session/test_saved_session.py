"""Format of a saved session: encoding, decoding, and refusal of damaged lines."""

import pytest
from hypothesis import given, settings

from engine.errors import InvalidInputError
from lotr_tui.session.session_file import Session, encode_session, parse_session
from tests.support.sessions import changed_reply_lines, header_line, records_of, reply_trees

SCORE = {"rank": 1, "num_answers": 8, "log_prob": -20.0, "log_prob_alone": -25.0, "num_tokens": 9}


@given(reply_trees())
@settings(max_examples=25)
def test_encoded_session_is_decoded_unchanged(replies):
    session = Session("x", "bundled", 1.7e9, {reply.id: reply for reply in replies}, 0 if replies else None)
    parsed = parse_session("x", encode_session(session))
    assert records_of(parsed) == records_of(session)
    assert (parsed.model, parsed.started, parsed.current_id) == (session.model, session.started, session.current_id)


# Damage


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line does not describe a session"), (b"\xff\xfe\n", "not valid JSON"),
        (b"[" * 100_000 + b"\n", "not valid JSON"), (b'{"song": {}}\n', "neither"), (header_line(version=6), "newer"),
        (header_line(version=4), "written by an older lotr-tui (format 4)"), (header_line(version=None), "version"),
        (header_line(started=1e17), "started 1e+17 is not a time"),
        (header_line(model="\x1b[31m"), "model is not a printable name"), (changed_reply_lines(id=...), "id"),
        (changed_reply_lines(seed=2**63), "seed: expected int <= "),
        (changed_reply_lines(parent_offset=1), "parent_offset 1 of reply 0 is out of range"),
        (changed_reply_lines(parent_id=0), "continues reply 0"),
        (changed_reply_lines(reply_mode="sing"), "reply_mode: invalid enum value 'sing'"),
        (changed_reply_lines(settings={"temperature": -1}), "temperature -1"),
        (changed_reply_lines(tokens=[[1, "a", -1.0, 0.5, 1]]), "tokens[0]: expected array of length 7"),
        (changed_reply_lines(tokens=[[1, "a\x1b[0m", -1.0, 0.5, 1, 2.0, "a"]]), "tokens of reply 0: control"),
        (changed_reply_lines(tokens=[[1, "a", -1.0, 1e300, 1, 2.0, "a"]]), "tokens[0][3]: expected float < "),
        (changed_reply_lines(speaker="\x1b[31m"), "speaker of reply 0: control characters"),
        (changed_reply_lines(speaker_prob=1.5), "speaker_prob: expected float <= 1"),
        (changed_reply_lines(score=SCORE | {"rank": 0}), "score.rank: expected int >= 1"),
        (changed_reply_lines(token=[]), "unknown field 'token'; did you mean tokens?"),
    ],
)  # fmt: skip
def test_damaged_line_is_refused_with_the_name_of_the_field(content, message):
    with pytest.raises(InvalidInputError) as raised:
        parse_session("x", content)
    assert message in str(raised.value)
