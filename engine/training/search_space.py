"""Search space: the ranges and choices of settings that `--set` takes, as distributions of optuna."""

from collections.abc import Sequence
from typing import Any, get_args

from msgspec import Meta
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from engine.config import describe_settings, parse_setting, setting_type, split_assignment
from engine.errors import ConfigError

LOGARITHMIC_RATIO = 5  # ratio of the ends of a range from which it is logarithmic, unless the setting is a fraction
SCALES = {"log": True, "linear": False}  # marks after a range, as in `lr=0.002..0.02:log`
NOT_COMPARABLE = ("max_eval_tokens", "validation_metric")  # they change what the validation perplexity is
# Settings whose best value would say nothing about the model.
NOT_OF_THE_MODEL = (
    "seed", "device", "threads", "score_test", "keep_epoch_checkpoints", "checkpoint_seconds", "sample_seed",
    "sample_temperature", "eval_every_epochs", "eval_every_steps",
)  # fmt: skip


def split_space(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the assignments of single values, and those of a range or a choice; the last one of a setting counts.

    A setting that is text has a single value, whatever characters are in it.
    """
    fixed: list[str] = []
    searched: list[str] = []
    for name, assignment in {split_assignment(assignment)[0]: assignment for assignment in assignments}.items():
        text = split_assignment(assignment)[1]
        is_searched = setting_type(name)[0] is not str and (".." in text or "," in text)
        (searched if is_searched else fixed).append(assignment)
    return fixed, searched


def parse_space(assignments: Sequence[str]) -> dict[str, BaseDistribution]:
    """Return the distribution of each setting that is searched.

    A range is `key=low..high`, a choice `key=a,b,c`. A range is logarithmic if its start is above 0, its end is at
    least 5 times its start, and the setting is no fraction; `:log` or `:linear` after it overrides this rule. A setting
    that cannot be searched, or an invalid range or value, raises a ConfigError.
    """
    distributions: dict[str, BaseDistribution] = {}
    for assignment in assignments:
        name, text = split_assignment(assignment)
        plain_type, meta = setting_type(name)
        if describe_settings()[name][0] == "data" or name in NOT_COMPARABLE:
            raise ConfigError(
                f"{assignment} cannot be searched: it changes the text that is scored, or how, and such perplexities "
                f"do not compare; give {name} one value"
            )
        if name in NOT_OF_THE_MODEL:
            raise ConfigError(f"{assignment} cannot be searched: no value makes a better model; give {name} one value")
        if ".." in text:
            distributions[name] = _parse_range(name, text, plain_type, meta)
            continue
        values = [parse_setting(name, value.strip()) for value in text.split(",")]
        if len(set(values)) < len(values):
            raise ConfigError(f"{name}={text} has a value twice; give each value once")
        distributions[name] = CategoricalDistribution(values)
    return distributions


def describe_distribution(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return f"{distribution.low:g} to {distribution.high:g}{', logarithmic' if distribution.log else ''}"


def _parse_range(name: str, text: str, plain_type: Any, meta: Meta) -> BaseDistribution:
    if plain_type not in (int, float):
        values = ("true", "false") if plain_type is bool else get_args(plain_type)
        raise ConfigError(f"{name}={text} is a range, but {name} is no number; use {name}={','.join(values)}")
    numbers, _, scale = text.partition(":")
    if scale and scale not in SCALES:
        raise ConfigError(f"{name}={text} has the scale {scale!r}; use log or linear, or leave it out")
    first, _, last = (part.strip() for part in numbers.partition(".."))
    low, high = parse_setting(name, first), parse_setting(name, last)
    if low > high:
        raise ConfigError(f"{name}={text} is reversed; use {name}={last}..{first}")
    if low == high:
        raise ConfigError(f"{name}={text} has one value; use {name}={first}")
    is_fraction = meta.le is not None and meta.le <= 1
    is_logarithmic = SCALES.get(scale, low > 0 and high / low >= LOGARITHMIC_RATIO and not is_fraction)
    if is_logarithmic and low <= 0:
        raise ConfigError(f"{name}={text} starts at {low:g}, which has no logarithm; use a start above 0, or :linear")
    kind = IntDistribution if plain_type is int else FloatDistribution
    return kind(low, high, log=is_logarithmic)
