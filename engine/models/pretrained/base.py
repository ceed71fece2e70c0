"""Models by others that need no PyTorch: what their files say of a model of Llama, Mistral or Qwen2."""

import hashlib
import json
import math
import time
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain, product
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import tokenizers

from engine.config import ModelConfig
from engine.data.tokenizers import MAX_VOCABULARY_SIZE
from engine.errors import ConfigError, InvalidInputError, RunError, describe_error, printable
from engine.models import numpy_transformer
from engine.models import weights as layout
from engine.models.adapters import Adapter, MergedWeights, adapter_shapes
from engine.models.pretrained.chat import ChatTemplate, JinjaTemplate
from engine.models.pretrained.names import SMOLLM2
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from engine.runtime.process import return_freed_memory, use_huge_pages
from engine.storage.tensor_file import MEMORY_CHECK_THRESHOLD, Int8Rows, StoredTensor

MAX_WEIGHT = numpy_transformer.MAX_TRANSFORMER_WEIGHT
VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")  # with one row per token
# Peak memory in bytes of one weight in 8 bits, and in single precision, in which several texts at once need a copy.
INT8_FACTOR, FP32_FACTOR = 1.25, 9.0
TOKEN_BYTES, STATED_CONTEXT = 400, 1024  # of a token in the vocabulary; tokens whose keys and values are counted
TIMED_INPUTS, TIMED_ROWS = 1024, 48 * 1024  # of the product in 8 bits that is timed; no cache holds its matrix
# Products with a small matrix that take as long as a layer without its weights, and as what adapters add to it.
LAYER_PRODUCTS, ADAPTED_PRODUCTS = 24, 8
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}  # by values of `model_type`
MAX_CONTEXT_SIZE = 65_536  # of the setting; a larger context is used up to there
# Of replies and texts in well-known models.
END_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>")
TEXT_START_TOKEN = "<|endoftext|>"
CLOSED_VOCABULARIES = ("WordLevel", "WordPiece")  # they lose the spaces or the unknown words of a text
TRIED_TEXTS = ("", " ", "Where is the Ring?\nIt's safe, for 12 days. \u65e5\u672c \U0001f600", "a" * 1000, "a b " * 500)
# Repeated to these lengths, they show patterns that take long for long texts; usual tokenizers take 0.03 s.
REPEATED_TEXTS, TRIED_LENGTHS, MAX_TRIED_SECONDS = ("a", " ", "1", ".", "\n", "aA 1.'s\n"), (1_000, 5_000, 20_000), 0.5
# As vocabularies write them; the second in byte-level ones.
_LINE_FEEDS = ("\n", "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}", "<0x0A>")


@dataclass(frozen=True)
class LoadingProgress:
    text: str  # such as "reading the weights"
    memory_bytes: int | None = None  # that the model needs; None before it is known
    tokens_per_second: float | None = None  # expected on this machine; None for a small model, or if not known


TokenizerAndChat = tuple[PretrainedTokenizer, ChatTemplate | None]
ProgressCallback = Callable[[LoadingProgress], None]
# Takes other end tokens, and the number of tokens with logits.
TokenizerReader = Callable[[Sequence[int], int], TokenizerAndChat]
RowReaders = Mapping[str, Callable[..., StoredTensor]]


class UnsupportedModelError(InvalidInputError):
    """Error for a model by others that only transformers can load."""


@contextmanager
def refuse_in_one_line(name: str, problem: str = "is damaged") -> Iterator[None]:
    """Turn any error that a model's files cause into an InvalidInputError that names the model and the remedy."""
    try:
        yield
    except MemoryError as error:
        raise InvalidInputError(f"{name} does not fit into the free memory; close other programs") from error
    except Exception as error:  # of many types: libraries read the files
        if isinstance(error, InvalidInputError) and not isinstance(error, RunError):
            raise type(error)(f"{name}: {error}") from error
        reason = f"it lacks {error}" if isinstance(error, KeyError) else describe_error(error)
        reason = reason.removesuffix("; the run is damaged").removesuffix(".")[:300]
        remedy = f"run `lotr-tui fetch {name}`" if name == SMOLLM2 else "fetch it again"
        raise InvalidInputError(f"{name} {problem} ({reason}); {remedy}") from error


class LazyTensors(UserDict[str, Any]):
    """Tensors by name that a function reads from a file at every access, so that one at a time is in memory."""

    def __getitem__(self, name: str) -> StoredTensor:
        try:
            tensor: StoredTensor = self.data[name]()
        except IndexError as error:
            raise RunError(f"{name} has too few rows") from error
        return tensor


