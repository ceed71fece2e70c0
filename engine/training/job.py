"""Training jobs: checked input and a locked run directory, for a new run or for one to resume."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from engine.config import TEACHER_SEPARATOR, Config
from engine.control import CommandQueue
from engine.data.arrays import Float64Array
from engine.data.corpus import Lines
from engine.data.dataset import Dataset, load_dataset
from engine.data.speakers import CAST_FILE, SOMEONE, cast_to_json
from engine.errors import ConfigError, RunError
from engine.events import Preparing, Started, TrainingEvent, Warned
from engine.models import dialogue
from engine.models.transformer_layout import check_transformer_config
from engine.runs.directory import DIALOGUE_FILE, METRICS_FILE, WHO_FILE, resolve_run
from engine.runs.loading import base_files, read_config_and_tokenizer
from engine.runs.locked_run import CommandFileReader, LockedRun, create_run, record_events, reopen_run
from engine.runs.metrics import read_current_events
from engine.runtime.process import get_process_info, require_package
from engine.training.diagnoses import diagnose
from engine.training.initial_run import canonical_config, canonical_name, load_training_input

POWER_L2 = 5.0  # of 2, 5, 10 and 20 the best on validation lines of other splits of the film dialogues
MAX_POWER_LINES = 4000  # that the powers are fitted to, fewer for a large cast; of a longer split, the first ones


class TrainingJob:
    def __init__(self, config: Config, dataset: Dataset, run: LockedRun, *, is_resume: bool = False) -> None:
        self.config, self.dataset, self.run, self.is_resume = config, dataset, run, is_resume
        self.command_queue = CommandQueue(CommandFileReader(run.path, run.commands_offset))

    def events(
        self, cancelled: Callable[[], bool], take_problems: Callable[[], Sequence[str]] = lambda: ()
    ) -> Iterator[TrainingEvent]:
        """Train until `cancelled` returns True; yield every event, and what `take_problems` returns, as recorded."""
        self.command_queue.cancelled = cancelled

        def train() -> Iterator[TrainingEvent]:
            yield Preparing("loading PyTorch")
            from engine.training.trainer import train_run

            training = train_run(self.config, self.dataset, self.run.path, self.command_queue, is_resume=self.is_resume)
            for event in diagnose(training, self.config, self.run.path):
                yield from map(Warned, take_problems())
                yield event

        return record_events(self.run, train())


def prepare_job(config: Config, run_name: str | None = None, runs_dir: Path | None = None) -> TrainingJob:
    """Read the data, check that it fits the configuration, and create the run directory.

    Unusable input, or a missing PyTorch, raises an InvalidInputError; nothing is written then.
    """
    require_package("torch")
    _check_settings(config)
    config = canonical_config(config, runs_dir)
    dataset, initial_weights, base = load_training_input(config, runs_dir)
    if config.training.teachers:
        from engine.training.windows import load_teachers  # loads PyTorch

        init, teachers = config.training.init, config.training.teachers.split(TEACHER_SEPARATOR)
        if init and canonical_name(init, runs_dir, keep_name=False) in teachers:
            raise ConfigError(
                f"run {init} is a teacher and the initial model, so the student starts with all that it could learn; "
                "use another --teacher, or omit --init"
            )
        load_teachers(config, dataset)
    if (num_tokens := len(dataset.train)) < 2 * config.training.batch_size:
        raise ConfigError(
            f"batch_size={config.training.batch_size} is too large: {num_tokens:,} training tokens "
            f"fill at most {num_tokens // 2:,} columns; use --set batch_size=N or more text"
        )
    if config.training.device not in ("auto", "cpu"):
        from engine.training.state import choose_device  # loads PyTorch early: a missing device is reported now

        choose_device(config.training)
    files = {} if base is None else base_files(base, config.model)
    if dataset.cast:
        files |= fit_dialogue_parts(dataset.splits.train, dataset.splits.valid, dataset.cast)
    run = create_run(config, dataset.tokenizer, run_name, runs_dir, initial_weights, files)
    return TrainingJob(config, dataset, run)


def resume_job(
    run: str, runs_dir: Path | None = None, apply_options: Callable[[Config], Config] = lambda config: config
) -> TrainingJob:
    """Prepare to resume a run; one that cannot be resumed exactly raises an InvalidInputError.

    `apply_options` applies command-line options, to check that they do not change the run's configuration.
    """
    require_package("torch")
    run_dir = resolve_run(run, runs_dir)
    config, tokenizer = read_config_and_tokenizer(run_dir)
    if change := config.difference(apply_options(config)):
        name, before, now = change
        raise RunError(
            f"run {run_dir.name!r} was started with {name}={before} and cannot be resumed with {name}={now}; "
            "omit that option, or train a new run"
        )
    dataset = load_dataset(config.data, tokenizer)
    recorded = read_current_events(run_dir / METRICS_FILE, subsample=True)
    started = next((event for event in recorded if isinstance(event, Started)), None)
    sha256 = started.corpus_sha256 if started else dataset.corpus.sha256
    if sha256 != dataset.corpus.sha256:
        raise RunError(
            f"{config.data.corpus} has changed since run {run_dir.name!r} was started: its SHA-256 was "
            f"{str(sha256)[:12]}… and is now {dataset.corpus.sha256[:12]}…; restore the file, or train a new run"
        )
    if tokenizer.tokens != dataset.tokenizer.tokens:  # a closed vocabulary is built from the corpus again
        raise RunError(
            f"the vocabulary of {config.data.corpus} has changed since the run was started; restore the corpus, or "
            "train a new run"
        )
    actual = get_process_info().world_size
    expected = started.world_size if started else actual
    if expected != actual:  # sums would be rounded differently
        launcher = "lotr-tui" if expected == 1 else f"torchrun --nproc-per-node {expected} -m lotr_tui"
        raise RunError(
            f"run {run_dir.name!r} was trained by {expected} process{'es' if expected > 1 else ''} and cannot be "
            f"resumed by {actual}; use {launcher} train --resume {run_dir.name}"
        )
    return TrainingJob(config, dataset, reopen_run(run_dir), is_resume=True)


def _check_settings(config: Config) -> None:
    """Raise a ConfigError if settings do not fit together, or the batch cannot be divided among the processes."""
    training, context, processes = config.training, config.model.context_size, get_process_info().world_size
    is_transformer = config.model.architecture == "transformer"
    if is_transformer:
        check_transformer_config(config.model)
    batch_size, bptt, columns = training.batch_size, training.bptt, training.teacher_columns
    smaller = batch_size - batch_size % processes
    divisible = f"{smaller} or {smaller + processes}" if smaller else f"{processes}"
    unreadable = "makes windows that a transformer"
    checks = [
        (is_transformer and training.variable_bptt,
         f"variable_bptt=true {unreadable} cannot read; use --set variable_bptt=false"),
        (is_transformer and bptt > context,
         f"bptt={bptt} {unreadable} with context_size={context} cannot read; use --set bptt={context}"),
        (is_transformer and bptt < context and not training.init,  # later positions would stay untrained
         f"bptt={bptt} trains only the first positions of a transformer with context_size={context}; "
         f"use --set context_size={bptt} or --set bptt={context}"),
        (columns and not training.teachers,
         "teacher_columns needs teachers that write the text; add --teacher RUN"),
        (columns and processes > 1,
         "teacher_columns needs a single process; use --set teacher_columns=0, or omit torchrun"),
        (batch_size % processes,
         f"batch_size={batch_size} is not a multiple of {processes} processes; use --set batch_size={divisible}"),
    ]  # fmt: skip
    if problem := next((text for is_wrong, text in checks if is_wrong), ""):
        raise ConfigError(problem)


def fit_dialogue_parts(train: Lines, valid: Lines, cast: Sequence[str]) -> dict[str, bytes]:
    """Fit the models of the speakers to training lines, and their powers to validation lines; return their files."""
    scenes = spoken_scenes(train, cast)
    turn_model, text_model = dialogue.TurnModel.fit(cast, scenes), dialogue.SpeakerTextModel.fit(len(cast), scenes)
    evidence: list[tuple[Float64Array, Float64Array, Float64Array]] = []
    indices: list[int] = []
    max_lines = min(MAX_POWER_LINES, 1 + dialogue.MAX_DESIGN_ELEMENTS // (3 * len(cast)))
    for scene in spoken_scenes(valid, cast):
        state = dialogue.TurnState()
        for line in scene[: max_lines - len(indices)]:
            evidence.append((turn_model.log_frequencies, turn_model.log_probs(state), text_model.scores(line.text)))
            indices.append(line.speaker)
            state = state.after(line, turn_model.cast)
    if indices:  # the powers make the speakers of lines without and with a scene likeliest
        features, chosen = np.array(evidence).transpose(0, 2, 1), np.array(indices)  # [lines, cast, evidence]
        fits = [dialogue.fit_conditional_logit(features[:, :, [prior, 2]], chosen, POWER_L2) for prior in (0, 1)]
        without, after = (dialogue.EvidencePowers(*np.clip(fit, 0, dialogue.MAX_POWER).tolist()) for fit in fits)
        text_model = replace(text_model, powers=(without, after))
    files = {DIALOGUE_FILE: msgspec.json.encode(turn_model), WHO_FILE: msgspec.json.encode(text_model)}
    return {CAST_FILE: cast_to_json(cast).encode(), **files}


def spoken_scenes(lines: Lines, cast: Sequence[str]) -> list[list[dialogue.SpokenLine]]:
    """Return the scenes of lines in file order, with the speakers as indices in the cast."""
    indices = {name: dialogue.cast_index(name, cast) for name in (SOMEONE, *lines.speaker_names)}
    return [[dialogue.SpokenLine(indices[turn.speaker], turn.text) for turn in scene] for scene in lines.scenes()]
