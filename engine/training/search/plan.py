"""Plan of a search: the configuration, the space and the splits that all of its trials share."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config
from engine.errors import ConfigError
from engine.training.distillation.loading import canonical_teachers
from engine.training.job import with_absolute_paths
from engine.training.search.space import SearchSpace
from engine.training.transfer.initial_run import INHERITED_SETTINGS, canonical_name, load_training_input

FEW_VALIDATION_TOKENS = 10_000
"""Size of a validation split below which one split says little about small differences."""
ANNEALED_SCHEDULES = ("one_cycle", "slanted_triangular")
RUNGS_OF_ANNEALED, RUNGS_OF_OTHERS = (0.66,), (0.25, 0.5)
"""Fractions of the first run after which trials are compared, by schedule.

While the learning rate is high, the order of trials says little about their order at the end. In 14 trials of preset
tiny over 12 epochs, Kendall's tau of the two was 0.05 after a quarter, 0.45 after half and 0.80 after two thirds.
"""
NVIDIA_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class SearchPlan:
    """Everything that determines a search, except for its budget."""

    config: Config
    """Configuration of all trials, apart from the settings that are searched."""
    space: SearchSpace
    split_seeds: tuple[int, ...]
    """Seeds of the splits that each trial is trained on, with one run each."""
    corpus_sha256: str

    @property
    def seed(self) -> int:
        """Seed of all trainings and of the proposals."""
        return self.config.training.seed

    @property
    def rungs(self) -> tuple[float, ...]:
        """Numbers of runs after which the worse half of the trials ends: parts of the first run, then whole runs."""
        may_anneal = self.config.training.schedule in ANNEALED_SCHEDULES
        may_anneal = may_anneal or any(dimension.name == "schedule" for dimension in self.space.dimensions)
        fractions = RUNGS_OF_ANNEALED if may_anneal else RUNGS_OF_OTHERS
        return (*fractions, *map(float, range(1, len(self.split_seeds) + 1)))


def make_plan(
    config: Config, space: SearchSpace, split_seeds: Sequence[int] = (), runs_dir: Path | None = None
) -> tuple[SearchPlan, list[str]]:
    """Read the corpus, check that the space fits the configuration, and return the plan and remarks on it.

    Without `split_seeds`, trials are trained on the split of `config`.

    Raises:
        InvalidInputError: If the input is unusable.
    """
    if not space.dimensions:
        raise ConfigError(
            "nothing to search: give at least one --set a range or a choice, such as --set lr=0.002..0.02 or "
            "--set optimizer=adamw,sgd"
        )
    if split_seeds and config.data.valid_corpus:
        raise ConfigError("--split-seeds has no effect on a corpus that is already split; omit it")
    config = with_absolute_paths(config)
    training = config.training
    for name in (dimension.name for dimension in space.dimensions):
        if training.init and name in INHERITED_SETTINGS:
            raise ConfigError(f"{name} cannot be searched: run {training.init!r}, where training starts, determines it")
    # The name "latest" would mean the trial before.
    if training.init:
        config = config.with_values(init=canonical_name(training.init, runs_dir))
    if training.teachers:
        config = config.with_values(teachers=canonical_teachers(training.teacher_names, runs_dir))
    seeds = tuple(split_seeds) or (config.data.split_seed,)
    config = config.with_values(split_seed=seeds[0])
    dataset = load_training_input(config, runs_dir).dataset
    remarks = _list_ineffective(config, space)
    if len(seeds) == 1 and len(dataset.valid) < FEW_VALIDATION_TOKENS:
        remarks.append(
            f"validation has only {len(dataset.valid):,} tokens, so small differences are chance; "
            "--split-seeds 1234,0,1 compares means over three splits"
        )
    return SearchPlan(config, space, seeds, dataset.corpus.sha256), remarks


def check_corpus(plan: SearchPlan, runs_dir: Path | None = None) -> None:
    """Raise a ConfigError if the corpus is no longer the one of the earlier trials."""
    dataset = load_training_input(plan.config, runs_dir).dataset
    if dataset.corpus.sha256 != plan.corpus_sha256:
        raise ConfigError(
            f"{plan.config.data.corpus} has changed since the search was started; restore the file, or start a new one"
        )


def default_num_jobs(config: Config) -> int:
    """Return the number of trainings that run at the same time by default: one per core, or one on a GPU."""
    device = config.training.device
    uses_gpu = device in ("cuda", "mps") or (device == "auto" and NVIDIA_DEVICE.exists())
    return 1 if uses_gpu else os.cpu_count() or 1


def _list_ineffective(config: Config, space: SearchSpace) -> list[str]:
    """Return a remark for each setting of the space that changes nothing."""
    names = {dimension.name for dimension in space.dimensions}
    model = config.model
    is_single_layer = model.num_layers == 1 and not names & {"num_layers", "tie_weights"}
    remarks = []
    if model.architecture == "lstm" and is_single_layer:
        if "hidden_size" in names and model.tie_weights:
            remarks.append("hidden_size changes nothing in one layer with tied weights; search embedding_size instead")
        if "hidden_dropout" in names:
            remarks.append("hidden_dropout changes nothing in one layer; search input_dropout or output_dropout")
    return remarks
