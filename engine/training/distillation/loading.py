"""Names of teachers, and the checks that they fit their student."""

from collections.abc import Sequence
from pathlib import Path

from engine.config import TEACHER_SEPARATOR, Config
from engine.data.dataset import Dataset
from engine.errors import ConfigError
from engine.models.numpy_lstm import NumpyLSTM
from engine.runs.directory import BUNDLED_FOLDERS
from engine.runs.loading import LoadedRun, find_model, load_model
from engine.storage.files import absolute_path


def canonical_teachers(names: Sequence[str], runs_dir: Path | None = None) -> str:
    """Return the value of the setting `teachers` for names of runs: absolute paths, or names of bundled runs.

    Raises:
        InvalidInputError: If there is no such run, or a run is given twice.
    """
    canonical = []
    for name in names:
        path, epoch = (None, None) if name in BUNDLED_FOLDERS else find_model(name, runs_dir)
        full = name if path is None else str(absolute_path(path))
        full = full if epoch is None else f"{full}@{epoch}"
        if TEACHER_SEPARATOR in full:
            raise ConfigError(f"--teacher {name} has a comma in its path; rename the run or its folder")
        if full in canonical:
            raise ConfigError(f"--teacher {name} is given twice; give each teacher once")
        canonical.append(full)
    return TEACHER_SEPARATOR.join(canonical)


def check_teachers(config: Config, dataset: Dataset, runs_dir: Path | None = None) -> Config:
    """Return the configuration with canonical names of its teachers, which fit its student.

    Raises:
        InvalidInputError: If a teacher is missing, damaged or does not fit.
    """
    config = config.with_values(teachers=canonical_teachers(config.training.teacher_names, runs_dir))
    init = config.training.init
    if init and canonical_teachers([init], runs_dir) in config.training.teacher_names:
        raise ConfigError(
            f"run {init} is a teacher and the initial model, so the student starts with all that it could learn; "
            "use another --teacher, or omit --init"
        )
    load_teachers(config, dataset)
    return config


def load_teachers(config: Config, dataset: Dataset) -> list[LoadedRun]:
    """Load the runs that the setting `teachers` names, and check that their predictions fit the student.

    Raises:
        InvalidInputError: If a run is missing or damaged.
        ConfigError: If a teacher is an adapter, has other tokens than the student, learns punctuation and the student
            does not, or cannot write text.
    """
    loaded = []
    for name in config.training.teacher_names:
        teacher = load_model(*find_model(name))
        if teacher.config.model.lora_rank:
            raise ConfigError(f"teacher {teacher.name} is an adapter, which cannot teach; start from it with --init")
        if teacher.decoder.tokenizer != dataset.tokenizer:
            raise ConfigError(_different_tokens(teacher, config, dataset))
        if teacher.config.model.punctuation != config.model.punctuation:
            value = str(teacher.config.model.punctuation).lower()
            raise ConfigError(
                f"teacher {teacher.name} was trained with punctuation={value}, and its predictions fit no other "
                f"student; use --set punctuation={value}, or another teacher"
            )
        if config.training.teacher_columns and not isinstance(teacher.decoder, NumpyLSTM):
            raise ConfigError(
                f"teacher {teacher.name} is a transformer, and only LSTMs write text for a student; use --set "
                "teacher_columns=0, or another teacher"
            )
        loaded.append(teacher)
    return loaded


def _different_tokens(teacher: LoadedRun, config: Config, dataset: Dataset) -> str:
    name, kind = teacher.config.data.tokenizer, config.data.tokenizer
    if name != kind:
        return (
            f"teacher {teacher.name} has the tokenizer {name}, and the student {kind}; use --tokenizer {name}, or "
            "another teacher"
        )
    sizes = f"{len(teacher.decoder.tokenizer):,} and {len(dataset.tokenizer):,} tokens"
    return (
        f"teacher {teacher.name} has another vocabulary than the student ({sizes}); train both on the same corpus with "
        "the same split"
    )
