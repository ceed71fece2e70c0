"""A training made ready: everything that can be wrong with the input is found before it starts."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine import recording
from engine.config import BUNDLED, Config
from engine.dataset import Dataset, prepare
from engine.errors import ConfigError
from engine.events import Preparing, TrainingEvent


@dataclass(frozen=True)
class TrainingJob:
    """A checked configuration, its data, and the run directory that will hold the result."""

    config: Config
    dataset: Dataset
    run: recording.Run

    def events(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        """Train, recording every event in the run directory. Torch is imported here, in the worker's thread."""

        def training() -> Iterator[TrainingEvent]:
            yield Preparing("loading PyTorch")
            quiet_threads()
            from engine.training import train

            yield from train(self.config, self.dataset, self.run.name, cancelled)

        return recording.record(self.run, training())


def quiet_threads() -> None:
    """Keep torch, not loaded yet, from burning time that other processes could use.

    OpenMP's threads wait for each other by spinning. On a machine that others use too they spin for one that is not
    running: training took 4 times as long beside one busy process, with this 2 times.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def prepare_job(config: Config, name: str | None = None, folder: Path | None = None) -> TrainingJob:
    """Read the data, check that it fits the configuration, and make the run directory.

    Raises:
        UnusableInput: anything is wrong; then nothing was written.
    """
    # The run must be able to find its corpus again from any folder.
    for field in ("corpus", "valid_corpus", "test_corpus"):
        if (path := getattr(config.data, field)) not in ("", BUNDLED):
            config = config.with_values(**{field: str(Path(path).expanduser().resolve())})
    dataset = prepare(config.data)
    columns = config.training.batch_size
    if len(dataset.train) < 2 * columns:
        raise ConfigError(
            f"batch_size={columns} is too large: {len(dataset.train):,} training tokens "
            f"fill at most {len(dataset.train) // 2:,} columns; use --set batch_size=N or more text"
        )
    if config.training.device not in ("auto", "cpu"):
        # Only then is torch needed this early, to say at once that there is no such device.
        from engine.device import choose_device

        choose_device(config.training)
    return TrainingJob(config, dataset, recording.create(config, dataset.vocabulary, name, folder))
