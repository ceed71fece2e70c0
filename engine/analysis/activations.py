"""Inside an LSTM while it reads: its gates and cells, word by word, and the words that drive a unit furthest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from engine.data.vocabulary import EOS_ID, Ids
from engine.errors import UnusableInput
from engine.models.base import LanguageModel
from engine.models.cache import Cache
from engine.models.matmul import Floats
from engine.models.mixture import Mixture
from engine.models.numpy_lstm import Decoder

Part = Literal["input", "forget", "output", "candidate", "cell", "hidden"]
PARTS: tuple[Part, ...] = get_args(Part)

BATCH = 64
"""Lines read side by side when a corpus is searched."""


@dataclass(frozen=True)
class Gates:
    """What one LSTM layer did with each word: arrays `[time, hidden]`, a row being what it was on reading that word.

    With c' the cell before the word: cell = forget · c' + input · candidate, hidden = output · tanh(cell).
    """

    input: Floats
    """How much of the candidate is let in, 0 to 1."""
    forget: Floats
    """How much of the cell is kept, 0 to 1: at 0 all is forgotten."""
    output: Floats
    """How much of the cell is shown to the next layer, 0 to 1."""
    candidate: Floats
    """What would be added to the cell, -1 to 1."""
    cell: Floats
    """What is remembered, this word included; without bounds."""
    hidden: Floats
    """What the next layer, or the prediction of the next word, is made from, -1 to 1."""

    def part(self, name: Part) -> Floats:
        """One of them by its name.

        Raises:
            UnusableInput: there is none of that name.
        """
        if name not in PARTS:
            raise UnusableInput(f"an LSTM has no {name!r}; use one of {', '.join(PARTS)}")
        values: Floats = getattr(self, name)
        return values


@dataclass(frozen=True)
class Extreme:
    """A word on reading which a unit goes far."""

    line: int
    """Number of its line among those searched."""
    position: int
    """Words of the line before it."""
    value: float
    before: tuple[str, ...]
    """Words just before it, of its own line."""
    word: str
    after: tuple[str, ...]
    """Words just after it, which the unit had not seen yet."""


@dataclass(frozen=True)
class Extremes:
    """The words that drive one unit furthest up and down."""

    highest: tuple[Extreme, ...]
    """The highest value first."""
    lowest: tuple[Extreme, ...]
    """The lowest value first."""
    words: int
    """How many were read: all, unless it was cancelled."""


def lstm_of(model: LanguageModel) -> Decoder | None:
    """The LSTM in a model, of a mixture the first one; None where only counts are inside.

    A model that goes on learning from what it reads gives the LSTM it started as, in its `decoder`.
    """
    if isinstance(model, Decoder):
        return model
    if isinstance(model, Cache):
        return lstm_of(model.model)
    if isinstance(model, Mixture):
        return next((found for part in model.models if (found := lstm_of(part))), None)
    started_as = getattr(model, "decoder", None)
    return started_as if isinstance(started_as, Decoder) else None


def gates(decoder: Decoder, ids: Ids | Sequence[int]) -> tuple[Gates, ...]:
    """Read `<eos>`, then `ids`: what every layer did with each of `ids`, first layer first."""
    sizes = [hidden for _, hidden in decoder.config.layer_sizes()]
    seen = [np.empty((len(ids), 4 * size), np.float32) for size in sizes]
    hiddens = [np.empty((len(ids), size), np.float32) for size in sizes]
    cells = [np.empty((len(ids), size), np.float32) for size in sizes]
    _, state = decoder.read(decoder.start(), EOS_ID)
    for row, token in enumerate(ids):
        activated, state = decoder.read(state, int(token))
        for layer, (hidden, cell) in enumerate(state):
            seen[layer][row], hiddens[layer][row], cells[layer][row] = activated[layer], hidden, cell
    return tuple(map(_named, seen, cells, hiddens))


def along(layers: Sequence[Gates], layer: int, unit: int, which: Part = "cell") -> Floats:
    """One unit along a text that `gates` has read: `[time]`.

    Raises:
        UnusableInput: there is no such layer, unit or part.
    """
    _within("layer", layer, len(layers))
    values = layers[layer].part(which)
    _within("unit", unit, values.shape[1])
    return values[:, unit]


def extremes(
    decoder: Decoder,
    lines: Sequence[Ids],
    layer: int,
    unit: int,
    which: Part = "cell",
    most: int = 10,
    context: int = 6,
    cancelled: Callable[[], bool] = lambda: False,
) -> Extremes:
    """Search a corpus for the words that drive a unit highest and lowest.

    Every line is read as `gates` reads it, on its own after `<eos>`, so what is found can be typed in and seen
    again. Where two lines begin alike, their common words count once.

    Args:
        decoder: whose unit.
        lines: ids of each, as `Dataset.train_lines`.
        layer: counted from 0.
        unit: counted from 0.
        which: the unit's gate, or its candidate, cell or hidden value.
        most: so many words on either side.
        context: words shown before and after each.
        cancelled: asked often; once true, what was read so far decides, long lines first.

    Raises:
        UnusableInput: there is no such layer, unit or part.
    """
    sizes = [hidden for _, hidden in decoder.config.layer_sizes()]
    _within("layer", layer, len(sizes))
    _within("unit", unit, sizes[layer])
    if which not in PARTS:
        raise UnusableInput(f"an LSTM has no {which!r}; use one of {', '.join(PARTS)}")
    lengths = np.array([len(line) for line in lines], np.int64)
    starts = np.cumsum(lengths) - lengths
    values = np.full(int(lengths.sum()), np.nan, np.float32)  # word after word, line after line
    longest_first = np.argsort(-lengths, kind="stable")
    for begin in range(0, len(lines), BATCH):
        batch = longest_first[begin : begin + BATCH]
        for time, seen in enumerate(_side_by_side(decoder, [lines[i] for i in batch], layer, unit, which)):
            values[starts[batch[: len(seen)]] + time] = seen
            if cancelled():
                break
        if cancelled():
            break
    read = np.flatnonzero(~np.isnan(values))
    rising = read[np.argsort(values[read], kind="stable")]
    falling = read[np.argsort(-values[read], kind="stable")]
    highest, lowest = (
        tuple(
            _extreme(
                decoder.vocabulary.words, lines[line], line, position, float(values[starts[line] + position]), context
            )
            for line, position in _distinct(order, lines, starts, most)
        )
        for order in (falling, rising)
    )
    return Extremes(highest, lowest, len(read))


def _side_by_side(decoder: Decoder, lines: Sequence[Ids], layer: int, unit: int, which: Part) -> Iterator[Floats]:
    """Read lines, the longest first: word by word the unit's values `[lines]`, of those that have that word."""
    # After <eos> every line is in the same state; the layers above are not needed.
    _, state = decoder.read(decoder.start()[: layer + 1], EOS_ID)
    state = tuple((np.tile(hidden, (len(lines), 1)), np.tile(cell, (len(lines), 1))) for hidden, cell in state)
    lengths = np.array([len(line) for line in lines])
    for time in range(lengths[0]):
        going_on = int(np.count_nonzero(lengths > time))
        tokens = np.array([line[time] for line in lines[:going_on]])
        activated, state = decoder.read(tuple((hidden[:going_on], cell[:going_on]) for hidden, cell in state), tokens)
        hidden, cell = state[layer]
        yield _named(activated[layer], cell, hidden).part(which)[:, unit]


