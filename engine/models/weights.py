"""Weights of models: sizes, names and shapes, checks, and products with them in numpy in 32 and in 8 bits."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Float64Array
from engine.data.tokenizers import Punctuation, TokenIds
from engine.errors import ConfigError, RunError
from engine.storage import tensor_file
from engine.storage.tensor_file import MAX_INT8, Int8Rows, StoredTensor, quantize_rows, to_float32

# Rotations in the original context up to, and from which frequencies are scaled, and not.
LLAMA3_LOW_FACTOR, LLAMA3_HIGH_FACTOR = 1.0, 4.0

# Of the settings that only LSTMs can choose.
TRANSFORMER_VALUES: dict[str, Any] = {
    "weight_drop": 0.0, "subword_embeddings": False, "punctuation": False, "initialization": "uniform",
    "mogrifier_rounds": 0,
}  # fmt: skip
MAX_WEIGHT = 1e15  # sums of products of two weights are then finite, and so are all probabilities
STRIP_ROWS = 64  # four AVX-512 registers
STRIP_BATCH_SIZE = 16  # vectors at once; up to 976 inputs, OpenBLAS then uses its kernel for small matrices
MAX_STRIP_VECTORS = 64  # one large product is faster for more
MAX_SINGLE_ROWS = 32  # that are rounded to 8 bits one by one; numpy is faster for more
_STEP, _MIN_PEAK = 1 / MAX_INT8, float(tensor_file.MIN_PEAK)


def head_size(config: ModelConfig) -> int:
    return config.head_size or config.embedding_size // config.num_heads


def num_kv_heads(config: ModelConfig) -> int:
    """Return the number of heads with keys and values; groups of consecutive query heads share them."""
    return config.num_kv_heads or config.num_heads


def largest_num_heads(embedding_size: int, max_heads: int) -> int:
    """Return the largest number of heads up to `max_heads` that gives each an even size; `max_heads` if none does."""
    return next((heads for heads in range(max_heads, 0, -1) if embedding_size % (2 * heads) == 0), max_heads)


def inner_size(config: ModelConfig) -> int:
    """Return the inner units of the feed-forward layers: by default 8 / 3 of the width, in 32s (Shazeer 2020)."""
    return config.feed_forward_size or -(-8 * config.embedding_size // (3 * 32)) * 32


def num_kept_tokens(context_size: int) -> int:
    """Return how many last tokens a full context keeps: they are read again from position 0."""
    return context_size // 2


def rotary_frequencies(config: ModelConfig) -> Float64Array:
    """Return the angle `[head size / 2]` per position of each pair of units (Su et al. 2021, arXiv 2104.09864).

    Unit `i` of the first half of a head and unit `i` of the second half are a pair, as in the weights of Hugging Face.
    """
    size = head_size(config)
    frequencies: Float64Array = config.rope_base ** (-np.arange(0, size, 2) / size)
    if config.rope_scaling == "none":
        return frequencies
    scaled = frequencies / config.rope_factor
    if config.rope_scaling == "linear":
        return scaled
    rotations = config.rope_original_context * frequencies / (2 * math.pi)
    unscaled = (rotations - LLAMA3_LOW_FACTOR) / (LLAMA3_HIGH_FACTOR - LLAMA3_LOW_FACTOR)
    mixed: Float64Array = scaled + (frequencies - scaled) * unscaled.clip(0, 1)
    return mixed


def check_transformer_config(config: ModelConfig) -> None:
    """Raise a ConfigError if a setting has a value that only LSTMs can have, or the heads have no even size."""
    width, heads, kv_heads = config.embedding_size, config.num_heads, num_kv_heads(config)
    if not config.head_size and width % (2 * heads):
        raise ConfigError(
            f"embedding_size={width} cannot be divided into num_heads={heads} heads of an even size; "
            f"use --set embedding_size={max(1, width // (2 * heads)) * 2 * heads} or another number of heads"
        )
    if config.head_size % 2:
        raise ConfigError(f"head_size={config.head_size} is odd; use --set head_size={config.head_size + 1}")
    if heads % kv_heads:
        divisor = math.gcd(heads, kv_heads)
        raise ConfigError(
            f"num_heads={heads} query heads cannot be divided among num_kv_heads={kv_heads}; "
            f"use --set num_kv_heads={divisor}"
        )
    for name, value in TRANSFORMER_VALUES.items():
        if (actual := getattr(config, name)) != value:
            shown, needed = (str(item).lower() if isinstance(item, bool) else item for item in (actual, value))
            raise ConfigError(f"a transformer cannot have {name}={shown}; use --set {name}={needed}")


def weight_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor in `model.safetensors`, named as in PyTorch's LSTM or in Llama."""
    if config.architecture == "transformer":
        return _transformer_shapes(config, vocabulary_size)
    sizes = config.layer_sizes()
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocabulary_size, config.embedding_size)}
    for i, (input_size, hidden_size) in enumerate(sizes):
        shapes[f"layers.{i}.weight_ih_l0"] = (4 * hidden_size, input_size)
        shapes[f"layers.{i}.weight_hh_l0"] = (4 * hidden_size, hidden_size)
        shapes[f"layers.{i}.bias_ih_l0"] = shapes[f"layers.{i}.bias_hh_l0"] = (4 * hidden_size,)
        for index in range(config.mogrifier_rounds):
            source, target = (hidden_size, input_size) if index % 2 == 0 else (input_size, hidden_size)
            shapes[f"mogrifiers.{i}.down.{index}"] = (config.mogrifier_rank, source)
            shapes[f"mogrifiers.{i}.up.{index}"] = (target, config.mogrifier_rank)
    if not config.tie_weights:
        shapes["output.weight"] = (vocabulary_size, config.hidden_size)
    shapes["output.bias"] = (vocabulary_size,)
    if config.punctuation:
        rows: dict[str, tuple[int, ...]] = dict.fromkeys(("gate_weight", "scale", "shift"), (sizes[-1][1],))
        rows |= {"gate_bias": (), "bias": (vocabulary_size,)}
        shapes |= {f"punctuation_softmax.{name}": (len(Punctuation), *row) for name, row in rows.items()}
    return shapes


