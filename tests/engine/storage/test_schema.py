"""Data from files is checked value by value, and an error names the field."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidInputError
from engine.storage.files import decode, parse_json


@dataclass(frozen=True)
class Sampler:
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    mode: Literal["line", "stream"] = "line"


@dataclass(frozen=True)
class Settings:
    name: str
    temperature: float = 0.8
    sampler: Sampler = field(default_factory=Sampler)
    more: tuple[Sampler, ...] = ()


def test_a_valid_file_becomes_nested_dataclasses():
    content = '{"name": "x", "temperature": 1, "sampler": {"top_k": 3}, "more": [{"mode": "stream"}]}'
    assert decode(Settings, parse_json(content)) == Settings("x", 1.0, Sampler(3), (Sampler(mode="stream"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"name": "x", "tempreature": 1}', "unknown field 'tempreature'; did you mean temperature?"),
        ('{"name": "x", "sampler": {"topk": 1}}', "unknown field 'sampler.topk'; did you mean top_k?"),
        ("{}", "object missing required field name"),
        ('{"name": "x", "temperature": true}', "temperature: expected float, got bool"),
        ('{"name": "x", "sampler": {"top_k": -1}}', "sampler.top_k: expected int >= 0"),
        ('{"name": "x", "sampler": {"mode": "both"}}', "sampler.mode: invalid enum value 'both'"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(content, message):
    with pytest.raises(InvalidInputError) as error:
        decode(Settings, parse_json(content))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "content",
    ["{", '{"name": NaN}', "1e999", b"\xff", "[" * 100_000, b'{"name": "\xed\xa0\x80"}'],
    ids=lambda content: ascii(content[:20]),
)
def test_what_is_not_json_is_refused(content):
    with pytest.raises(InvalidInputError, match="not valid JSON"):
        parse_json(content)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_data_is_built_or_refused_in_one_line(data):
    try:
        built = decode(Settings, data)
    except InvalidInputError as error:
        built = str(error)
    assert isinstance(built, Settings) or len(built.splitlines()) == 1
