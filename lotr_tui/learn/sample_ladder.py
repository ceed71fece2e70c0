"""A line that a model has read, and its sampled continuations at several temperatures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.generation.prompt import DecoderState, prefill_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.learn.continuation import continue_text, encode_line


@dataclass(frozen=True)
class ReadLine:
    """A line and the state of a model after it."""

    text: str
    ids: tuple[int, ...]
    state: DecoderState


def read_line(model: LanguageModel, text: str) -> ReadLine:
    """Read a line with a model, as `encode_line` encodes it."""
    ids = encode_line(model, text)
    return ReadLine(text, ids, prefill_prompt(model, ids))


def sample_ladder(
    model: LanguageModel,
    line: ReadLine,
    settings: SamplerSettings,
    temperatures: Sequence[float],
    seed: int,
    cancelled: Callable[[], bool],
) -> Iterator[tuple[str, ...]]:
    """Continue a line at each temperature, all with the noise of one seed.

    Yields:
        The continuations so far, one for each temperature; "" for a temperature that is not sampled yet.
    """
    texts: dict[float, str] = {}
    for temperature in dict.fromkeys(temperatures):
        chain = replace(settings, temperature=temperature)
        texts[temperature] = continue_text(model, line.state, line.ids, chain, seed, cancelled)
        yield tuple(texts.get(each, "") for each in temperatures)
