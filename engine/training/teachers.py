"""Teachers of a training: trained runs whose averaged predictions a student learns besides the text itself."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.config import BASE, BUNDLED, Config
from engine.data.dataset import Dataset
from engine.errors import ConfigError
from engine.models.network import Network, RecurrentState
from engine.models.networks import build_network
from engine.runs.loading import LoadedRun, find_model, load_model
from engine.storage.files import absolute_path
from engine.training.batches import Window

SEPARATOR = ","
"""Character between the names of teachers in the setting `teachers`."""
STATE_PREFIX = "teacher_state"


def canonical_teachers(names: Sequence[str], runs_dir: Path | None = None) -> str:
    """Return the value of the setting `teachers` for names of runs: absolute paths, or names of bundled runs.

    Raises:
        InvalidInputError: If there is no such run, or a run is given twice.
    """
    canonical = []
    for name in names:
        path, epoch = (None, None) if name in (BASE, BUNDLED) else find_model(name, runs_dir)
        full = name if path is None else str(absolute_path(path))
        full = full if epoch is None else f"{full}@{epoch}"
        if SEPARATOR in full:
            raise ConfigError(f"--teacher {name} has a comma in its path; rename the run or its folder")
        if full in canonical:
            raise ConfigError(f"--teacher {name} is given twice; give each teacher once")
        canonical.append(full)
    return SEPARATOR.join(canonical)


def check_teachers(config: Config, dataset: Dataset, runs_dir: Path | None = None) -> Config:
    """Return the configuration with canonical names of its teachers, which fit its student.

    Raises:
        InvalidInputError: If a teacher is missing, damaged or does not fit.
    """
    names = [name.strip() for name in config.training.teachers.split(SEPARATOR)]
    config = config.with_values(teachers=canonical_teachers(names, runs_dir))
    load_teachers(config, dataset)
    return config


def load_teachers(config: Config, dataset: Dataset) -> list[LoadedRun]:
    """Load the runs that the setting `teachers` names, and check that their predictions fit the student.

    Raises:
        InvalidInputError: If a run is missing or damaged.
        ConfigError: If a teacher has other tokens than the student, or learns punctuation and the student does not.
    """
    loaded = []
    for name in filter(None, config.training.teachers.split(SEPARATOR)):
        teacher = load_model(*find_model(name))
        if teacher.decoder.tokenizer != dataset.tokenizer:
            raise ConfigError(_different_tokens(teacher, config, dataset))
        if teacher.config.model.punctuation != config.model.punctuation:
            value = str(teacher.config.model.punctuation).lower()
            raise ConfigError(
                f"teacher {teacher.name} was trained with punctuation={value}, and its predictions fit no other "
                f"student; use --set punctuation={value}, or another teacher"
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


class Teachers:
    """Networks that read the same windows as the student, each with its own state."""

    def __init__(self, networks: Sequence[Network], batch_size: int) -> None:
        """Use trained `networks` on windows with `batch_size` columns."""
        self.networks = networks
        self._batch_size = batch_size
        self._states: list[RecurrentState] = []

    @classmethod
    def from_runs(
        cls, runs: Sequence[LoadedRun], dataset: Dataset, device: torch.device, batch_size: int
    ) -> "Teachers":
        """Build the networks of runs."""
        networks = []
        for run in runs:
            # Exported embeddings include the vectors of subwords.
            config = run.config.with_values(subword_embeddings=False, init="")
            network = build_network(config, dataset, run.decoder.weights).to(device)
            networks.append(network.requires_grad_(False))
        return cls(networks, batch_size)

    @torch.no_grad()
    def predict(self, window: Window) -> Tensor:
        """Return the mean of the teachers' probabilities `[time, batch, vocabulary]` of the targets of a window.

        With a punctuation softmax, these are the probabilities given the punctuation before each target.
        """
        if window.start == 0 or not self._states:
            self._states = [network.initial_state(self._batch_size) for network in self.networks]
        probs: Tensor | None = None
        for index, network in enumerate(self.networks):
            output = network(
                window.inputs, self._states[index], punctuation=window.punctuation, speakers=window.speakers
            )
            self._states[index] = output.state
            own = torch.softmax(output.logits.float(), dim=-1)
            probs = own if probs is None else probs.add_(own)
        assert probs is not None, "there is a teacher"
        return probs.div_(len(self.networks))

    def state_dict(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return the states as tensors, for a checkpoint in the middle of an epoch.

        `gather` collects the columns of all processes.
        """
        return {
            f"{STATE_PREFIX}.{teacher}.{layer}.{name}": gather(tensor)
            for teacher, state in enumerate(self._states)
            for layer, pair in enumerate(state)
            for name, tensor in zip(("hidden", "cell"), pair, strict=True)
        }

    def load_state_dict(self, tensors: Mapping[str, Any], shard: Callable[[Tensor], Tensor]) -> None:
        """Restore what `state_dict` returned; `shard` selects the columns of this process.

        Raises:
            LookupError: If a tensor is missing.
            ValueError: If a tensor has another shape.
        """
        states: list[RecurrentState] = []
        for teacher, network in enumerate(self.networks):
            layers = []
            for layer, expected in enumerate(network.initial_state(self._batch_size)):
                pair = [shard(tensors[f"{STATE_PREFIX}.{teacher}.{layer}.{name}"]) for name in ("hidden", "cell")]
                if any(tensor.shape != like.shape for tensor, like in zip(pair, expected, strict=True)):
                    raise ValueError("unexpected shape of a teacher's state")
                layers.append((pair[0].to(expected[0].device), pair[1].to(expected[1].device)))
            states.append(layers)
        self._states = states
