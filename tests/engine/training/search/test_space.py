"""Ranges and choices of settings, and what is refused in one line."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.training.search.space import Choice, Range, parse_space


def test_ranges_choices_and_single_values_are_told_apart():
    fixed, space = parse_space(
        ["lr=0.002..0.02", "hidden_size=200..500", "optimizer=adamw,sgd", "tie_weights=yes,no", "epochs=40",
         "teachers=a,b", "corpus=../a..b.txt"]
    )  # fmt: skip
    assert fixed == ["epochs=40", "teachers=a,b", "corpus=../a..b.txt"]
    assert space.dimensions == (
        Range("lr", 0.002, 0.02, is_integer=False, is_logarithmic=True),
        Range("hidden_size", 200, 500, is_integer=True, is_logarithmic=False),
        Choice("optimizer", ("adamw", "sgd")),
        Choice("tie_weights", (True, False)),
    )
    assert space.size == math.inf


def test_the_last_value_of_a_setting_counts():
    fixed, space = parse_space(["lr=0.1", "clip=1..2", "lr=0.01..0.02", "clip=3"])
    assert (fixed, [dimension.name for dimension in space.dimensions]) == (["clip=3"], ["lr"])


@pytest.mark.parametrize(
    ("assignment", "is_logarithmic"),
    [
        ("lr=0.01..0.05", True),  # a factor of 5
        ("lr=0.01..0.04", False),
        ("weight_decay=0..1", False),
        ("input_dropout=0.1..0.9", False),  # a fraction
        ("input_dropout=0.1..0.9:log", True),
        ("hidden_size=100..800", True),
        ("hidden_size=100..800:linear", False),
    ],
)
def test_wide_positive_ranges_are_logarithmic_unless_they_are_of_fractions(assignment, is_logarithmic):
    (dimension,) = parse_space([assignment])[1].dimensions
    assert isinstance(dimension, Range)
    assert dimension.is_logarithmic is is_logarithmic


@given(st.floats(1e-9, 1000), st.floats(1e-9, 1000), st.booleans())
def test_a_range_survives_its_text_and_rounding_stays_inside(first, last, is_logarithmic):
    low, high = sorted((first, last))
    if low == high:
        return
    dimension = Range("lr", low, high, is_integer=False, is_logarithmic=is_logarithmic)
    assert parse_space([dimension.to_text()]) == ([], parse_space([dimension.to_text()])[1])
    assert parse_space([dimension.to_text()])[1].dimensions == (dimension,)
    for value in (low, high, (low + high) / 2):
        rounded = dimension.round(value)
        assert rounded in dimension
        assert rounded == pytest.approx(value, rel=1e-3)


def test_combinations_of_a_finite_space():
    _, space = parse_space(["optimizer=adamw,sgd", "num_layers=1..3"])
    combinations = list(space.combinations())
    assert len(combinations) == space.size == 6
    assert {"optimizer": "sgd", "num_layers": 3} in combinations
    assert all(combination in space for combination in combinations)
    assert {"optimizer": "sgd", "num_layers": 4} not in space
    assert {"optimizer": "sgd"} not in space


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("lr=0.02..0.002", "is reversed; use lr=0.002..0.02"),
        ("lr=1..1", "has one value; use lr=1"),
        ("lrr=1..2", "unknown setting 'lrr'; did you mean lr?"),
        ("hidden_size=1.5..4", "hidden_size=1.5 is not a whole number"),
        ("hidden_size=1..99999", "hidden_size=99999 is not a whole number from 1 to 16384"),
        ("lr=nan..1", "lr=nan is not a number"),
        ("lr=0.1..", "lr= is not a number"),
        ("optimizer=adamw..sgd", "use optimizer=adamw,adam,sgd"),
        ("optimizer=adamw,adm", "did you mean adam?"),
        ("lr=0.1,0.1", "has a value twice"),
        ("weight_decay=0..1:log", "which has no logarithm"),
        ("lr=0.1..1:lg", "use log or linear"),
        ("min_count=1..5", "such perplexities do not compare"),
        ("max_eval_tokens=10,20", "such perplexities do not compare"),
        ("seed=0..9", "no value makes a better model"),
        ("lr", "is not of the form key=value"),
    ],
)
def test_invalid_ranges_are_refused_in_one_line(assignment, message):
    with pytest.raises(ConfigError) as refused:
        parse_space([assignment])
    assert message in str(refused.value)
