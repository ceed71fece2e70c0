"""What the variants change, what they are worth by hand, and trainings in processes of their own."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.config import PRESETS, Config, preset, settings
from engine.data.dataset import prepare
from engine.errors import ConfigError, CorpusError
from engine.events import Finished
from engine.training.ablation import PUT_IN, TAKEN_AWAY, Trial, Variant, ablate, choose_variants, variants_of, worth_of
from engine.training.run import train
from tests.conftest import sentences


def flat(config: Config) -> dict[str, Any]:
    """Every setting by name."""
    return {name: value for part in ("data", "model", "training") for name, value in asdict(config)[part].items()}


def changed(config: Config, variant: Variant) -> dict[str, Any]:
    before, after = flat(config), flat(config.with_settings(list(variant.settings)))
    return {name: after[name] for name in before if after[name] != before[name]}


def named(variant: Variant) -> list[str]:
    return [setting.partition("=")[0] for setting in variant.settings]


# --- variants -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_the_preset_itself_comes_first_and_every_other_changes_what_it_names(name: str) -> None:
    config = preset(name)
    first, *others = variants_of(config)
    assert first == Variant(name, ())
    assert len(others) >= 5
    for variant in others:
        assert changed(config, variant), f"{variant.name} changes nothing"
        assert set(changed(config, variant)) <= set(named(variant))
    assert len({variant.name for variant in others} | {name}) == len(others) + 1
    results = [config.with_settings(list(variant.settings)) for variant in others]
    assert len({result.to_json() for result in results}) == len(others), "two variants are the same training"


def test_variants_of_the_default_change_every_setting_they_name() -> None:
    config = preset("default")
    for variant in variants_of(config)[1:]:
        assert sorted(changed(config, variant)) == sorted(named(variant))


@pytest.mark.parametrize("name", PRESETS)
def test_a_technique_is_taken_away_where_it_is_used_and_put_in_where_it_is_not(name: str) -> None:
    config = preset(name)
    values, listed = flat(config), {variant.name for variant in variants_of(config)}
    for setting, technique in [
        ("weight_drop", "weight drop"),
        ("dropout_words", "embedding dropout (whole words)"),
        ("spelling", "spelling"),
        ("shuffle_lines", "new order of lines"),
        ("smoothing", "label smoothing"),
        ("variable_window", "variable BPTT window"),
        ("clip", "clipping"),
        ("tied", "weight tying"),
    ]:
        assert (f"without {technique}" in listed) == bool(values[setting])
    assert ("with variable BPTT window" in listed) == (not values["variable_window"])
    assert ("without dropout between layers" in listed) == (values["layers"] > 1)
    assert ("without average of weights" in listed) == (values["averaging"] != "none")
    assert ("without AR and TAR" in listed) == bool(values["ar"] or values["tar"])


@pytest.mark.parametrize("name", PRESETS)
def test_a_variant_is_called_what_it_does(name: str) -> None:
    """What is put in was not there before, and a schedule is taken away only where there is one."""
    config = preset(name)
    training, listed = config.training, {variant.name for variant in variants_of(config)}
    assert ("with NT-ASGD after SGD" in listed) == (training.averaging != "nt_asgd")
    assert ("with fine-tuning" in listed) == (training.fine_tune_epochs == 0)
    assert ("with a second layer" in listed) == (config.model.layers == 1)
    assert ("without a schedule (constant rate)" in listed) == (training.schedule != "constant")


def test_every_change_is_of_settings_that_there_are_and_in_range() -> None:
    for assignments in [*TAKEN_AWAY.values(), *PUT_IN.values()]:
        assert {assignment.partition("=")[0] for assignment in assignments} <= settings().keys()
        Config().with_settings(list(assignments))


def test_variants_are_chosen_by_name_in_the_order_asked_for() -> None:
    config = preset("default")
    names = ["without weight tying", "default", "with AR and TAR"]
    assert [variant.name for variant in choose_variants(config, names)] == names
    assert [variant.settings for variant in choose_variants(config, names)] == [("tied=false",), (), ("ar=2", "tar=1")]
    assert choose_variants(config, []) == variants_of(config)


def test_an_unknown_variant_is_refused_with_the_nearest_and_all_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        choose_variants(preset("default"), ["default", "without weight drip"])
    message = str(caught.value)
    assert message.startswith("unknown variant 'without weight drip'; did you mean without weight drop?")
    assert all(variant.name in message for variant in variants_of(preset("default")))
    # What the preset does without cannot be taken away from it.
    with pytest.raises(ConfigError, match="unknown variant"):
        choose_variants(preset("default"), ["without AR and TAR"])


# --- worth ----------------------------------------------------------------------------------------------------


def test_worth_is_mean_and_spread_by_hand() -> None:
    trials = [
        Trial("b", (), 0, 13.0, 20.0, 1.0),
        Trial("a", ("x=1",), 0, 7.0, 9.0, 1.0),
        Trial("b", (), 1, 10.0, 18.0, 2.0),
        Trial("b", (), 2, 16.0, 25.0, 3.0),
    ]
    first, second = worth_of(trials)
    assert (first.variant, first.valid_mean, first.valid_spread) == ("b", 13.0, 6.0)
    assert (first.test_mean, first.test_spread) == (21.0, 7.0)
    assert (second.variant, second.valid_mean, second.valid_spread) == ("a", 7.0, 0.0)
    assert (second.test_mean, second.test_spread) == (9.0, 0.0)
    assert worth_of([]) == []


# --- trainings ------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(sentences(60)))
    data = {"corpus": str(path), "corpus_format": "text"}
    model = {"embedding_size": 8, "hidden_size": 8}
    return preset("tiny").with_values(**data, **model, epochs=1, batch_size=4, threads=1, device="cpu")


class InThreads(ThreadPoolExecutor):
    """Stands in for processes, whose start takes longer than such a training."""

    configs: ClassVar[list[Config]] = []

    def __init__(self, jobs: int, context: Any, max_tasks_per_child: int) -> None:
        assert context.get_start_method() == "spawn"
        assert max_tasks_per_child == 1
        super().__init__(jobs)

    def submit(self, function: Any, config: Config, *rest: Any, **more: Any) -> Any:
        self.configs.append(config)
        return super().submit(function, config, *rest, **more)


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations trained, as they come."""
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")  # what a training sets in its process, not to stay in this one
    monkeypatch.setattr("engine.training.ablation.ProcessPoolExecutor", InThreads)
    InThreads.configs.clear()
    return InThreads.configs


