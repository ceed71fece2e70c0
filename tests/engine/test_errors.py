"""Error messages: one printable line, shortened in the middle, and the nearest valid name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import errors
from engine.errors import MAX_MESSAGE_LENGTH, LotrError, TrainingError, describe_error, install_command, printable

ANY_TEXT = st.text(st.characters())  # lone surrogates and controls too


@given(ANY_TEXT)
def test_printable_text_is_one_line_without_control_characters(text):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert str(LotrError(text)) == shown


@pytest.mark.parametrize("size", [2_000, 2_001, 1_000_000])
def test_a_long_message_keeps_its_start_and_its_end(size):
    text = f"mode={'x' * (size - 19)} is none of it"
    assert len(text) == size
    message = str(LotrError(text))
    assert len(message) <= MAX_MESSAGE_LENGTH
    assert (message == text) == (size <= MAX_MESSAGE_LENGTH)
    assert message.startswith("mode=xxx")
    assert message.endswith("xxx is none of it")


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        (1, [LotrError, TrainingError]),
        (2, [errors.InvalidInputError, errors.CorpusError, errors.ConfigError, errors.PromptError, errors.RunError]),
    ],
)
def test_failures_while_running_exit_with_1_and_invalid_input_with_2(code, kinds):
    assert {kind("x").exit_code for kind in kinds} == {code}


def test_describe_error_adds_the_type_of_foreign_exceptions():
    assert describe_error(TrainingError(" no\x1b[2J room\n")) == "no\ufffd[2J room"
    assert describe_error(ValueError("a\x07\nb")) == "ValueError: a\ufffd b"


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("defualt", "; did you mean default?"),
        ("note", "; did you mean notebook?"),
        ("nbk", "."),
        ("zzz", "."),
        ("", "."),
    ],
)
def test_suggest_nearest_names_the_closest_or_ends_the_sentence(name, ending):
    assert errors.suggest_nearest(name, ["default", "tiny", "notebook"]) == ending


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ('{"url": "file:///home/frodo/my%20shire", "dir_info": {"editable": true}}', "/home/frodo/my shire"),
        ('{"url": "https://example.org/lotr_tui-1.0-py3-none-any.whl"}', "lotr-tui"),
        (None, "lotr-tui"),
    ],
    ids=["checkout", "download", "index"],
)
def test_an_extra_is_installed_from_where_the_program_came(origin, source, tmp_path, monkeypatch):
    (tmp_path / "lotr_tui-9.dist-info").mkdir()
    (tmp_path / "lotr_tui-9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lotr-tui\nVersion: 9\n")
    if origin is not None:
        (tmp_path / "lotr_tui-9.dist-info" / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(tmp_path)
    assert install_command("hf") == f"pip install '{source}[hf]'"