def _transformer_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    # Linear layers are `[outputs, inputs]`.
    width, inner, size = config.embedding_size, inner_size(config), head_size(config)
    attended, kv_units = config.num_heads * size, num_kv_heads(config) * size
    parts: dict[str, tuple[int, ...]] = {
        "input_layernorm": (width,), "self_attn.q_proj": (attended, width), "self_attn.k_proj": (kv_units, width),
        "self_attn.v_proj": (kv_units, width), "self_attn.o_proj": (width, attended),
        "post_attention_layernorm": (width,), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary_size, width)}
    for index in range(config.num_layers):
        for name, shape in parts.items():
            shapes[f"model.layers.{index}.{name}.weight"] = shape
            if config.qkv_bias and name.endswith(("q_proj", "k_proj", "v_proj")):
                shapes[f"model.layers.{index}.{name}.bias"] = shape[:1]
    shapes["model.norm.weight"] = (width,)
    if not config.tie_weights:
        shapes["lm_head.weight"] = (vocabulary_size, width)
    return shapes


def check_weights(
    weights: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[int, ...]], max_weight: float = MAX_WEIGHT
) -> None:
    """Raise a RunError unless the tensors have the given shapes and no number beyond `max_weight`."""
    tensor_file.check_names(weights, shapes)
    for name, tensor in weights.items():
        checked, numbers, min_value, max_value, forbidden = name, tensor, -max_weight, max_weight, "not finite"
        arrays: dict[str, Any] = {name: tensor}
        if isinstance(tensor, Int8Rows):
            checked, numbers = name + tensor_file.SCALE_SUFFIX, tensor.scales
            arrays = {name: tensor.values, checked: numbers}
            min_value, max_value, forbidden = 0.0, max_weight / 128, "negative, not finite"
        actual = {key: (str(array.dtype), array.shape) for key, array in arrays.items()}
        tensor_file.check_tensors(actual, {name: shapes[name]})
        lowest, highest = float(np.min(numbers)), float(np.max(numbers))
        if not min_value <= lowest <= highest <= max_value:  # NaN fails the comparison
            value = f"{highest if highest > max_value else lowest:g}"
            forbidden = f"{forbidden} or beyond {max_value:g}, such as {value}"
            raise RunError(f"{checked} holds values that are {forbidden}; the run is damaged")


