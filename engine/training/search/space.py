"""Search space: ranges and choices of settings, as `--set` takes them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

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
class Range:
    """All numbers from `low` to `high`, both included."""

    name: str
    """Name of the setting."""
    low: float
    high: float
    is_integer: bool
    is_logarithmic: bool

    def __contains__(self, value: object) -> bool:
        is_number = isinstance(value, int if self.is_integer else int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]

    def round(self, value: float) -> int | float:
        """Return `value` with few digits, inside of the range."""
        if self.is_integer:
            return int(value)
        return min(max(float(f"{value:.{SIGNIFICANT_DIGITS}g}"), self.low), self.high)

    def values(self) -> range | None:
        """Return all values of an integer setting; None for other numbers, which are too many."""
        return range(int(self.low), int(self.high) + 1) if self.is_integer else None

    def to_text(self) -> str:
        """Return the range as `parse_space` reads it."""
        return f"{self.name}={self.low}..{self.high}:{'log' if self.is_logarithmic else 'linear'}"

    def describe(self) -> str:
        """Return the range in words."""
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.is_logarithmic else ''}"


@dataclass(frozen=True)
class Choice:
    """Some values of a setting."""

    name: str
    options: tuple[Value, ...]

    def __contains__(self, value: object) -> bool:
        return any(value == option and type(value) is type(option) for option in self.options)

    def values(self) -> Sequence[Value]:
        """Return all values."""
        return self.options

    def to_text(self) -> str:
        """Return the choice as `parse_space` reads it."""
        return f"{self.name}={','.join(map(format_value, self.options))}"

    def describe(self) -> str:
        """Return the choice in words."""
        return ", ".join(map(format_value, self.options))


@dataclass(frozen=True)
class SearchSpace:
    """Settings that a search varies, each in a range or among some values."""

    dimensions: tuple[Range | Choice, ...]

    def __contains__(self, settings: Mapping[str, Value]) -> bool:
        dimensions = {dimension.name: dimension for dimension in self.dimensions}
        return settings.keys() == dimensions.keys() and all(settings[name] in dimensions[name] for name in settings)

    @property
    def size(self) -> float:
        """Number of combinations; infinite with a range of a setting that is not an integer."""
        return math.prod(
            math.inf if (values := dimension.values()) is None else len(values) for dimension in self.dimensions
        )

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Yield all combinations of a finite space."""
        names = [dimension.name for dimension in self.dimensions]
        for values in itertools.product(*(dimension.values() or () for dimension in self.dimensions)):
            yield dict(zip(names, values, strict=True))

    def to_texts(self) -> list[str]:
        """Return the space as `parse_space` reads it."""
        return [dimension.to_text() for dimension in self.dimensions]


def parse_space(assignments: Sequence[str]) -> tuple[list[str], SearchSpace]:
    """Return the assignments of single values, and the space of the others.

    A range is `key=low..high`, a choice `key=a,b,c`. A range is logarithmic if its start is above 0, its end is at
    least 5 times its start, and the setting is no fraction; `:log` or `:linear` after it overrides this rule. A setting
    that is text has a single value, whatever characters are in it. The last assignment of a setting counts.

    Raises:
        ConfigError: If a setting does not exist or cannot be searched, or a range or value is invalid.
    """
    fixed: dict[str, str] = {}
    dimensions: dict[str, Range | Choice] = {}
    for assignment in assignments:
        name, text = split_assignment(assignment)
        fixed.pop(name, None)
        dimensions.pop(name, None)
        plain_type, _ = setting_type(name)
        if plain_type is str or (".." not in text and "," not in text):
            fixed[name] = assignment
            continue
        _check_searchable(name, text)
        dimensions[name] = _parse_range(name, text) if ".." in text else _parse_choice(name, text)
    return list(fixed.values()), SearchSpace(tuple(dimensions.values()))


def format_value(value: Value) -> str:
    """Return a value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_searchable(name: str, text: str) -> None:
    section, _ = describe_settings()[name]
    if section == "data" or name in NOT_COMPARABLE:
        raise ConfigError(
            f"{name}={text} cannot be searched: it changes the text that is scored, or how, and such perplexities do "
            f"not compare; give {name} one value"
        )
    if name in NOT_OF_THE_MODEL:
        raise ConfigError(f"{name}={text} cannot be searched: no value makes a better model; give {name} one value")


def _parse_range(name: str, text: str) -> Range:
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
    return Range(name, low, high, plain_type is int, is_logarithmic)


def _parse_choice(name: str, text: str) -> Choice:
    values = [parse_setting(name, value.strip()) for value in text.split(",")]
    if len(set(values)) < len(values):
        raise ConfigError(f"{name}={text} has a value twice; give each value once")
    return Choice(name, tuple(values))
