"""Training jobs: checked input and a locked run directory, for a new run or for one to resume."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

from engine.config import BUNDLED, Config
from engine.control import CommandQueue
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers.base import Tokenizer
from engine.errors import ConfigError, RunError
from engine.events import Preparing, TrainingEvent, Warned
from engine.models.transformer_layout import check_transformer_config
from engine.runs.adapter_files import base_files
from engine.runs.control_files import CommandFileReader
from engine.runs.directory import METRICS_FILE, read_config_and_tokenizer, resolve_run
from engine.runs.locked_run import LockedRun, create_run, reopen_run
from engine.runs.metrics import read_current_rows
from engine.runs.writer import record_events
from engine.runtime.packages import require_torch
from engine.runtime.process import get_process_info, limit_openmp_spinning
from engine.storage.files import absolute_path
from engine.training.diagnostics.diagnose import diagnose
from engine.training.transfer.initial_run import TrainingInput, canonical_name, load_training_input


@dataclass(frozen=True)
class TrainingJob:
    """A checked configuration, its data, and the run directory for the result."""

    config: Config
    dataset: Dataset
    run: LockedRun
    command_queue: CommandQueue
    is_resume: bool = False

    def events(
        self, cancelled: Callable[[], bool], take_problems: Callable[[], Sequence[str]] = lambda: ()
    ) -> Iterator[TrainingEvent]:
        """Train, and yield every event once it is recorded in the run directory.

        PyTorch is imported here, so that a caller can import it in the thread that trains.

        Args:
            cancelled: Function that returns True if the training should save and stop.
            take_problems: Function that returns new problems of other readers of the events, such as experiment
                trackers, without waiting. They are recorded as warnings.
        """
        return record_events(self.run, _with_warnings(self._train(cancelled), take_problems))

    def _train(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        yield Preparing("loading PyTorch")
        limit_openmp_spinning()
        from engine.training.run import train_run

        training = train_run(
            self.config, self.dataset, self.run.path, cancelled, self.command_queue, is_resume=self.is_resume
        )
        yield from diagnose(training, self.config, self.run.path)


def _with_warnings(
    training: Iterator[TrainingEvent], take_problems: Callable[[], Sequence[str]]
) -> Iterator[TrainingEvent]:
    """Yield the events of a training, and problems of others as warnings before the event that follows them."""
    for event in training:
        yield from map(Warned, take_problems())
        yield event


def prepare_job(
    config: Config,
    run_name: str | None = None,
    runs_dir: Path | None = None,
    load: Callable[[Config, Path | None], TrainingInput] = load_training_input,
) -> TrainingJob:
    """Read the data, check that the data fits the configuration, and create the run directory.

    `load` reads the data; a caller with many jobs may pass a function that remembers the results of
    `load_training_input`.

    Raises:
        InvalidInputError: If the input is unusable, or PyTorch is not installed; nothing is written then.
    """
    require_torch()
    config = with_absolute_paths(config)
    if config.model.architecture == "transformer":
        check_transformer_config(config.model)
        _check_window(config)
    if init := config.training.init:
        config = config.with_values(init=canonical_name(init, runs_dir))
    dataset, initial_weights, base = load(config, runs_dir)
    if config.training.teachers:
        limit_openmp_spinning()
        from engine.training.distillation.loading import check_teachers  # loads PyTorch

        config = check_teachers(config, dataset, runs_dir)
    _check_teacher_columns(config)
    _check_batch_size(config.training.batch_size, len(dataset.train))
    if config.training.device not in ("auto", "cpu"):
        # Loads PyTorch early, to report a missing device before the run is created.
        from engine.training.device import choose_device

        choose_device(config.training, get_process_info())
    files = {} if base is None else base_files(base, config.model)
    if dataset.cast:
        limit_openmp_spinning()
        from engine.training.dialogue_parts import fit_dialogue_parts  # loads PyTorch

        files |= fit_dialogue_parts(dataset.splits.train, dataset.splits.valid, dataset.cast)
    run = create_run(config, dataset.tokenizer, run_name, runs_dir, initial_weights, files)
    return _make_job(config, dataset, run)


def resume_job(
    run: str, runs_dir: Path | None = None, apply_options: Callable[[Config], Config] = lambda config: config
) -> TrainingJob:
    """Prepare to resume a run that was stopped, detached or killed.

    `apply_options` applies command-line options to the run's configuration, to check that they do not change it.

    Raises:
        InvalidInputError: If the corpus or the configuration has changed, the run is finished or being trained, or a
            file is damaged, or PyTorch is not installed.
    """
    require_torch()
    run_dir = resolve_run(run, runs_dir)
    config, tokenizer = read_config_and_tokenizer(run_dir)
    _check_config_unchanged(config, apply_options(config), run_dir)
    dataset = load_dataset(config.data, tokenizer)
    rows = read_current_rows(run_dir / METRICS_FILE, subsample=True)
    started = next((row for row in rows if row["event"] == "started"), {})
    sha256 = started.get("corpus_sha256", dataset.corpus.sha256)
    if sha256 != dataset.corpus.sha256:
        raise RunError(
            f"{config.data.corpus} has changed since run {run_dir.name!r} was started: its SHA-256 was "
            f"{str(sha256)[:12]}… and is now {dataset.corpus.sha256[:12]}…; restore the file, or train a new run"
        )
    _check_vocabulary(tokenizer, dataset.tokenizer, config.data.corpus)
    if started:
        _check_world_size(started.get("world_size", 1), run_dir.name)
    return _make_job(config, dataset, reopen_run(run_dir), is_resume=True)


def _make_job(config: Config, dataset: Dataset, run: LockedRun, *, is_resume: bool = False) -> TrainingJob:
    command_queue = CommandQueue([CommandFileReader(run.path, run.commands_offset)])
    return TrainingJob(config, dataset, run, command_queue, is_resume)


def with_absolute_paths(config: Config) -> Config:
    """Make the paths of corpora absolute, so that the run finds them again from any directory."""
    data = config.data
    paths = {"corpus": data.corpus, "valid_corpus": data.valid_corpus, "test_corpus": data.test_corpus}
    absolute = {name: str(absolute_path(Path(path))) for name, path in paths.items() if path not in ("", BUNDLED)}
    return config.with_values(**absolute)


def _check_window(config: Config) -> None:
    """Raise a ConfigError if the windows of the training and the context of a Transformer do not fit together.

    A Transformer from random weights needs windows as long as its context: other positions would stay untrained.
    """
    training, context = config.training, config.model.context_size
    if training.variable_bptt:
        raise ConfigError(
            "variable_bptt=true makes windows that a transformer cannot read; use --set variable_bptt=false"
        )
    if training.bptt > context:
        raise ConfigError(
            f"bptt={training.bptt} makes windows that a transformer with context_size={context} cannot read; "
            f"use --set bptt={context}"
        )
    if training.bptt < context and not training.init:
        raise ConfigError(
            f"bptt={training.bptt} trains only the first positions of a transformer with context_size={context}; "
            f"use --set context_size={training.bptt} or --set bptt={context}"
        )


def _check_teacher_columns(config: Config) -> None:
    """Raise a ConfigError if `teacher_columns` is set without teachers, or in a distributed training."""
    if not config.training.teacher_columns:
        return
    if not config.training.teachers:
        raise ConfigError("teacher_columns needs teachers that write the text; add --teacher RUN")
    if get_process_info().world_size > 1:
        raise ConfigError("teacher_columns needs a single process; use --set teacher_columns=0, or omit torchrun")


def _check_batch_size(batch_size: int, num_tokens: int) -> None:
    """Raise a ConfigError if the batch cannot be filled, or not be divided among the processes."""
    if num_tokens < 2 * batch_size:
        raise ConfigError(
            f"batch_size={batch_size} is too large: {num_tokens:,} training tokens "
            f"fill at most {num_tokens // 2:,} columns; use --set batch_size=N or more text"
        )
    processes = get_process_info().world_size
    if remainder := batch_size % processes:
        smaller, larger = batch_size - remainder, batch_size - remainder + processes
        raise ConfigError(
            f"batch_size={batch_size} is not a multiple of {processes} processes; "
            f"use --set batch_size={f'{smaller} or {larger}' if smaller else larger}"
        )


def _check_config_unchanged(config: Config, requested: Config, run_dir: Path) -> None:
    """Raise a RunError if command-line options change the configuration of a run."""
    new_settings = asdict(requested)
    for part, settings in asdict(config).items():
        if part == "preset":
            continue
        for name, value in settings.items():
            if value != (new_value := new_settings[part][name]):
                raise RunError(
                    f"run {run_dir.name!r} was started with {name}={value} and cannot be resumed with "
                    f"{name}={new_value}; omit that option, or train a new run"
                )


def _check_world_size(expected: int, run_name: str) -> None:
    """Raise a RunError unless as many processes train as before. Another number rounds sums differently."""
    if (actual := get_process_info().world_size) != expected:
        launcher = "lotr-tui" if expected == 1 else f"torchrun --nproc-per-node {expected} -m lotr_tui"
        raise RunError(
            f"run {run_name!r} was trained by {expected} process{'es' if expected > 1 else ''} and cannot be resumed "
            f"by {actual}; use {launcher} train --resume {run_name}"
        )


def _check_vocabulary(expected: Tokenizer, actual: Tokenizer, corpus: str) -> None:
    """Raise a RunError that names the first difference if the corpus has another vocabulary than the weights."""
    if expected.tokens == actual.tokens:
        return
    pairs = enumerate(zip_longest(expected.tokens, actual.tokens, fillvalue="missing"))
    index, (before, now) = next((index, pair) for index, pair in pairs if pair[0] != pair[1])
    raise RunError(
        f"the vocabulary of {corpus} has changed since the run was started: token {index} was {before!r} and is now "
        f"{now!r}; restore the corpus, or train a new run"
    )