@dataclass(frozen=True)
class Base:
    """A pre-trained model, read from files by `read_base`."""

    name: str  # as the user gave it
    family: str  # architecture and size, such as "SmolLM2 135M"
    files: tuple[Path, ...]  # of the weights
    config: ModelConfig
    tokenizer: PretrainedTokenizer
    weights: LazyTensors  # as `weight_shapes` lists them; rows of the vocabulary are in our order
    chat: ChatTemplate | None
    stored_sha256: str = ""  # if it is known without reading the files
    release_pages: Sequence[Callable[[], None]] = ()  # give the memory of mapped files back

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content of the files of the weights, one after the other; of a stored model, of its source."""
        return self.stored_sha256 or hash_files(self.files)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return layout.weight_shapes(self.config, len(self.tokenizer))

    @property
    def description(self) -> str:
        num_parameters = sum(map(math.prod, self.shapes.values()))
        return describe_model(self.family, self.config.num_layers, self.config.embedding_size, num_parameters)

    def for_scripts(self) -> "Base":
        """Return the same model as one that reads and writes scripts, and has no chat template."""
        return replace(self, tokenizer=self.tokenizer.for_scripts(), chat=None)

    def decoder(
        self, *, int8: bool, on_progress: ProgressCallback | None = None, adapters: Sequence[Adapter] = ()
    ) -> numpy_transformer.NumpyTransformer:
        """Return the model in 8 bits or in float32; damaged weights, or too many, raise an InvalidInputError."""
        with refuse_in_one_line(self.name):
            required = self.required_memory(adapters, int8=int8)
            check_memory(required)
            if on_progress is not None:
                speed = self.expected_speed(adapters) if int8 and required >= MEMORY_CHECK_THRESHOLD else None
                on_progress(LoadingProgress("reading the weights", required, speed))
            config = adapters[0].config if adapters else self.config
            weights = self.weights if int8 else MergedWeights(self.weights, ())
            decoder = numpy_transformer.NumpyTransformer(
                config, self.tokenizer, weights, int8=int8, chat=self.chat, adapters=adapters
            )
        for release in self.release_pages:
            release()
        return_freed_memory()
        return decoder

    def _num_weights(self, adapters: Sequence[Adapter]) -> int:
        of_adapters = chain.from_iterable(adapter_shapes(adapter.config).values() for adapter in adapters)
        return sum(map(math.prod, chain(self.shapes.values(), of_adapters)))

    def required_memory(self, adapters: Sequence[Adapter] = (), *, int8: bool) -> int:
        """Return the peak memory in bytes of loading the model, and of a text of `STATED_CONTEXT` tokens."""
        config, num_tokens = self.config, len(self.tokenizer)
        num_weights, size = self._num_weights(adapters), layout.head_size(config)
        if int8 and config.tie_weights:  # the embedding, and the matrix of the output in the order of products
            num_weights += num_tokens * config.embedding_size
        text = 8 * config.num_layers * layout.num_kv_heads(config) * size * min(config.context_size, STATED_CONTEXT)
        rotations = 8 * config.context_size * size
        return int((INT8_FACTOR if int8 else FP32_FACTOR) * num_weights) + TOKEN_BYTES * num_tokens + rotations + text

    def expected_speed(self, adapters: Sequence[Adapter] = ()) -> float:
        """Return about how many tokens of one text a second this machine reads in 8 bits; two products are timed."""
        num_weights = self._num_weights(adapters)
        if not self.config.tie_weights:
            num_weights -= len(self.tokenizer) * self.config.embedding_size  # one row of the embedding is read
        large, small = time_product(TIMED_ROWS), time_product(1)
        num_small = (LAYER_PRODUCTS + (ADAPTED_PRODUCTS if adapters else 0)) * self.config.num_layers
        return 1 / (num_weights * large / (TIMED_ROWS * TIMED_INPUTS) + num_small * small)

    def check_weights(self) -> None:
        """Raise an InvalidInputError if a weight is not finite, or huge. This reads all of them."""
        with refuse_in_one_line(self.name):
            layout.check_weights(self.weights, self.shapes, MAX_WEIGHT)


def hash_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def check_memory(required: int) -> None:
    """Raise an InvalidInputError if loading a model takes more memory than is free on this machine."""
    import psutil

    if required > (free := psutil.virtual_memory().available):
        sizes = f"it needs {required / 1e6:,.0f} MB of memory, and {free / 1e6:,.0f} MB are free"
        raise InvalidInputError(f"{sizes}; choose a smaller model, or close other programs")


def time_product(num_rows: int) -> float:
    """Return the seconds of a product with a matrix of `num_rows` in 8 bits, in memory as large models have it."""
    rows = Int8Rows(np.zeros((num_rows, TIMED_INPUTS), np.int8), np.ones(num_rows, np.float32))
    matrix, vector, seconds = layout.Int8Matrix(rows), np.ones(TIMED_INPUTS, np.float32), list[float]()
    use_huge_pages([matrix.memory()])
    for _ in range(4):
        start = time.perf_counter()
        matrix.matmul_each(vector[None])
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def describe_model(family: str, num_layers: int | None, width: int | None, num_parameters: int) -> str:
    """Return family, layers and size, such as "Llama · 30 layers of 576 · 135 M parameters"."""
    layers = f" · {num_layers} layers of {width:,}" if num_layers and width else ""
    forms = ((1e9, 1e9, ".1f", " B"), (1e7, 1e6, ".0f", " M"), (1e5, 1e6, ".1f", " M"), (0, 1, ",.0f", ""))
    size = next(f"{num_parameters / unit:{form}}{end}" for least, unit, form, end in forms if num_parameters >= least)
    return f"{family}{layers} · {size} parameters"


class _Rope(msgspec.Struct):
    rope_type: str | None = None
    type: str | None = None  # before transformers 4.43
    rope_theta: float | None = None  # since transformers 5
    factor: float = 1.0
    original_max_position_embeddings: int = 1
    low_freq_factor: float = layout.LLAMA3_LOW_FACTOR
    high_freq_factor: float = layout.LLAMA3_HIGH_FACTOR
    partial_rotary_factor: float = 1.0


class _Settings(msgspec.Struct, kw_only=True):  # of `config.json`
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: Annotated[int, msgspec.Meta(ge=1)]
    intermediate_size: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    rms_norm_eps: float = 1e-6
    rope_theta: float | None = None
    rope_parameters: _Rope | None = None
    rope_scaling: _Rope | None = None
    sliding_window: int | None = None
    use_sliding_window: bool = False
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    mlp_bias: bool = False
    attention_bias: bool = False


def check_family(kind: str, families: Mapping[str, str]) -> None:
    """Raise an UnsupportedModelError with the names of the families unless `kind` is one of the keys."""
    if kind not in families:
        known = ", ".join(families)
        raise UnsupportedModelError(f"it is a model of the kind {printable(kind[:60])!r}, and not of {known}")


def read_config(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration, without dropout, of a model of `FAMILIES` from the content of its `config.json`."""
    model_type = str(settings.get("model_type"))
    check_family(model_type, FAMILIES)
    stated = msgspec.convert(settings, _Settings)
    rope = stated.rope_parameters or stated.rope_scaling or _Rope()
    kind = rope.rope_type or rope.type or "default"
    factors = [(each.low_freq_factor, each.high_freq_factor, each.partial_rotary_factor) for each in (rope, _Rope())]
    if kind not in ("default", "linear", "llama3") or factors[0] != factors[1]:
        raise UnsupportedModelError(f"it has rotary positions of another kind ({printable(kind[:60])})")
    if (stated.hidden_act, stated.mlp_bias, stated.attention_bias) != ("silu", False, False):
        raise UnsupportedModelError("it has another hidden_act, mlp_bias or attention_bias than most models")
    context_size = min(stated.max_position_embeddings, MAX_CONTEXT_SIZE)
    # Up to the size of a sliding window, attention to the window is attention to all tokens.
    if stated.sliding_window and (model_type == "mistral" or stated.use_sliding_window):
        context_size = min(context_size, stated.sliding_window)
    dropouts = ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout")
    values = layout.TRANSFORMER_VALUES | dict.fromkeys(dropouts, 0.0)
    if kind != "default":
        values |= {"rope_scaling": kind, "rope_factor": rope.factor}
    if kind == "llama3":
        values["rope_original_context"] = rope.original_max_position_embeddings
    try:
        config = ModelConfig(
            architecture="transformer",
            unigram_bias=False,
            embedding_size=stated.hidden_size,
            num_layers=stated.num_hidden_layers,
            num_heads=stated.num_attention_heads,
            num_kv_heads=stated.num_key_value_heads or stated.num_attention_heads,
            head_size=stated.head_dim or stated.hidden_size // stated.num_attention_heads,
            feed_forward_size=stated.intermediate_size,
            context_size=context_size,
            norm_eps=stated.rms_norm_eps,
            rope_base=rope.rope_theta or stated.rope_theta or 10_000.0,
            qkv_bias=model_type == "qwen2",
            tie_weights=stated.tie_word_embeddings,
            **values,
        )
        layout.check_transformer_config(config)
    except ConfigError as error:
        raise UnsupportedModelError(f"it has a setting out of range: {error}") from error
    return config