class Float32Matrix:
    """A matrix `[outputs, inputs]` in single precision, also in strips of rows for products with 2 to 64 vectors.

    OpenBLAS copies the matrix in every product except small ones. With strips, 4 vectors take hardly longer than one.
    """

    def __init__(self, matrix: Float32Array, *, by_columns: bool = False) -> None:
        # By columns, a product with one vector is about a fifth faster.
        self._matrix = np.asfortranarray(matrix) if by_columns else np.ascontiguousarray(matrix)

    def matmul(self, vectors: Float32Array) -> Float32Array:
        """Return the products `[..., outputs]` with `vectors` `[..., inputs]` as a new array."""
        rows = vectors.reshape(-1, self._matrix.shape[1])
        if 1 < len(rows) <= MAX_STRIP_VECTORS:
            padded = np.empty((len(rows), len(self._strips), STRIP_ROWS), np.float32)
            for start in range(0, len(rows), STRIP_BATCH_SIZE):
                batch = slice(start, start + STRIP_BATCH_SIZE)
                np.matmul(rows[batch], self._strips, out=padded[batch].swapaxes(0, 1))
            products: Float32Array = padded.reshape(len(rows), -1)[:, : len(self._matrix)]
            return products.reshape(*vectors.shape[:-1], -1)
        return np.asarray(vectors @ self._matrix.T)

    def matmul_each(
        self, vectors: Float32Array, factors: Sequence[float] | None = None, plus: Float32Array | None = None
    ) -> Float32Array:
        """Return the products `[rows, outputs]` with `vectors` `[rows, inputs]`, each multiplied by its factor.

        Then `plus`, `[outputs]` or `[rows, outputs]`, is added. In 8 bits, no product depends on another vector.
        """
        products = self.matmul(vectors) if len(vectors) > 1 else self._matrix.dot(vectors[0])[None]
        if factors is not None:
            products *= np.array(factors, np.float32)[:, None]
        if plus is not None:
            products += plus
        return products

    @cached_property
    def _strips(self) -> Float32Array:
        # `[strips, inputs, STRIP_ROWS]`, transposed, the last one padded
        num_outputs, num_inputs = self._matrix.shape
        strips = np.zeros((-(-num_outputs // STRIP_ROWS), num_inputs, STRIP_ROWS), np.float32)
        for strip, start in zip(strips, range(0, num_outputs, STRIP_ROWS), strict=True):
            rows = self._matrix[start : start + STRIP_ROWS]
            strip[:, : len(rows)] = rows.T
        return strips


class Int8Matrix:
    """A matrix in 8 bits, whose vectors are rounded to 8 bits as well: a product reads a quarter of the bytes.

    The sums are exact, so a product with several vectors equals the products with each vector alone.
    """

    def __init__(self, rows: Int8Rows) -> None:
        import numkong  # numpy has no fast products of 8-bit integers

        self._numkong: Any = numkong
        self._out_features, self._in_features = rows.values.shape
        self._scales = rows.scales.copy()
        self._packed = numkong.dots_pack(rows.values)
        self._exact: tuple[()] | tuple[int, int] = ()
        self._exact_columns: tuple[Float32Array, ...] = ()

    def memory(self) -> tuple[int, int]:
        # Address and size of the block that products read: it is a part of its Python object.
        return id(self._packed), self._packed.nbytes

    def multiply_exactly(self, first: int, second: int) -> None:
        """Multiply the two largest inputs in single precision: without them, the others are rounded more finely."""
        units = Int8Rows(np.zeros((2, self._in_features), np.int8), np.ones(2, np.float32))
        units.values[[0, 1], [first, second]] = 1
        self._exact, self._exact_columns = (first, second), tuple(self.matmul_rows(units))

    def matmul(self, vectors: Float32Array) -> Float32Array:
        rows = vectors.reshape(-1, self._in_features)
        if len(rows) <= MAX_SINGLE_ROWS:
            return self.matmul_each(rows).reshape(*vectors.shape[:-1], self._out_features)
        rounded = rows
        if self._exact:
            rounded = rows.copy()
            rounded[:, self._exact] = 0
        products = self.matmul_rows(quantize_rows(rounded))
        for unit, column in zip(self._exact, self._exact_columns, strict=True):
            products += rows[:, unit, None] * column
        return products.reshape(*vectors.shape[:-1], self._out_features)

    def matmul_each(
        self, vectors: Float32Array, factors: Sequence[float] | None = None, plus: Float32Array | None = None
    ) -> Float32Array:
        # As of a Float32Matrix, by the fewest operations, whose overhead is much of the time: those of numkong are
        # faster than numpy's.
        numkong = self._numkong
        rounded = vectors
        if self._exact:
            rounded = vectors.copy()
            rounded[:, self._exact] = 0
        values = np.empty(vectors.shape, np.int8)
        scales = list[float]()
        for vector, row in zip(rounded, values, strict=True):
            lowest, _, highest, _ = numkong.minmax(vector) or (0.0, 0, 0.0, 0)  # None: all numbers are NaN
            peak = max(highest, -lowest, _MIN_PEAK)
            numkong.astype(numkong.scale(vector, alpha=MAX_INT8 / peak), "int8", out=row)
            scales.append(peak * _STEP)
        products: Float32Array = np.asarray(numkong.dots_packed(values, self._packed)).astype(np.float32)
        for index, (product, scale) in enumerate(zip(products, scales, strict=True)):
            factor = 1.0 if factors is None else factors[index]
            added, beta = product, 0.0
            if self._exact:
                first, second = (vectors.item(index, unit) * factor for unit in self._exact)
                added, beta = numkong.blend(*self._exact_columns, alpha=first, beta=second), 1.0
            numkong.fma(product, self._scales, added, alpha=scale * factor, beta=beta, out=product)
        if plus is not None:
            products += plus
        return products

    def matmul_rows(self, vectors: Int8Rows) -> Float32Array:
        # Products `[rows, outputs]` with vectors that are in 8 bits already.
        products: Float32Array = np.asarray(self._numkong.dots_packed(vectors.values, self._packed)).astype(np.float32)
        products *= self._scales
        products *= vectors.scales[:, None]
        return products


Matrix = Float32Matrix | Int8Matrix


def make_matrix(tensor: StoredTensor, *, quantize: bool = False, by_columns: bool = False) -> Matrix:
    if isinstance(tensor, Int8Rows):
        return Int8Matrix(tensor)
    return Int8Matrix(quantize_rows(tensor)) if quantize else Float32Matrix(tensor, by_columns=by_columns)


def join_rows(*parts: StoredTensor) -> Matrix:
    """Return one matrix with the rows of all parts, in 8 bits if all of them are."""
    rows = [part for part in parts if isinstance(part, Int8Rows)]
    if len(rows) < len(parts):
        return make_matrix(np.concatenate([to_float32(part) for part in parts]), by_columns=True)
    return make_matrix(Int8Rows(*map(np.concatenate, zip(*rows, strict=True))))


def embed(embedding: StoredTensor, tokens: int | TokenIds) -> Float32Array:
    """Return the rows `[..., width]` of `tokens`; the row of one token in single precision is not to be changed."""
    if isinstance(embedding, Int8Rows):
        return embedding.values[tokens] * embedding.scales[tokens, None]
    return np.asarray(embedding[tokens])


def normalize_logits(logits: Float32Array) -> Float32Array:
    """Turn logits `[rows, vocabulary]` into log-probabilities in place, and return them."""
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True), dtype=np.float32)
    return logits