def _named(activated: Floats, cell: Floats, hidden: Floats) -> Gates:
    """What `Decoder.read` tells of a layer, `[rows, 4 hidden]` and `[rows, hidden]`, by its names."""
    input_, forget, output, candidate = np.split(activated, 4, axis=1)
    return Gates(input_, forget, output, candidate, cell, hidden)


def _distinct(
    order: npt.NDArray[np.int64], lines: Sequence[Ids], starts: npt.NDArray[np.int64], most: int
) -> list[tuple[int, int]]:
    """Line and position of the first `most` places in `order` before which not the same words were read."""
    chosen: dict[bytes, tuple[int, int]] = {}
    for place in order.tolist():
        if len(chosen) == most:
            break
        line = int(np.searchsorted(starts, place, side="right")) - 1
        position = place - int(starts[line])
        chosen.setdefault(lines[line][: position + 1].tobytes(), (line, position))
    return list(chosen.values())


def _extreme(words: Sequence[str], ids: Ids, line: int, position: int, value: float, context: int) -> Extreme:
    before = tuple(words[i] for i in ids[max(0, position - context) : position])
    after = tuple(words[i] for i in ids[position + 1 : position + 1 + context])
    return Extreme(line, position, value, before, words[ids[position]], after)


def _within(name: str, value: int, number: int) -> None:
    if not 0 <= value < number:
        raise UnusableInput(f"{name} {value} is out of range; use a whole number from 0 to {number - 1}")
