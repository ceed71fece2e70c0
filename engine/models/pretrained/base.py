"""Pre-trained models that are played and adapted without PyTorch: what their files contain, in our form."""

import hashlib
import math
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import ModelConfig
from engine.errors import ConfigError, InvalidInputError, printable
from engine.models.adapter import MergedWeights
from engine.models.matrices import check_weights
from engine.models.numpy_transformer import MAX_TRANSFORMER_WEIGHT, NumpyTransformer
from engine.models.transformer_layout import TRANSFORMER_VALUES, check_transformer_config, transformer_weight_shapes
from engine.storage.tensor_file import StoredTensor

if TYPE_CHECKING:  # commands that only mention bases need no tokenizers
    from engine.models.pretrained.chat import ChatTemplate
    from engine.models.pretrained.tokenizer import PretrainedTokenizer

MAX_CONTEXT_SIZE = 65_536  # of the setting; a larger context is used up to there
VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")  # with one row per token
INT8_FACTOR, FP32_FACTOR = 2.5, 9.0  # peak memory in bytes of loading one weight, in 8 bits and in single precision


@dataclass(frozen=True)
class LoadingProgress:
    text: str  # such as "reading the weights"
    memory_bytes: int | None = None  # that the model needs; None before it is known


ProgressCallback = Callable[[LoadingProgress], None]


class UnsupportedModelError(InvalidInputError):
    """Error for a model by others that only transformers can load."""


class LazyTensors(UserDict[str, Any]):
    """Tensors by name that a function reads from a file at every access, so that one at a time is in memory."""

    def __init__(
        self, readers: Mapping[str, Callable[[], StoredTensor]], release_pages: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(readers)
        self.release_pages = release_pages  # gives the memory of mapped files back

    def __getitem__(self, name: str) -> StoredTensor:
        tensor: StoredTensor = self.data[name]()
        return tensor


@dataclass(frozen=True)
class Base:
    """A pre-trained model, read from files by `read_base`."""

    name: str  # as the user gave it
    family: str  # architecture and size, such as "SmolLM2 135M"
    files: tuple[Path, ...]  # of the weights
    config: ModelConfig
    tokenizer: "PretrainedTokenizer"
    weights: LazyTensors  # as `transformer_weight_shapes` lists them; rows of the vocabulary are in our order
    chat: "ChatTemplate | None"
    stored_sha256: str = ""  # if it is known without reading the files

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content of the files of the weights, one after the other; of a stored model, of its source."""
        return self.stored_sha256 or hash_files(self.files)

    @property
    def num_parameters(self) -> int:
        return sum(map(math.prod, transformer_weight_shapes(self.config, len(self.tokenizer)).values()))

    @property
    def description(self) -> str:
        return describe_model(self.family, self.config.num_layers, self.config.embedding_size, self.num_parameters)

    def for_scripts(self) -> "Base":
        """Return the same model as one that reads and writes scripts, and has no chat template."""
        return replace(self, tokenizer=self.tokenizer.for_scripts(), chat=None)

    def decoder(
        self,
        *,
        int8: bool,
        on_progress: ProgressCallback | None = None,
        config: ModelConfig | None = None,
        adapter: Mapping[str, StoredTensor] | None = None,
    ) -> NumpyTransformer:
        """Return the model, changed by the adapter of a run with `config` if there is one, in 8 bits or in float32.

        Damaged weights, or too many for the free memory, raise an InvalidInputError.
        """
        required = int((INT8_FACTOR if int8 else FP32_FACTOR) * self.num_parameters)
        check_memory(self.name, required)
        if on_progress is not None:
            text = f"merging the adapter into {self.family}" if adapter else "reading the weights"
            on_progress(LoadingProgress(text, required))
        config = config or self.config
        with self._refuse_damage():
            weights = MergedWeights(config, self.weights, adapter or {}, int8=int8)
            decoder = NumpyTransformer(config, self.tokenizer, weights, chat=self.chat)
        self.weights.release_pages()
        return decoder

    def check_weights(self) -> None:
        """Raise an InvalidInputError if a weight is not finite, or huge. This reads all of them."""
        with self._refuse_damage():
            shapes = transformer_weight_shapes(self.config, len(self.tokenizer))
            check_weights(self.weights, shapes, MAX_TRANSFORMER_WEIGHT)

    @contextmanager
    def _refuse_damage(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            raise InvalidInputError(f"{self.name} does not fit into the free memory; close other programs") from error
        except InvalidInputError as error:
            reason = str(error).removesuffix("; the run is damaged")
            raise InvalidInputError(f"{self.name}: {reason}; fetch it again") from error


def hash_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def new_config(name: str, context_size: int, settings: Mapping[str, Any]) -> ModelConfig:
    # Without dropout.
    dropouts = ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout")
    values = {**TRANSFORMER_VALUES, **dict.fromkeys(dropouts, 0.0), "unigram_bias": False, **settings}
    try:
        config = ModelConfig(architecture="transformer", context_size=min(context_size, MAX_CONTEXT_SIZE), **values)
        check_transformer_config(config)
    except ConfigError as error:
        raise UnsupportedModelError(f"{name} has a setting out of range: {error}") from error
    return config


def check_shapes(name: str, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, num_tokens: int) -> None:
    """Raise an InvalidInputError unless tensors have the shapes of a configuration, or more rows than tokens."""
    expected = transformer_weight_shapes(config, num_tokens)
    if missing := sorted(expected.keys() - shapes.keys()):
        shown = f"{len(missing)} of its tensors, such as {printable(missing[0])}"
        raise InvalidInputError(f"{name} lacks {shown}; it is damaged, or another kind of model")
    if unknown := sorted(shapes.keys() - expected.keys()):
        shown = printable(unknown[0][:100])
        raise UnsupportedModelError(f"{name} has tensors of another kind of model, such as {shown}")
    for tensor, shape in expected.items():
        actual = shapes[tensor]
        has_more_rows = tensor in VOCABULARY_TENSORS and actual[1:] == shape[1:] and actual[0] > num_tokens
        if actual != shape and not has_more_rows:
            raise InvalidInputError(f"{name}: {tensor} is {list(actual)}, not {list(shape)}; fetch the model again")


def check_memory(name: str, required: int) -> None:
    """Raise an InvalidInputError if loading a model takes more memory than is free on this machine."""
    import psutil

    if required > (free := psutil.virtual_memory().available):
        raise InvalidInputError(
            f"{name} needs {format_bytes(required)} of memory, and {format_bytes(free)} are free; "
            "choose a smaller model, or close other programs"
        )


def format_bytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def describe_model(family: str, num_layers: int | None, width: int | None, num_parameters: int) -> str:
    """Return family, layers and size, such as "Llama · 30 layers of 576 · 135 M parameters"."""
    layers = f" · {num_layers} layers of {width:,}" if num_layers and width else ""
    millions = num_parameters / 1e6
    size = f"{millions:.1f} M" if millions >= 0.1 else f"{num_parameters:,}"
    if millions >= 10:
        size = f"{millions / 1000:.1f} B" if millions >= 1000 else f"{millions:.0f} M"
    return f"{family}{layers} · {size} parameters"
