"""Temperatures as the comparison screens read, show and step them."""

from collections.abc import Sequence

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings

TEMPERATURE_STEP = 0.05
"""Change of the temperature per key press."""


def step_temperature(temperature: float, steps: int) -> float:
    """Return the temperature changed by a number of steps, rounded to a multiple of the step, from 0 to 2."""
    return round(min(2.0, max(0.0, (round(temperature / TEMPERATURE_STEP) + steps) * TEMPERATURE_STEP)), 2)


def format_temperature(temperature: float) -> str:
    """Return a temperature with two decimals, or with more if it has more."""
    return f"{temperature:.2f}" if round(temperature, 2) == temperature else f"{temperature:g}"


def format_temperatures(temperatures: Sequence[float]) -> str:
    """Return temperatures in the form that `parse_temperatures` reads."""
    return " ".join(format_temperature(temperature) for temperature in temperatures)


def parse_temperatures(text: str, max_count: int) -> list[float]:
    """Return the temperatures in `text`, which are separated by spaces or commas.

    Raises:
        InvalidInputError: If there is no temperature, there are more than `max_count`, or one is not a number in range.
    """
    temperatures = []
    for part in text.replace(",", " ").split():
        try:
            temperature = float(part)
        except ValueError:
            raise InvalidInputError(f"temperature {part!r} is not a number; write them like 0.5 0.8 1") from None
        SamplerSettings(temperature=temperature)  # raises if out of range
        temperatures.append(round(temperature, 4))
    if not temperatures:
        raise InvalidInputError("there is no temperature; write some, like 0.5 0.8 1")
    if len(temperatures) > max_count:
        raise InvalidInputError(f"{len(temperatures)} temperatures are too many; write at most {max_count}")
    return temperatures
