"""Ranges and choices of settings, proposals of settings, successive halving, and the replay of earlier trials."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.training.search.plan import SearchPlan
from engine.training.search.records import TrialRecord
from engine.training.search.space import Choice, Range, parse_space
from engine.training.search.study import SearchStudy
from tests.support.training import make_config


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


def test_wide_positive_ranges_are_logarithmic_unless_they_are_of_fractions():
    def is_logarithmic(assignment):
        return parse_space([assignment])[1].dimensions[0].is_logarithmic

    assert all(map(is_logarithmic, ["lr=0.01..0.05", "input_dropout=0.1..0.9:log", "hidden_size=100..800"]))
    others = ["lr=0.01..0.04", "weight_decay=0..1", "input_dropout=0.1..0.9", "hidden_size=100..800:linear"]
    assert not any(map(is_logarithmic, others))


@given(st.floats(1e-9, 1000), st.floats(1e-9, 1000), st.booleans())
def test_a_range_survives_its_text_and_rounding_stays_inside(first, last, is_logarithmic):
    low, high = sorted((first, last))
    if low == high:
        return
    dimension = Range("lr", low, high, is_integer=False, is_logarithmic=is_logarithmic)
    assert parse_space([dimension.to_text()])[1].dimensions == (dimension,)
    for value in (low, high, (low + high) / 2):
        rounded = dimension.round(value)
        assert rounded in dimension
        assert rounded == pytest.approx(value, rel=1e-3)


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


RUNGS = (0.25, 0.5, 1.0)
SPACE = parse_space(["lr=0.001..0.1", "num_layers=1..3", "optimizer=adamw,sgd"])[1]


def proposed_settings(seed, count=14):
    study = SearchStudy(SPACE, seed, RUNGS)
    settings = []
    for _ in range(count):
        proposal = study.propose()
        settings.append(proposal.settings)
        study.finish(proposal, "complete", float(proposal.settings["lr"]))
    return settings


def test_the_seed_determines_the_proposals():
    assert proposed_settings(3) == proposed_settings(3)
    assert proposed_settings(3) != proposed_settings(4)
    assert all(settings in SPACE for settings in proposed_settings(3))


def test_the_worse_half_is_pruned_at_each_rung():
    study = SearchStudy(SPACE, 0, RUNGS)
    proposals = [study.propose() for _ in range(4)]
    assert not any(proposal.report(0.24, 1000.0) for proposal in proposals)  # before the first rung
    # Each is compared with those that came before: 12 is worse than 10, and 11 not among the best 2 of 4.
    assert [proposal.report(0.25, value) for proposal, value in zip(proposals, (10, 12, 9, 11), strict=True)] == [
        False, True, False, True,
    ]  # fmt: skip
    first, third = proposals[0], proposals[2]
    assert not first.report(0.4, 500.0)
    assert not first.report(0.5, 8.0)
    assert third.report(0.55, 8.5)  # the first evaluation after half of the run
    late = study.propose()
    assert late.report(0.6, 8.2)  # good enough for the first rung, but not for the second
    assert not study.propose().report(1.0, 7.0)


@pytest.mark.parametrize(
    ("schedule", "assignment", "rungs"),
    [
        ("one_cycle", "lr=1..2", (0.66, 1, 2)),
        ("constant", "lr=1..2", (0.25, 0.5, 1, 2)),
        ("constant", "schedule=constant,one_cycle", (0.66, 1, 2)),
    ],
)
def test_trials_are_compared_late_where_the_learning_rate_falls(schedule, assignment, rungs):
    plan = SearchPlan(make_config(schedule=schedule), parse_space([assignment])[1], (0, 1), "")
    assert plan.rungs == rungs


def test_every_combination_of_a_finite_space_is_proposed_once():
    _, space = parse_space(["optimizer=adamw,sgd", "num_layers=1..3"])
    study = SearchStudy(space, 0, RUNGS)
    seen = []
    while (proposal := study.propose()) is not None:
        seen.append(proposal.settings)
        study.finish(proposal, "complete", 1.0)
    assert sorted(map(str, seen)) == sorted(map(str, space.combinations()))


def test_replayed_trials_decide_and_guide_as_they_did():
    settings = {"lr": 0.01, "num_layers": 1, "optimizer": "sgd"}
    reports = [(0.25, 10.0), (0.5, 9.0), (1.0, 8.0)]
    study = SearchStudy(SPACE, 0, RUNGS)
    study.finish(study.replay(TrialRecord(0, "complete", settings, ["r"], [8.0], reports)), "complete", 8.0)
    assert study.propose().report(0.25, 10.5)
    better = study.propose()
    assert not better.report(0.25, 9.5)
    assert better.report(0.5, 9.5)


def test_importances_need_ten_complete_trials_and_name_the_setting_that_matters():
    study = SearchStudy(SPACE, 1, RUNGS)
    for number in range(30):
        assert bool(study.importances()) == (number >= 10)
        proposal = study.propose()
        study.finish(proposal, "complete", abs(math.log(float(proposal.settings["lr"]) / 0.01)))
    importances = study.importances()
    assert next(iter(importances)) == "lr"
    assert sum(importances.values()) == pytest.approx(1)
