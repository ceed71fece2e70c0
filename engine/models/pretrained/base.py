"""Models by others that need no PyTorch: from folders of Llama, Mistral and Qwen2, or stored in 8 bits."""

import hashlib
import math
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from engine.config import ModelConfig
from engine.errors import ConfigError, InvalidInputError, RunError, describe_error, install_command, printable
from engine.models import numpy_transformer
from engine.models import weights as layout
from engine.models.pretrained.chat import SANDBOX, ChatTemplate, JinjaTemplate
from engine.models.pretrained.names import BASE_FILE, SMOLLM2, PretrainedSource, base_folder, parse_pretrained_name
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens, Tokens, read_tokens, try_tokenizer
from engine.runtime.process import silence_descriptors
from engine.runtime.worker import SandboxError
from engine.storage.files import read_limited, write_folder
from engine.storage.tensor_file import SCALE_SUFFIX, Int8Rows, StoredTensor, TensorFile, check_tensors

MAX_WEIGHT = numpy_transformer.MAX_TRANSFORMER_WEIGHT
VOCABULARY_TENSORS = ("model.embed_tokens.weight", "lm_head.weight")  # with one row per token
INT8_FACTOR, FP32_FACTOR = 2.5, 9.0  # peak memory in bytes of loading one weight, in 8 bits and in single precision
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}  # by values of `model_type`
IGNORED_TENSORS = "rotary_emb.inv_freq"  # end of the names of tensors in old files, which follow from the settings
DOWNLOADED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # never pickles or code
CONFIG_FILE, TOKENIZER_CONFIG_FILE, TEMPLATE_FILE = "config.json", "tokenizer_config.json", "chat_template.jinja"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE, TOKENIZER_FILE = "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
MAX_FILE_BYTES = 64_000_000  # of the files without the weights
MAX_CONTEXT_SIZE = 65_536  # of the setting; a larger context is used up to there
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
ATTENTION_SETTINGS = ("attn_implementation", "_attn_implementation")  # owner/name is a program on the Hub


@dataclass(frozen=True)
class LoadingProgress:
    text: str  # such as "reading the weights"
    memory_bytes: int | None = None  # that the model needs; None before it is known


ProgressCallback = Callable[[LoadingProgress], None]
Adapter = tuple[ModelConfig, Mapping[str, StoredTensor]]  # configuration and tensors of its run
TokenReader = Callable[[Sequence[int], int], Tokens]  # takes other end tokens, and the number of tokens with logits
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
        reason = describe_error(error).removesuffix("; the run is damaged").removesuffix(".")[:300]
        remedy = f"run `lotr-tui fetch {name}`" if name == SMOLLM2 else "fetch it again"
        raise InvalidInputError(f"{name} {problem} ({reason}); {remedy}") from error


class LazyTensors(UserDict[str, Any]):
    """Tensors by name that a function reads from a file at every access, so that one at a time is in memory."""

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
    tokenizer: PretrainedTokenizer
    weights: LazyTensors  # as `weight_shapes` lists them; rows of the vocabulary are in our order
    chat: ChatTemplate | None
    stored_sha256: str = ""  # if it is known without reading the files
    release_pages: Callable[[], None] = lambda: None  # gives the memory of mapped files back

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
        self, *, int8: bool, on_progress: ProgressCallback | None = None, adapter: Adapter | None = None
    ) -> numpy_transformer.NumpyTransformer:
        """Return the model in 8 bits or in float32; damaged weights, or too many, raise an InvalidInputError."""
        with refuse_in_one_line(self.name):
            required = int((INT8_FACTOR if int8 else FP32_FACTOR) * sum(map(math.prod, self.shapes.values())))
            check_memory(required)
            if on_progress is not None:
                text = f"merging the adapter into {self.family}" if adapter else "reading the weights"
                on_progress(LoadingProgress(text, required))
            config, tensors = adapter or (self.config, {})
            weights = layout.MergedWeights(config, self.weights, tensors, int8=int8)
            decoder = numpy_transformer.NumpyTransformer(config, self.tokenizer, weights, chat=self.chat)
        self.release_pages()
        return decoder

    def check_weights(self) -> None:
        """Raise an InvalidInputError if a weight is not finite, or huge. This reads all of them."""
        with refuse_in_one_line(self.name):
            layout.check_weights(self.weights, self.shapes, MAX_WEIGHT)


def read_base(name: str, on_progress: ProgressCallback | None = None) -> Base:
    """Return the pre-trained model `smollm2`, `gguf:FILE`, `hf:FOLDER` or `hf:owner/name`, without PyTorch.

    A model that only transformers can load raises an UnsupportedModelError, a damaged one an InvalidInputError.
    """
    if name == SMOLLM2:
        return read_stored_base(name)
    source = parse_pretrained_name(name)
    silence_descriptors()
    with refuse_in_one_line(name):
        if source.kind == "gguf":  # what a kind of files needs is imported when one is read
            from engine.models.pretrained.gguf_file import read_gguf_base

            return read_gguf_base(source.path, name)
        return read_folder_base(find_folder(source, on_progress or (lambda progress: None)), name)


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
    num_attention_heads: int
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