def make_base(
    name: str,
    family: str,
    files: Sequence[Path],
    config: ModelConfig,
    readers: RowReaders,
    tokenizer: PretrainedTokenizer,
    chat: ChatTemplate | None,
    release_pages: Sequence[Callable[[], None]],
) -> Base:
    """Return a base of the tensors by name, whose readers take the rows to read, or None for all."""
    if unknown := sorted(readers.keys() - layout.weight_shapes(config, 0).keys()):
        raise UnsupportedModelError(f"it has tensors of another kind of model, such as {unknown[0][:100]}")
    our_rows = tokenizer.swapped_ids.astype(np.intp)
    rows = {tensor: our_rows if tensor in VOCABULARY_TENSORS else None for tensor in readers}
    weights = LazyTensors({tensor: partial(read, rows[tensor]) for tensor, read in readers.items()})
    return Base(name, family, tuple(files), config, tokenizer, weights, chat, release_pages=release_pages)


def read_tokenizer(
    backend_json: str,
    texts: Mapping[str, str | None],
    first_id: int | None,
    template: str | None,
    other_end_ids: Sequence[int],
    max_size: int,
) -> TokenizerAndChat:
    """Return the tokenizer of a `tokenizer.json`, with at most `max_size` tokens, and its chat template if it has one.

    `texts` are special tokens by names such as "bos_token", `first_id` is the token that the tokenizer puts before a
    text. A tokenizer that cannot spell every text or end one raises an InvalidInputError.
    """
    content: Any = json.loads(backend_json)
    if (kind := content["model"].get("type")) in CLOSED_VOCABULARIES:
        reason = f"it has a {kind} tokenizer, which cannot spell every text"
        raise InvalidInputError(f"{reason}; play the run that it was exported from, or a model of byte pairs")
    ids, all_added = content["model"]["vocab"], content.get("added_tokens") or []
    if not isinstance(ids, dict):  # pairs of a token and its score
        ids = {token: id for id, (token, _) in enumerate(ids)}
    ids |= {token["content"]: token["id"] for token in all_added}
    size = min(max_size, 1 + max(ids.values()))
    added = [token for token in all_added if token["id"] < size]
    added_ids = {token["content"]: token["id"] for token in added}
    known_ends = {text: added_ids[text] for text in END_TOKENS if text in added_ids}
    turn_ends = [id for text, id in known_ends.items() if text in (template or "")]
    # Tokens with a line feed, which end the replies of models of scripts, are text.
    line_ends = {id for text, id in ids.items() if id in other_end_ids and any(mark in text for mark in _LINE_FEEDS)}
    bos_id, eos_id = (ids.get(texts.get(key) or "") for key in ("bos_token", "eos_token"))
    candidates = [*turn_ends[:1], eos_id, *(id for id in other_end_ids if id not in line_ends), *known_ends.values()]
    end_ids = tuple(dict.fromkeys(id for id in candidates if id is not None and 0 <= id < size))
    if not end_ids:
        raise InvalidInputError("it has no token that ends a text (eos_token), so it cannot be played")
    special_ids = {*end_ids, *(token["id"] for token in added if token["special"])}
    # Chat models often name the start of a message as bos, which starts no text and is not put before one.
    candidates = [added_ids.get(TEXT_START_TOKEN), bos_id, end_ids[0]]
    if first_id in {*special_ids, bos_id}:
        candidates.insert(0, first_id)
    start_id = next(id for id in candidates if id is not None and id < size)
    specials = SpecialTokens(start_id, end_ids[0], end_ids, tuple(sorted({*special_ids, start_id})))
    tokenizer = PretrainedTokenizer(backend_json, size, specials)
    return tokenizer, None if template is None else ChatTemplate(JinjaTemplate(template, {**texts}), tokenizer)


def try_tokenizer(path: str, texts: dict[str, str | None], end_ids: Sequence[int]) -> int | None:
    """Return the token that a tokenizer puts before a text; call this in a sandbox, since the library may crash."""
    content = Path(path).read_text("utf-8")
    first_id = next(iter(tokenizers.Tokenizer.from_str(content).encode("a").ids), None)
    tokenizer, _ = read_tokenizer(content, texts, first_id, None, end_ids, MAX_VOCABULARY_SIZE)
    for text, encoded in zip(TRIED_TEXTS, tokenizer.encode_lines(TRIED_TEXTS), strict=True):
        tokenizer.decode(encoded)
        tokenizer.end_offsets(text, encoded)
        tokenizer.encode_with_special_tokens(text)
    for repeated, length in product(REPEATED_TEXTS, TRIED_LENGTHS):
        start = time.thread_time()
        tokenizer.encode(repeated * (length // len(repeated)))
        seconds = time.thread_time() - start
        if seconds > MAX_TRIED_SECONDS:
            cost = f"{seconds:.1f} s for {length:,} characters"
            raise InvalidInputError(f"its tokenizer is too slow ({cost}); choose another model")
    return first_id
