"""Teachers that read the windows of a student."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.data.dataset import Dataset
from engine.models.network import Network, RecurrentState
from engine.models.networks import build_network
from engine.runs.loading import LoadedRun
from engine.training.batches import Window
from engine.training.distillation.predictions import Predictions

STATE_PREFIX = "teacher_state"


class TeacherReader:
    """Networks that read the same windows as the student, each with its own state."""

    def __init__(self, networks: Sequence[Network], batch_size: int) -> None:
        """Use trained `networks` on windows with `batch_size` columns."""
        self.networks = networks
        self._batch_size = batch_size
        self._states: list[RecurrentState] = []

    @classmethod
    def from_runs(
        cls, runs: Sequence[LoadedRun], dataset: Dataset, device: torch.device, batch_size: int
    ) -> "TeacherReader":
        """Build the networks of runs."""
        networks = []
        for run in runs:
            # Exported embeddings include the vectors of subwords.
            config = run.config.with_values(subword_embeddings=False, init="")
            network = build_network(config, dataset, run.decoder.weights).to(device)
            networks.append(network.requires_grad_(False))
        return cls(networks, batch_size)

    @torch.no_grad()
    def predict(self, window: Window) -> Predictions:
        """Return the mean of the teachers' predictions of the targets of a window."""
        if window.start == 0 or not self._states:
            self._states = [network.initial_state(self._batch_size) for network in self.networks]
        predictions = []
        for index, network in enumerate(self.networks):
            output = network(window.inputs, self._states[index], punctuation=window.punctuation)
            self._states[index] = output.state
            softmax = network.punctuation_softmax
            gates = None if softmax is None else softmax.gate_log_probs(output.raw).exp()
            predictions.append(Predictions(torch.softmax(output.logits.float(), dim=-1), gates))
        return Predictions.mean(predictions)

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