def alone(config: Config) -> Finished:
    *_, finished = train(config, prepare(config.data), "alone", lambda: False)
    assert isinstance(finished, Finished)
    return finished


@pytest.mark.usefixtures("one_thread", "in_threads")
def test_every_variant_is_trained_with_every_seed_as_if_alone(config: Config) -> None:
    variants = choose_variants(config, ["tiny", "without weight tying"])
    trials = list(ablate(config, variants, [3, 4], jobs=1))
    assert [(trial.variant, trial.settings, trial.seed) for trial in trials] == [
        ("tiny", (), 3),
        ("tiny", (), 4),
        ("without weight tying", ("tied=false",), 3),
        ("without weight tying", ("tied=false",), 4),
    ]
    for trial in trials:
        finished = alone(config.with_values(seed=trial.seed, tied=trial.variant == "tiny"))
        assert math.isfinite(trial.valid_perplexity)
        assert math.isfinite(trial.test_perplexity)
        assert trial.valid_perplexity == finished.valid_perplexity
        assert trial.test_perplexity == finished.test_perplexity
        assert trial.seconds > 0
    assert len({trial.valid_perplexity for trial in trials}) == 4


@pytest.mark.usefixtures("one_thread")
def test_a_process_of_its_own_gives_the_same_numbers(config: Config) -> None:
    (trial,) = ablate(config, choose_variants(config, ["without weight drop"]), [5], jobs=1)
    finished = alone(config.with_values(seed=5, weight_drop=0.0))
    assert trial.valid_perplexity == pytest.approx(finished.valid_perplexity, rel=1e-6)
    assert trial.test_perplexity == pytest.approx(finished.test_perplexity, rel=1e-6)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("jobs", "threads"), [(1, 2), (2, 1)])
def test_trainings_side_by_side_take_a_thread_each(
    config: Config, in_threads: list[Config], monkeypatch: pytest.MonkeyPatch, jobs: int, threads: int
) -> None:
    monkeypatch.setattr("engine.training.ablation._train", lambda config, variant: (variant.name, config.training.seed))
    list(ablate(config.with_values(threads=2), [Variant("a", ()), Variant("b", ("clip=0",))], [0, 7], jobs))
    assert [each.training.threads for each in in_threads] == [threads] * 4
    assert [(each.training.clip, each.training.seed) for each in in_threads] == [(1, 0), (1, 7), (0, 0), (0, 7)]


def test_a_corpus_that_cannot_be_read_is_refused_before_anything_starts(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "engine.training.ablation.ProcessPoolExecutor", lambda *_, **__: pytest.fail("a process was started")
    )
    with pytest.raises(CorpusError):
        list(ablate(config.with_values(corpus="/nowhere/at/all.txt"), variants_of(config), [0], jobs=1))