def read_config(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration, without dropout, of a model of `FAMILIES` from the content of its `config.json`."""
    if (model_type := str(settings.get("model_type"))) not in FAMILIES:
        raise UnsupportedModelError(f"it is a model of the kind {printable(model_type[:60])!r}")
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
    name: str, family: str, files: Sequence[Path], config: ModelConfig, tokens: Tokens, readers: RowReaders
) -> Base:
    """Return a base of the tensors by name, whose readers take the rows to read, or None for all."""
    if unknown := sorted(readers.keys() - layout.weight_shapes(config, 0).keys()):
        raise UnsupportedModelError(f"it has tensors of another kind of model, such as {unknown[0][:100]}")
    our_rows = tokens[0].swapped_ids.astype(np.intp)
    rows = {tensor: our_rows if tensor in VOCABULARY_TENSORS else None for tensor in readers}
    weights = LazyTensors({tensor: partial(read, rows[tensor]) for tensor, read in readers.items()})
    return Base(name, family, tuple(files), config, tokens[0], weights, tokens[1])


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json`, or raise an InvalidInputError if it is damaged or the model brings code."""
    if (folder / "adapter_config.json").exists():  # transformers would load the base that the file names
        raise InvalidInputError("it is an adapter (LoRA), so merge it with its base model first")
    if not (folder / CONFIG_FILE).is_file():
        hint = "".join(f"; it has a GGUF file: write gguf:{file}" for file in sorted(folder.glob("*.gguf"))[:1])
        raise InvalidInputError(f"it has no {CONFIG_FILE}, so it is no model of transformers{hint}")
    contents = {file: read_json(folder / file) for file in (CONFIG_FILE, TOKENIZER_CONFIG_FILE)}
    programs = [key for key in ATTENTION_SETTINGS if "/" in str(contents[CONFIG_FILE].get(key))]
    keys = [*programs[:1], *(f"auto_map in {file}" for file, content in contents.items() if content.get("auto_map"))]
    if keys:
        remedy = "choose a model whose architecture is part of transformers"
        raise InvalidInputError(f"it needs code of its own ({keys[0]}), which is never run; {remedy}")
    return contents[CONFIG_FILE]


def find_weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model; one that has none, or only a pickle, raises an InvalidInputError."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / WEIGHTS_INDEX_FILE).is_file():
        files = sorted(set(read_json(folder / WEIGHTS_INDEX_FILE)["weight_map"].values()))
        if any(Path(file).name != file or not (folder / file).is_file() for file in files):
            raise InvalidInputError(f"a file that {WEIGHTS_INDEX_FILE} names is missing; fetch the model again")
        return [folder / file for file in files]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    hint = f", only a pickle ({pickles[0]}), which can run code and is never loaded" if pickles else ""
    raise InvalidInputError(f"it has no {WEIGHTS_FILE}{hint}; choose a model with safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON object, empty if there is no file."""
    try:
        return msgspec.json.decode(read_limited(path, MAX_FILE_BYTES), type=dict[str, Any]) if path.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path.name} cannot be read, or is no JSON object; fetch the model again") from error


def read_folder_base(folder: Path, name: str) -> Base:
    """Return the model of a folder, or raise an InvalidInputError: if a file is damaged, or would run code."""
    settings = read_model_config(folder)
    config, paths = read_config(settings), find_weight_files(folder)
    ends = [each.get("eos_token_id") for each in (read_json(folder / "generation_config.json"), settings)]
    end_ids = [id for value in ends for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]
    files = {tensor: file for file in map(TensorFile, paths) for tensor in file.tensors}
    readers, num_tokens = {}, 0
    for tensor, file in files.items():
        if tensor.endswith(IGNORED_TENSORS) or (config.tie_weights and tensor == "lm_head.weight"):
            continue
        if tensor == VOCABULARY_TENSORS[0]:
            num_tokens = file.tensors[tensor][1][0]
        readers[tensor] = partial(file.read_weight, tensor)
    tokens = read_tokenizer_files(folder, end_ids)(end_ids, num_tokens)
    return make_base(name, FAMILIES[settings["model_type"]], paths, config, tokens, readers)


def read_tokenizer_files(folder: Path, end_ids: list[int]) -> TokenReader:
    """Read `tokenizer.json` and what other files say about it, after a try in a sandbox."""
    path, settings = folder / TOKENIZER_FILE, read_json(folder / TOKENIZER_CONFIG_FILE)
    if not path.is_file():
        raise InvalidInputError(f"it has no {path.name}; choose a model with one")
    content = read_limited(path, MAX_FILE_BYTES).decode()
    special = {key: token for key, token in settings.items() if key.endswith("_token")}  # texts, or dictionaries of one
    contents = {key: token.get("content") if isinstance(token, dict) else token for key, token in special.items()}
    texts = {key: text for key, text in contents.items() if isinstance(text, str)}
    try:
        first_id = SANDBOX.call(try_tokenizer, str(path.absolute()), texts, end_ids)
    except SandboxError as error:
        raise InvalidInputError(f"it has a damaged tokenizer: {path.name}: {error}; fetch the model again") from error
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((item["template"] for item in template if item["name"] == "default"), None)
    if (folder / TEMPLATE_FILE).is_file():
        template = read_limited(folder / TEMPLATE_FILE, MAX_FILE_BYTES).decode()
    return partial(read_tokens, content, texts, first_id, template if isinstance(template, str) else None)


def find_folder(source: PretrainedSource, on_progress: ProgressCallback) -> Path:
    """Return the folder of a model: of one on the Hub in its local cache, after downloading the missing files."""
    if source.kind != "hub":
        return source.path
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError as error:
        raise InvalidInputError(f"it needs huggingface_hub; {install_command('hf')}") from error
    repo_id = str(source.path)
    files: dict[str, Any] = {"allow_patterns": DOWNLOADED_FILES, "ignore_patterns": ["*/*"]}
    try:
        folder = Path(snapshot_download(repo_id, local_files_only=True, **files))
        read_model_config(folder)
        find_weight_files(folder)
        return folder
    except Exception as error:  # not cached or only a part of it, or a damaged cache
        cached_error = error
    try:
        on_progress(LoadingProgress(f"asking the Hugging Face Hub for {repo_id}"))
        read_model_config(Path(hf_hub_download(repo_id, CONFIG_FILE)).parent)
        on_progress(LoadingProgress(f"downloading {repo_id}"))
        return Path(snapshot_download(repo_id, **files))
    except Exception as error:  # libraries for connections raise errors of many types
        if problem := next((each for each in (error, cached_error) if isinstance(each, InvalidInputError)), None):
            raise problem from None
        reason = f"neither in the local cache nor reachable ({type(error).__name__}); check the name and the network"
        if (kind := type(error).__name__) == "GatedRepoError":
            reason = "only for users who accepted its terms on huggingface.co; do so and log in with `hf auth login`"
        elif kind == "RepositoryNotFoundError":
            reason = "not on the Hugging Face Hub, or private; check the name"
        raise InvalidInputError(f"it is {reason}") from error


@dataclass(frozen=True)
class StoredBase:  # content of the file that describes a stored model
    version: Literal[1]
    name: str
    family: str
    config: ModelConfig
    sha256: str  # of the file that the model was converted from
    source: str  # of that file, in words
    num_tokens: int
    specials: SpecialTokens
    template: JinjaTemplate | None
    weights_bytes: int
    weights_sha256: str  # of the converted weights


def store_base(base: Base, name: str, folder: Path, sha256: str, source: str) -> None:
    """Convert a model, whose file has the hash `sha256` and comes from `source`, to 8 bits and write it to a folder."""
    from safetensors.numpy import save

    weights = dict(layout.MergedWeights(base.config, base.weights, {}, int8=True))
    layout.check_weights(weights, base.shapes, MAX_WEIGHT)
    tensors = {tensor: part.values if isinstance(part, Int8Rows) else part for tensor, part in weights.items()}
    tensors |= {tensor + SCALE_SUFFIX: part.scales for tensor, part in weights.items() if isinstance(part, Int8Rows)}
    content = save(tensors)
    num_tokens, template = len(base.tokenizer), base.chat.template if base.chat else None
    facts = name, base.family, base.config, sha256, source, num_tokens, base.tokenizer.specials, template
    stored = msgspec.json.encode(StoredBase(1, *facts, len(content), hashlib.sha256(content).hexdigest()))
    write_folder(folder, {BASE_FILE: stored, TOKENIZER_FILE: base.tokenizer.to_json().encode(), WEIGHTS_FILE: content})


def read_stored_base(name: str, *, check_bytes: bool = False) -> Base:
    # Its size, names and shapes are checked, or with `check_bytes` all bytes.
    folder = base_folder(name)
    if not folder.exists():
        raise InvalidInputError(f"{name} has not been fetched; run `lotr-tui fetch {name}`")
    with refuse_in_one_line(name):
        stored = msgspec.json.decode(read_limited(folder / BASE_FILE, MAX_FILE_BYTES), type=StoredBase)
        content = read_limited(folder / TOKENIZER_FILE, MAX_FILE_BYTES).decode()
        tokenizer = PretrainedTokenizer(content, stored.num_tokens, stored.specials)
        file = TensorFile(folder / WEIGHTS_FILE)
        if (size := file.path.stat().st_size) != stored.weights_bytes:
            raise RunError(f"{WEIGHTS_FILE} has {size:,} bytes, not {stored.weights_bytes:,}")
        if check_bytes and hash_files([file.path]) != stored.weights_sha256:
            raise RunError(f"{WEIGHTS_FILE} has changed")
        check_tensors(file.tensors, shapes := layout.weight_shapes(stored.config, stored.num_tokens))
    weights = LazyTensors({tensor: partial(file.read_weight, tensor) for tensor in shapes})
    chat = ChatTemplate(replace(stored.template, is_trusted=True), tokenizer) if stored.template else None
    origin = stored.sha256, file.release_pages
    return Base(name, stored.family, (file.path,), stored.config, tokenizer, weights, chat, *origin)
