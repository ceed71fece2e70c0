"""All that a training needs to go on exactly where it was, in one safetensors file: tensors, and the rest as JSON."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.config import Config
from engine.errors import RunError
from engine.models.lstm import States
from engine.models.numpy_lstm import Decoder
from engine.runs.store import PREVIOUS, RESUME
from engine.storage.tensor_file import read_header
from engine.training.averaging import WeightAverage

if TYPE_CHECKING:
    from engine.training.trainer import Loop

PLAIN = (
    "step", "epoch", "epoch_number", "last_epoch", "position", "evaluation_due", "plateau_factor", "lr_share",
    "sample_prompt", "fine_tuning", "history", "best_perplexity", "claimed", "evaluations_since_best", "impatient",
)  # fmt: skip
"""Attributes of a `Loop` that are numbers, texts or lists of them."""

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each parameter; SGD keeps nothing."""
MOST_COPIES = 8
"""Tensors as large as the model's: five at most, and some that are larger by what the embeddings share."""
MOST_OF_GENERATORS = 1_000_000
DAMAGE = (
    RunError, SafetensorError, OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError,
    AttributeError,
)  # fmt: skip
"""What reading a damaged file may raise."""


def pack(loop: "Loop", states: States) -> bytes:
    """The content of `resume.safetensors`: weights, average, optimizer, best model, generators, text, hidden state.

    `states` are those of all columns, whichever process reads them.
    """
    assert loop.best is not None
    tensors: dict[str, Tensor] = dict(_named("network", loop.network))
    tensors["masks"] = loop.masks.get_state()
    tensors |= {f"best.{name}": torch.from_numpy(value) for name, value in loop.best.weights.items()}
    if loop.average is not None:
        tensors |= _named("average", loop.average.network)
    for number, values in loop.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
    if loop.text is not None:
        for layer, (hidden, cell) in enumerate(states):
            tensors |= {f"states.{layer}.hidden": hidden, f"states.{layer}.cell": cell}
    rest = {name: getattr(loop, name) for name in PLAIN} | {
        "config": asdict(loop.config),
        "seconds": time.perf_counter() - loop.started,
        "chance": loop.chance.getstate(),
        "chance_before_epoch": None if loop.text is None else loop.text.chance,
        "averaged_updates": None if loop.average is None else loop.average.updates,
    }
    # Tied weights are one tensor of two names; each has its own copy in the file.
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save(whole, metadata={"format": "lotr-tui resume", "rest": json.dumps(rest)})


def newest_saved(folder: Path) -> tuple["Saved | None", str]:
    """What was saved last in a run directory, None where nothing was, and a line to be told, "" if there is none.

    Where the last file is damaged or not there, the one before takes its place: the next saving must not put
    the damaged one in its stead.

    Raises:
        RunError: there is a file, and none is whole.
    """
    path, previous = folder / RESUME, folder / PREVIOUS
    if not path.exists() and not previous.exists():
        return None, ""
    try:
        return Saved(path), ""
    except RunError as error:
        why = "damaged" if path.exists() else "missing"
        try:
            Saved(previous)
            previous.replace(path)
        except (RunError, OSError):
            raise error from None
        saved = Saved(path)
        return saved, f"{path} was {why}; the training goes on from the saving before it, of update {saved.step:,}"


