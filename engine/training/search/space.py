"""Search space: the ranges and choices of settings that `--set` takes, as distributions of optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from engine.config import describe_settings, parse_setting, setting_type, split_assignment
from engine.errors import ConfigError

Value = bool | int | float | str
"""Value of a setting."""
SIGNIFICANT_DIGITS = 4
"""Digits of the numbers that are tried, so that a printed setting is exactly the one that was trained."""
LOGARITHMIC_RATIO = 5
"""Ratio of the ends of a range from which it is logarithmic, unless the setting is a fraction."""
SCALES = {"log": True, "linear": False}
"""Marks after a range, as in `lr=0.002..0.02:log`."""
NOT_COMPARABLE = ("max_eval_tokens", "validation_metric")
"""Settings of the training that change what the validation perplexity is."""
NOT_OF_THE_MODEL = (
    "seed", "device", "threads", "score_test", "keep_epoch_checkpoints", "checkpoint_seconds", "sample_seed",
    "sample_temperature", "eval_every_epochs", "eval_every_steps",
)  # fmt: skip
"""Settings whose best value would say nothing about the model."""


@dataclass(frozen=True)
class SearchSpace:
    """Settings that a search varies, each in a range or among some values."""

    distributions: dict[str, BaseDistribution]
    assignments: list[str]
    """The space as `parse_space` reads it."""

    def round(self, settings: Mapping[str, Any]) -> dict[str, Value]:
        """Return settings that optuna proposes, with numbers of few digits inside of their ranges."""
        return {name: _round(settings[name], distribution) for name, distribution in self.distributions.items()}

    def describe(self) -> dict[str, str]:
        """Return each range or choice in words."""
        return {name: _describe(distribution) for name, distribution in self.distributions.items()}


def parse_space(assignments: Sequence[str]) -> tuple[list[str], SearchSpace]:
    """Return the assignments of single values, and the space of the others.

    A range is `key=low..high`, a choice `key=a,b,c`. A range is logarithmic if its start is above 0, its end is at
    least 5 times its start, and the setting is no fraction; `:log` or `:linear` after it overrides this rule. A setting
    that is text has a single value, whatever characters are in it. The last assignment of a setting counts.

    Raises:
        ConfigError: If a setting does not exist or cannot be searched, or a range or value is invalid.
    """
    last = {split_assignment(assignment)[0]: assignment for assignment in assignments}
    fixed: list[str] = []
    distributions: dict[str, BaseDistribution] = {}
    for name, assignment in last.items():
        text = split_assignment(assignment)[1]
        if setting_type(name)[0] is str or (".." not in text and "," not in text):
            fixed.append(assignment)
            continue
        if describe_settings()[name][0] == "data" or name in NOT_COMPARABLE:
            raise ConfigError(
                f"{assignment} cannot be searched: it changes the text that is scored, or how, and such perplexities "
                f"do not compare; give {name} one value"
            )
        if name in NOT_OF_THE_MODEL:
            raise ConfigError(f"{assignment} cannot be searched: no value makes a better model; give {name} one value")
        distributions[name] = _parse_range(name, text) if ".." in text else _parse_choice(name, text)
    return fixed, SearchSpace(distributions, [last[name] for name in distributions])


def _round(value: Any, distribution: BaseDistribution) -> Value:
    if isinstance(distribution, FloatDistribution):
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), distribution.low), distribution.high)
    return value  # type: ignore[no-any-return]


def _describe(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(str(choice) for choice in distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return f"{distribution.low:g} to {distribution.high:g}{', logarithmic' if distribution.log else ''}"


def _parse_range(name: str, text: str) -> BaseDistribution:
    plain_type, meta = setting_type(name)
    if plain_type not in (int, float):
        values = ("true", "false") if plain_type is bool else get_args(plain_type)
        raise ConfigError(f"{name}={text} is a range, but {name} is no number; use {name}={','.join(values)}")
    numbers, _, scale = text.partition(":")
    if scale and scale not in SCALES:
        raise ConfigError(f"{name}={text} has the scale {scale!r}; use log or linear, or leave it out")
    first, _, last = numbers.partition("..")
    low, high = parse_setting(name, first.strip()), parse_setting(name, last.strip())
    if low > high:
        raise ConfigError(f"{name}={text} is reversed; use {name}={last.strip()}..{first.strip()}")
    if low == high:
        raise ConfigError(f"{name}={text} has one value; use {name}={first.strip()}")
    is_fraction = meta.le is not None and meta.le <= 1
    is_logarithmic = SCALES.get(scale, low > 0 and high / low >= LOGARITHMIC_RATIO and not is_fraction)
    if is_logarithmic and low <= 0:
        raise ConfigError(f"{name}={text} starts at {low:g}, which has no logarithm; use a start above 0, or :linear")
    kind = IntDistribution if plain_type is int else FloatDistribution
    return kind(low, high, log=is_logarithmic)


def _parse_choice(name: str, text: str) -> BaseDistribution:
    values = [parse_setting(name, value.strip()) for value in text.split(",")]
    if len(set(values)) < len(values):
        raise ConfigError(f"{name}={text} has a value twice; give each value once")
    return CategoricalDistribution(values)
