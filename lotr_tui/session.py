"""Playing without a screen: which model speaks, how it is sampled, and what it has read so far."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import BUNDLED
from engine.lm import LanguageModel, LogProbs, State
from engine.runs import LoadedModel, load, resolve
from engine.sampling import Done, SamplerSettings, TokenEvent, stream
from engine.vocabulary import EOS_ID
from engine.worker import Cancellation, Worker, paced

if TYPE_CHECKING:
    from engine.combine import Combination


@dataclass(frozen=True)
class Player:
    """A model to play with, and how it is spoken of."""

    name: str
    description: str
    model: LanguageModel
    corpus: str = BUNDLED
    """What it was trained on: a path, or "bundled"."""
    run: Path | None = None
    """The run directory; of several runs the first."""

    @classmethod
    def of(cls, loaded: LoadedModel) -> "Player":
        """The model of a run."""
        config = loaded.config.model
        layers = "1 layer" if config.layers == 1 else f"{config.layers} layers"
        parts = [f"{layers} of {config.hidden_size}"]
        if loaded.valid_perplexity is not None:
            parts.append(f"valid {loaded.valid_perplexity:.1f}")
        if loaded.kneser_ney_perplexity is not None:
            parts[-1] += f" (Kneser-Ney {loaded.kneser_ney_perplexity:.1f})"
        return cls(loaded.name, " · ".join(parts), loaded.decoder, loaded.config.data.corpus, loaded.path)


def open_player(names: Sequence[str | None], runs_dir: Path | None, options: "Combination | None" = None) -> Player:
    """The model of a run (None: the bundled one), or what is put together of several.

    Raises:
        UnusableInput: no such run, or it is damaged, or the runs cannot be combined.
    """
    runs = [load(resolve(name, runs_dir)) for name in names or [None]]
    if options is None and len(runs) == 1:
        return Player.of(runs[0])
    # Only here: what most sessions do without should not delay them.
    from engine.combine import Combination, Combiner

    combined = Combiner(runs).combine(options or Combination())
    name = "+".join(run.name for run in runs)
    return Player(name, combined.describe(), combined.model, runs[0].config.data.corpus, runs[0].path)


class Reader:
    """Distributions after any text; words it has read before are not read again."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._ids: list[int] = []
        self._read: list[tuple[LogProbs, State]] = [model.advance(model.start(), EOS_ID)]

    def after(self, ids: Sequence[int]) -> LogProbs:
        """The distribution `[vocabulary]` of the word after `ids`."""
        same = 0
        while same < min(len(ids), len(self._ids)) and ids[same] == self._ids[same]:
            same += 1
        del self._read[same + 1 :]
        for token in ids[same:]:
            self._read.append(self._model.advance(self._read[-1][1], token))
        self._ids = list(ids)
        return self._read[-1][0]


def start_stream(
    model: LanguageModel, ids: Sequence[int], settings: SamplerSettings, seed: int, pace: float
) -> Worker[TokenEvent | Done]:
    """Continue `ids` in a thread, at most `pace` words a second (0: as fast as they come)."""

    def source(cancellation: Cancellation) -> Iterator[TokenEvent | Done]:
        return paced(stream(model, ids, settings, seed, cancellation), pace, cancellation)

    return Worker("generation", source).start()
