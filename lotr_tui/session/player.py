"""Playing without a screen: which model speaks, how it is sampled, and what it has read so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import BUNDLED
from engine.events import Evaluated, Finished, TrainingEvent
from engine.generation.generate import Reading, read
from engine.models.base import LanguageModel, LogProbs
from engine.runs.store import CONFIG, LoadedModel, load_named
from engine.storage.files import runs_folder
from lotr_tui.formatting import perplexity

if TYPE_CHECKING:
    from engine.runs.combine import Combination
    from lotr_tui.monitor.training_view import TrainingView


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
    ends_lines: bool = True
    """Whether it has seen `<eos>` at the end of every line, and so knows how to answer and to stop."""

    @classmethod
    def of(cls, loaded: LoadedModel) -> "Player":
        """The model of a run."""
        config = loaded.config.model
        layers = "1 layer" if config.layers == 1 else f"{config.layers} layers"
        parts = [f"{layers} of {config.hidden_size}" if loaded.epoch is None else f"epoch {loaded.epoch}"]
        if loaded.valid_perplexity is not None:
            parts.append(f"valid {loaded.valid_perplexity:.1f}")
        if loaded.kneser_ney_perplexity is not None:
            parts[-1] += f" (Kneser-Ney {loaded.kneser_ney_perplexity:.1f})"
        if loaded.decoder.int8:
            parts.append("in int8")
        data = loaded.config.data
        description = " · ".join(parts)
        return cls(loaded.name, description, loaded.decoder, data.corpus, loaded.path, data.mode == "line")

    @classmethod
    def learning(cls, view: "TrainingView", events: Sequence[TrainingEvent], runs_dir: Path | None) -> "Player | None":
        """The latest model among `events`, named after its training in `runs_dir`; None where there is none."""
        models = [event for event in events if isinstance(event, (Evaluated, Finished)) and event.model is not None]
        if not models or view.started is None:
            return None
        event = models[-1]
        assert event.model is not None
        if isinstance(event, Finished):
            description = (
                f"valid {event.valid_perplexity:.1f} (Kneser-Ney {perplexity(view.started.kneser_ney_perplexity)})"
            )
        else:
            description = f"learning · epoch {event.epoch:.1f} · valid {event.valid_perplexity:.1f}"
        run = (runs_dir or runs_folder()) / view.started.run
        return cls(view.started.run, description, event.model, run=run if (run / CONFIG).is_file() else None)

    def welcome(self) -> str:
        """What it is, and what to try first."""
        vocabulary = self.model.vocabulary
        tries = [
            text
            for text in ("Bilbo Baggins is", "Where is Frodo", "The lamp")
            if all(word in vocabulary for word in vocabulary.tokenize(text))
        ]
        first = f'"{tries[0]}"' if tries else "a few words"
        return (
            f"This is {self.name}, a small LSTM language model that knows {len(vocabulary):,} words. "
            f"Type {first} and press enter: it goes on, word by word. Then press F7 and F8 for a cooler or "
            "hotter temperature, and see how the bars of the next word change; ctrl+g walks over the words and "
            "shows what else each might have been. ctrl+t trains a model while you play."
        )


def open_player(
    names: Sequence[str | None],
    runs_dir: Path | None,
    options: "Combination | None" = None,
    precision: str = "fp32",
) -> Player:
    """The model of a run or of one of its epochs (None: the bundled one), or what is put together of several.

    Raises:
        UnusableInput: no such run, or it is damaged, or the runs cannot be combined.
    """
    runs = [load_named(name, runs_dir, precision) for name in names or [None]]
    if options is None and len(runs) == 1:
        return Player.of(runs[0])
    # Only here: what most sessions do without should not delay them.
    from engine.runs.combine import Combination, Combiner

    combined = Combiner(runs).combine(options or Combination())
    name = "+".join(run.name for run in runs)
    data = runs[0].config.data
    return Player(name, combined.describe(), combined.model, data.corpus, runs[0].path, data.mode == "line")


class Reader:
    """Distributions after any text; words it has read before are not read again."""

    def __init__(self, model: LanguageModel, start: Reading | None = None) -> None:
        """Read on from `start`; None: from the beginning of a text."""
        self.model = model
        self.start = start
        self._ids: list[int] = []
        self._read = [start or read(model, ())]

    def after(self, ids: Sequence[int]) -> LogProbs:
        """The distribution `[vocabulary]` of the word after `ids`."""
        same = 0
        while same < min(len(ids), len(self._ids)) and ids[same] == self._ids[same]:
            same += 1
        del self._read[same + 1 :]
        for token in ids[same:]:
            self._read.append(read(self.model, [token], self._read[-1]))
        self._ids = list(ids)
        return self._read[-1].log_probs
