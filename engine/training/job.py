"""A training made ready: everything that can be wrong with the input is found before it starts."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import BUNDLED, Config
from engine.control import Steering
from engine.data.dataset import Dataset, prepare
from engine.data.vocabulary import Vocabulary
from engine.errors import ConfigError, RunError
from engine.events import Preparing, TrainingEvent, Warned
from engine.runs import writer as run_writer
from engine.runs.control_files import Requests
from engine.runs.metrics import current_rows
from engine.runs.store import METRICS, RESUME, read_start, resolve
from engine.runtime.process import place
from engine.storage.files import located

if TYPE_CHECKING:
    from engine.runtime.distributed import World


@dataclass(frozen=True)
class TrainingJob:
    """A checked configuration, its data, and the run directory that will hold the result."""

    config: Config
    dataset: Dataset
    run: run_writer.Run
    steering: Steering
    resumes: bool = False
    """Whether it goes on with a run that was left."""

    def events(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        """Train, recording every event in the run directory. Torch is imported here, in the worker's thread.

        As the first of several processes it waits for the others, and tells them what they train.
        """

        def training() -> Iterator[TrainingEvent]:
            yield Preparing("loading PyTorch")
            quiet_threads()
            from engine.runtime.distributed import join
            from engine.training.checkpoint import newest_saved
            from engine.training.run import train

            saved, told = newest_saved(self.run.path) if self.resumes else (None, "")
            if told:
                yield Warned(told)
            with join() as world:
                snapshot = str(self.run.path / RESUME) if saved else ""
                world.share(lambda: (self.config.to_json(), snapshot, self.resumes))
                yield from train(
                    self.config,
                    self.dataset,
                    self.run.name,
                    cancelled,
                    self.steering,
                    saved,
                    again=self.resumes,
                    world=world,
                )

        return run_writer.record(self.run, training())


def follow(world: "World") -> None:
    """Train along with the first of several processes, which says what, decides, and keeps the result.

    Raises:
        Lost: another one of them has ended.
    """
    from engine.training.checkpoint import Saved
    from engine.training.run import train

    text, snapshot, again = world.share(lambda: ("", "", False))
    config = Config.from_json(text, "what the first process says")
    saved = Saved(Path(snapshot)) if snapshot else None
    for _ in train(config, prepare(config.data), "", lambda: False, saved=saved, again=again, world=world):
        pass


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
            config = config.with_values(**{field: str(located(Path(path)))})
    dataset = prepare(config.data)
    columns = config.training.batch_size
    if len(dataset.train) < 2 * columns:
        raise ConfigError(
            f"batch_size={columns} is too large: {len(dataset.train):,} training tokens "
            f"fill at most {len(dataset.train) // 2:,} columns; use --set batch_size=N or more text"
        )
    processes = place().size
    if over := columns % processes:
        fewer, more = columns - over, columns - over + processes
        raise ConfigError(
            f"batch_size={columns}: {processes} processes cannot share so many columns evenly; "
            f"use --set batch_size={f'{fewer} or {more}' if fewer else more}"
        )
    if config.training.device not in ("auto", "cpu"):
        # Only then is torch needed this early, to say at once that there is no such device.
        from engine.training.device import choose_device

        choose_device(config.training, place())
    return _job(config, dataset, run_writer.create(config, dataset.vocabulary, name, folder))


def resume_job(
    name: str, folder: Path | None = None, change: Callable[[Config], Config] = lambda same: same
) -> TrainingJob:
    """Go on with a run that was stopped, left or killed, exactly where it was.

    Args:
        name: of the run, or its path.
        folder: of the runs.
        change: what the options of a command make of its configuration, which must be the same.

    Raises:
        UnusableInput: its corpus or configuration is another one now, which is named; it is finished, or trained
            already; or anything is damaged.
    """
    path = resolve(name, folder)
    config, vocabulary = read_start(path)
    _check_same(config, change(config), path)
    dataset = prepare(config.data)
    started = next((row for row in current_rows(path / METRICS, outline=True) if row["event"] == "started"), {})
    if started.get("corpus_sha256", dataset.corpus.sha256) != dataset.corpus.sha256:
        raise RunError(
            f"{config.data.corpus} has changed since run {path.name!r} began: its SHA-256 was "
            f"{str(started['corpus_sha256'])[:12]}… and is {dataset.corpus.sha256[:12]}…; "
            "put it back, or train a new run"
        )
    _check_vocabulary(vocabulary, dataset.vocabulary, config.data.corpus)
    if started:
        _check_processes(started.get("processes", 1), path.name)
    return _job(config, dataset, run_writer.reopen(path), resumes=True)


def _job(config: Config, dataset: Dataset, run: run_writer.Run, *, resumes: bool = False) -> TrainingJob:
    return TrainingJob(config, dataset, run, Steering([Requests(run.path, run.asked_before)]), resumes)


def _check_same(config: Config, asked: Config, path: Path) -> None:
    """A run is gone on with as it was begun.

    Raises:
        RunError: something else is asked for.
    """
    for part in ("data", "model", "training"):
        was, now = asdict(getattr(config, part)), asdict(getattr(asked, part))
        for field in was:
            if was[field] != now[field]:
                raise RunError(
                    f"run {path.name!r} was begun with {field}={was[field]} and is gone on with as it is, "
                    f"not with {field}={now[field]}; leave that out, or train a new run"
                )


def _check_processes(then: int, name: str) -> None:
    """As many processes as before: with more or fewer, sums are rounded otherwise.

    Raises:
        RunError: they are not.
    """
    if (now := place().size) != then:
        launcher = "lotr-tui" if then == 1 else f"torchrun --nproc-per-node {then} -m lotr_tui"
        raise RunError(
            f"run {name!r} was trained by {then} process{'es' if then > 1 else ''} and is gone on with by as many, "
            f"not by {now}: {launcher} train --resume {name}"
        )


def _check_vocabulary(then: Vocabulary, now: Vocabulary, corpus: str) -> None:
    """The words must be those that the weights are of.

    Raises:
        RunError: they are not; the first difference is named.
    """
    if then.words != now.words:
        pairs = enumerate(zip_longest(then.words, now.words, fillvalue="no word"))
        number, (was, word) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        raise RunError(
            f"the vocabulary of {corpus} is not the run's any more: word {number} was {was!r} and is {word!r}; "
            "put the corpus back, or train a new run"
        )
