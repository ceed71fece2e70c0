"""Proposals of settings, successive halving, and the replay of earlier trials."""

import math

import pytest

from engine.training.search.plan import SearchPlan
from engine.training.search.records import TrialRecord
from engine.training.search.space import parse_space
from engine.training.search.study import SearchStudy
from tests.support.training import make_config

RUNGS = (0.25, 0.5, 1.0)
SPACE = parse_space(["lr=0.001..0.1", "num_layers=1..3", "optimizer=adamw,sgd"])[1]


def propose(study):
    proposal = study.propose()
    assert proposal is not None
    return proposal


def proposed_settings(seed, count=14):
    study = SearchStudy(SPACE, seed, RUNGS)
    settings = []
    for _ in range(count):
        proposal = propose(study)
        settings.append(proposal.settings)
        study.finish(proposal, "complete", float(proposal.settings["lr"]))
    return settings


def test_the_seed_determines_the_proposals():
    assert proposed_settings(3) == proposed_settings(3)
    assert proposed_settings(3) != proposed_settings(4)
    assert all(settings in SPACE for settings in proposed_settings(3))


def test_the_worse_half_is_pruned_at_each_rung():
    study = SearchStudy(SPACE, 0, RUNGS)
    proposals = [propose(study) for _ in range(4)]
    assert not any(proposal.report(0.24, 1000.0) for proposal in proposals)  # before the first rung
    # Each is compared with those that came before: 12 is worse than 10, and 11 not among the best 2 of 4.
    assert [proposal.report(0.25, value) for proposal, value in zip(proposals, (10, 12, 9, 11), strict=True)] == [
        False, True, False, True,
    ]  # fmt: skip
    first, third = proposals[0], proposals[2]
    assert not first.report(0.4, 500.0)
    assert not first.report(0.5, 8.0)
    assert third.report(0.55, 8.5)  # the first evaluation after half of the run
    late = propose(study)
    assert late.report(0.6, 8.2)  # good enough for the first rung, but not for the second
    assert not propose(study).report(1.0, 7.0)


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


def test_a_diverged_trial_is_worse_than_all_others():
    study = SearchStudy(SPACE, 0, RUNGS)
    study.finish(propose(study), "diverged")
    assert not propose(study).report(0.25, 1e9)


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
    assert propose(study).report(0.25, 10.5)
    better = propose(study)
    assert not better.report(0.25, 9.5)
    assert better.report(0.5, 9.5)


def test_importances_need_ten_complete_trials_and_name_the_setting_that_matters():
    study = SearchStudy(SPACE, 1, RUNGS)
    for number in range(40):
        assert bool(study.importances()) == (number >= 10)
        proposal = propose(study)
        study.finish(proposal, "complete", abs(math.log(float(proposal.settings["lr"]) / 0.01)))
    importances = study.importances()
    assert next(iter(importances)) == "lr"
    assert sum(importances.values()) == pytest.approx(1)
