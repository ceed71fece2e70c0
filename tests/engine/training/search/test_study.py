"""Proposals of settings, successive halving, and the replay of earlier trials."""

import math

import pytest

from engine.training.search.records import TrialRecord
from engine.training.search.space import Value, parse_space
from engine.training.search.study import Proposal, SearchStudy

SPACE = parse_space(["lr=0.001..0.1", "num_layers=1..3", "optimizer=adamw,sgd"])[1]


def propose(study: SearchStudy) -> Proposal:
    proposal = study.propose()
    assert proposal is not None
    return proposal


def proposed_settings(seed: int, count: int = 14) -> list[dict[str, Value]]:
    study = SearchStudy(SPACE, seed)
    settings = []
    for _ in range(count):
        proposal = propose(study)
        settings.append(proposal.settings)
        study.finish(proposal, "complete", float(proposal.settings["lr"]))
    return settings


def test_the_seed_determines_the_proposals() -> None:
    assert proposed_settings(3) == proposed_settings(3)
    assert proposed_settings(3) != proposed_settings(4)
    assert all(settings in SPACE for settings in proposed_settings(3))


def test_the_worse_half_is_pruned_after_a_quarter_and_after_half_of_a_run() -> None:
    study = SearchStudy(SPACE, 0)
    proposals = [propose(study) for _ in range(4)]
    assert not any(proposal.report(24, 1000.0) for proposal in proposals)  # before the first rung
    # Each is compared with those that came before: 12 is worse than 10, and 11 not among the best 2 of 4.
    assert [proposal.report(25, value) for proposal, value in zip(proposals, (10, 12, 9, 11), strict=True)] == [
        False, True, False, True,
    ]  # fmt: skip
    first, third = proposals[0], proposals[2]
    assert not first.report(40, 500.0)
    assert not first.report(50, 8.0)
    assert third.report(55, 8.5)  # the first evaluation after half of the run


def test_a_diverged_trial_is_worse_than_all_others() -> None:
    study = SearchStudy(SPACE, 0)
    study.finish(propose(study), "diverged")
    assert not propose(study).report(25, 1e9)


def test_every_combination_of_a_finite_space_is_proposed_once() -> None:
    _, space = parse_space(["optimizer=adamw,sgd", "num_layers=1..3"])
    study = SearchStudy(space, 0)
    seen = []
    while (proposal := study.propose()) is not None:
        seen.append(proposal.settings)
        study.finish(proposal, "complete", 1.0)
    assert sorted(map(str, seen)) == sorted(map(str, space.combinations()))


def test_replayed_trials_decide_and_guide_as_they_did() -> None:
    settings: dict[str, Value] = {"lr": 0.01, "num_layers": 1, "optimizer": "sgd"}
    reports = [(25, 10.0), (50, 9.0), (100, 8.0)]
    study = SearchStudy(SPACE, 0)
    study.finish(study.replay(TrialRecord(0, "complete", settings, ["r"], [8.0], reports)), "complete", 8.0)
    assert propose(study).report(25, 10.5)
    better = propose(study)
    assert not better.report(25, 9.5)
    assert better.report(50, 9.5)


def test_importances_need_ten_complete_trials_and_name_the_setting_that_matters() -> None:
    study = SearchStudy(SPACE, 1)
    for number in range(40):
        assert bool(study.importances()) == (number >= 10)
        proposal = propose(study)
        study.finish(proposal, "complete", abs(math.log(float(proposal.settings["lr"]) / 0.01)))
    importances = study.importances()
    assert next(iter(importances)) == "lr"
    assert sum(importances.values()) == pytest.approx(1)