class Saved:
    """The content of a `resume.safetensors`."""

    def __init__(self, path: Path) -> None:
        """Read all but the tensors, for which room is made once they are known to be those of the training.

        Raises:
            RunError: it is missing, damaged or of another kind.
        """
        self.path = path
        self.tensors: dict[str, Tensor] = {}
        """Read by `restore`."""
        try:
            header = read_header(path)
            self._bytes = header.bytes
            self.rest: dict[str, Any] = json.loads(header.metadata["rest"])
            _check_numbers(self.rest)
            self.step = int(self.rest["step"])
            self.seconds = float(self.rest["seconds"])
        except FileNotFoundError as error:
            raise RunError(f"{path} is missing; the run cannot be resumed") from error
        except DAMAGE as error:
            raise self._damaged() from error

    def check(self, config: Config) -> None:
        """See that it is of a training with this configuration.

        Raises:
            RunError: it is not; the first difference is named.
        """
        saved, now = self.rest.get("config"), asdict(config)
        if not isinstance(saved, dict):
            raise self._damaged()
        for part, values in now.items():
            was = saved.get(part)
            if not isinstance(values, dict) or not isinstance(was, dict):
                continue
            for name, value in values.items():
                if was.get(name) != value:
                    raise RunError(
                        f"{self.path} was saved with {name}={was.get(name)} but the configuration says {name}={value}; "
                        f"put {name} back, or train a new run"
                    )

    def restore(self, loop: "Loop") -> None:
        """Make `loop` what it was.

        Raises:
            RunError: the file is not of such a training.
        """
        try:
            self._read_tensors(loop)
            self._restore(loop)
        except DAMAGE as error:
            raise self._damaged() from error

    def _read_tensors(self, loop: "Loop") -> None:
        """Those of a training: weights, average, best and what the optimizer keeps, each as large as the model."""
        model = sum(parameter.numel() for parameter in loop.network.parameters())
        states = sum(2 * hidden * loop.options.batch_size for _, hidden in loop.config.model.layer_sizes())
        if self._bytes > 4 * (MOST_COPIES * model + states) + MOST_OF_GENERATORS:
            raise ValueError("there is more in it than a training has")
        with safe_open(self.path, framework="pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def _restore(self, loop: "Loop") -> None:
        rest = self.rest
        for name in PLAIN:
            kind = type(getattr(loop, name))
            if not isinstance(rest[name], kind):
                raise TypeError(name)
            setattr(loop, name, rest[name])
        _load("network", loop.network, self.tensors)
        weights = {name.removeprefix("best."): value.numpy() for name, value in self._of("best.").items()}
        loop.best = Decoder(loop.config.model, loop.dataset.vocabulary, weights)
        if loop.fine_tuning:
            loop.use_sgd()
        if rest["averaged_updates"] is None:
            loop.average = None
        else:
            if loop.average is None or loop.fine_tuning:
                loop.average = WeightAverage(loop.network)
            _load("average", loop.average.network, self.tensors)
            loop.average.updates = int(rest["averaged_updates"])
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [parameter for group in loop.optimizer.param_groups for parameter in group["params"]]
        for name, value in self._of("optimizer.").items():
            _, number, field = name.split(".")
            shape = () if field == "step" else parameters[int(number)].shape
            if field not in MOMENTS or value.dtype != torch.float32 or value.shape != shape:
                raise ValueError(name)
            state.setdefault(int(number), {})[field] = value
        if any(len(its) != len(MOMENTS) for its in state.values()):
            raise ValueError("a part of what the optimizer kept is missing")
        loop.optimizer.load_state_dict({"state": state, "param_groups": loop.optimizer.state_dict()["param_groups"]})
        loop.masks.set_state(self.tensors["masks"])
        if rest["chance_before_epoch"] is not None:
            loop.chance.setstate(_tuples(rest["chance_before_epoch"]))
            position = loop.position
            loop.begin_epoch()
            assert loop.text is not None
            if position >= len(loop.text.columns):
                raise ValueError("position")
            loop.position = position
            loop.states = [
                (
                    self._state(loop, f"states.{layer}.hidden", hidden),
                    self._state(loop, f"states.{layer}.cell", cell),
                )
                for layer, (hidden, cell) in enumerate(loop.states)
            ]
        loop.chance.setstate(_tuples(rest["chance"]))

    def _state(self, loop: "Loop", name: str, like: Tensor) -> Tensor:
        """This process's columns of a state, which has the shape of `like`."""
        state = loop.world.columns(self.tensors[name])
        if state.shape != like.shape or not state.is_floating_point():
            raise ValueError(name)
        return state.to(loop.device)

    def _of(self, prefix: str) -> dict[str, Tensor]:
        return {name: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def _damaged(self) -> RunError:
        return RunError(f"{self.path} is damaged or no such file; the run cannot be resumed from it")


def _check_numbers(rest: Any) -> None:
    """Raises: ValueError, KeyError, TypeError: a number is none that a training has."""
    for name in ("step", "epoch", "epoch_number", "last_epoch", "position", "evaluations_since_best", "seconds"):
        if not 0 <= rest[name] < 2**53:  # neither is NaN
            raise ValueError(name)
    for name in ("plateau_factor", "lr_share"):
        if not 0 <= rest[name] <= 1:
            raise ValueError(name)
    if not all(isinstance(value, float) for value in rest["history"]):
        raise ValueError("history")
    if (text := rest["sample_prompt"]) != text.encode(errors="replace").decode():
        raise ValueError("sample_prompt")


def _named(prefix: str, network: torch.nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in network.named_parameters()}


@torch.no_grad()
def _load(prefix: str, network: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        value = tensors[f"{prefix}.{name}"]
        if value.shape != parameter.shape or value.dtype != parameter.dtype:
            raise ValueError(name)
        parameter.copy_(value)


def _tuples(state: Any) -> tuple[Any, ...]:
    """What JSON made of the state of a `random.Random`, as that wants it."""
    version, numbers, gauss = state
    return version, tuple(numbers), gauss
