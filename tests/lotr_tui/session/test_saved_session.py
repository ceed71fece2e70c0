"""Format of a saved session: encoding, decoding, and refusal of damaged lines."""

import json

import pytest
from hypothesis import given, settings

from engine.errors import InvalidInputError
from lotr_tui.session.saved_session import SavedSession, encode_session, parse_session, reply_record
from tests.support.sessions import changed_reply_lines, header_line, reply_trees, saved_reply

SCORE = {"rank": 1, "num_answers": 8, "log_prob": -20.0, "log_prob_alone": -25.0, "num_tokens": 9}


@given(reply_trees())
@settings(max_examples=25)
def test_encoded_session_is_decoded_unchanged(replies):
    session = SavedSession("x", "bundled", 1.7e9, tuple(replies), replies[0].id if replies else None)
    assert parse_session("x", encode_session(session)) == session


# Damage


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the first line does not describe a session"),
        (b"\xff\xfe\n", "not valid JSON"),
        (b"[" * 100_000 + b"\n", "not valid JSON"),
        (b'{"song": {}}\n', "neither"),
        (header_line(version=5), "newer"),
        (header_line(version=None), "version"),
        (header_line(started=1e17), "started 1e+17 is not a time"),
        (header_line(model="\x1b[31m"), "model is not a printable name"),
        (changed_reply_lines(id=...), "id"),
        (changed_reply_lines(seed=2**63), "seed: expected int <= "),
        (changed_reply_lines(parent_offset=1), "parent_offset 1 of reply 0 is out of range"),
        (changed_reply_lines(parent_id=0), "continues reply 0"),
        (changed_reply_lines(reply_mode="sing"), "reply_mode: invalid enum value 'sing'"),
        (changed_reply_lines(settings={"temperature": -1}), "temperature -1"),
        (changed_reply_lines(tokens=[[1, "a", -1.0, 0.5, 1]]), "tokens[0]: expected array of length 6"),
        (changed_reply_lines(tokens=[[1, "a\x1b[0m", -1.0, 0.5, 1, 2.0]]), "tokens of reply 0: control characters"),
        (changed_reply_lines(tokens=[[1, "a", -1.0, 1e300, 1, 2.0]]), "tokens[0][3]: expected float < "),
        (changed_reply_lines(speaker="\x1b[31m"), "speaker of reply 0: control characters"),
        (changed_reply_lines(speaker_prob=1.5), "speaker_prob: expected float <= 1"),
        (changed_reply_lines(score=SCORE | {"rank": 0}), "score.rank: expected int >= 1"),
        (changed_reply_lines(token=[]), "unknown field 'token'; did you mean tokens?"),
    ],
)
def test_damaged_line_is_refused_with_the_name_of_the_field(content, message):
    with pytest.raises(InvalidInputError) as raised:
        parse_session("x", content)
    assert message in str(raised.value)


def test_session_of_the_second_format_has_no_speakers():
    record = json.loads(json.dumps(reply_record(saved_reply(reply_mode="reply"))))
    for field in ("speaking_as", "speaker", "speaker_prob", "score"):
        del record["reply"][field]
    content = header_line(version=2) + json.dumps(record).encode() + b"\n"
    assert parse_session("x", content).replies == (saved_reply(reply_mode="reply"),)


def test_pieces_that_earlier_versions_did_not_save_are_those_of_words():
    prompted = saved_reply(text="a friend <eos> of", reply_mode="reply")
    continued = saved_reply(1, text="a friend")
    branch = saved_reply(2, 0, 3, prompt=None, text="mine <eos>", reply_mode="reply")
    again = saved_reply(3, 2, 0, prompt=None, text="tower", reply_mode="reply")
    records = [json.loads(json.dumps(reply_record(reply))) for reply in (prompted, continued, branch, again)]
    for record in records:
        record["reply"]["tokens"] = [token[:6] for token in record["reply"]["tokens"]]
        del record["reply"]["tokenizer"], record["reply"]["num_reread_tokens"]
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    replies = parse_session("x", header_line() + lines).replies
    pieces = [[token.piece for token in reply.tokens] for reply in replies]
    assert pieces == [["a", " friend", "\n", "of"], [" a", " friend"], ["mine", "\n"], ["tower"]]
    assert [reply.text for reply in replies] == ["a friend\nof", "a friend", "mine\n", "tower"]
