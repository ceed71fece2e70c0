"""Folders with models by others in Hugging Face's format, on this machine or on the Hub: none of their code is run.

Llama, Mistral, Qwen2 and SmolLM2 are read as bases, without transformers.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from engine.config import ModelConfig
from engine.data.arrays import Float32Array
from engine.errors import ConfigError, InvalidInputError, RunError, install_command, printable
from engine.models import transformer_layout as layout
from engine.models.pretrained import base as bases
from engine.models.pretrained.chat import SANDBOX
from engine.models.pretrained.names import PretrainedSource
from engine.models.pretrained.tokenizer import TokenizerFiles, try_tokenizer
from engine.runtime.sandbox import SandboxError
from engine.storage.files import decode, parse_json, read_limited
from engine.storage.tensor_file import TensorFile, to_float32

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"}  # by values of `model_type`
FLOAT_DTYPES = ("float32", "float16", "bfloat16")
IGNORED_TENSORS = "rotary_emb.inv_freq"  # end of the names of tensors in old files, which follow from the settings
DOWNLOADED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # never pickles or code
CONFIG_FILE, TOKENIZER_CONFIG_FILE = "config.json", "tokenizer_config.json"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_JSON_BYTES = 50_000_000
MAX_CONTEXT_SIZE = 65_536  # of the setting; a larger context is used up to there
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
CODE_SETTINGS = (  # with a function that tells whether the value names code
    (CONFIG_FILE, "auto_map", bool),
    (TOKENIZER_CONFIG_FILE, "auto_map", bool),
    (CONFIG_FILE, "attn_implementation", lambda value: "/" in str(value)),  # transformers would download this program
    (CONFIG_FILE, "_attn_implementation", lambda value: "/" in str(value)),
)
DROPOUTS = ("embedding_dropout", "input_dropout", "hidden_dropout", "output_dropout")
LLAMA3_FACTORS = (layout.LLAMA3_LOW_FACTOR, layout.LLAMA3_HIGH_FACTOR)

Size = Annotated[int, msgspec.Meta(gt=0, le=10**12)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e18)]


class _Rope(msgspec.Struct):
    rope_type: str | None = None
    type: str | None = None  # before transformers 4.43
    rope_theta: Positive | None = None  # since transformers 5
    factor: Positive = 1.0
    original_max_position_embeddings: Size = 1
    low_freq_factor: float = layout.LLAMA3_LOW_FACTOR
    high_freq_factor: float = layout.LLAMA3_HIGH_FACTOR
    partial_rotary_factor: float = 1.0


class _Settings(msgspec.Struct, kw_only=True):  # of `config.json`
    hidden_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    rms_norm_eps: Positive = 1e-6
    rope_theta: Positive = 10_000.0
    rope_parameters: _Rope | None = None
    rope_scaling: _Rope | None = None
    sliding_window: Size | None = None
    use_sliding_window: bool = False
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    mlp_bias: bool = False
    attention_bias: bool = False


def read_config(settings: Mapping[str, Any], name: str) -> ModelConfig:
    """Return the configuration, without dropout, of a model of `FAMILIES` from the content of its `config.json`."""
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise bases.UnsupportedModelError(f"{name} is a model of the kind {printable(str(model_type)[:60])!r}")
    try:
        stated = decode(_Settings, settings)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}: config.json has no usable {error}; fetch the model again") from error
    if (stated.hidden_act, stated.mlp_bias, stated.attention_bias) != ("silu", False, False):
        raise bases.UnsupportedModelError(f"{name} has another hidden_act, mlp_bias or attention_bias than most models")
    rope = stated.rope_parameters or stated.rope_scaling or _Rope()
    kind, factors = rope.rope_type or rope.type or "default", (rope.low_freq_factor, rope.high_freq_factor)
    is_known = kind in ("default", "linear", "llama3") and factors == LLAMA3_FACTORS
    if not is_known or rope.partial_rotary_factor != 1.0:
        raise bases.UnsupportedModelError(f"{name} has rotary positions of another kind ({printable(kind[:60])})")
    context_size = stated.max_position_embeddings
    # Up to the size of a sliding window, attention to the window is attention to all tokens.
    if stated.sliding_window and (model_type == "mistral" or stated.use_sliding_window):
        context_size = min(context_size, stated.sliding_window)
    values = layout.TRANSFORMER_VALUES | dict.fromkeys(DROPOUTS, 0.0)
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
            context_size=min(context_size, MAX_CONTEXT_SIZE),
            norm_eps=stated.rms_norm_eps,
            rope_base=rope.rope_theta or stated.rope_theta,
            qkv_bias=model_type == "qwen2",
            tie_weights=stated.tie_word_embeddings,
            **values,
        )
        layout.check_transformer_config(config)
    except ConfigError as error:
        raise bases.UnsupportedModelError(f"{name} has a setting out of range: {error}") from error
    return config


def new_base(
    name: str,
    family: str,
    files: tuple[Path, ...],
    config: ModelConfig,
    tokenizer_files: TokenizerFiles,
    end_ids: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[..., Float32Array],
    num_tokens: int,
) -> bases.Base:
    """Return a base whose tensors have `shapes`, of which those of the vocabulary may have more rows than tokens.

    `read` takes a name, and the rows to read or None for all. Other shapes raise an InvalidInputError.
    """
    expected = layout.transformer_weight_shapes(config, num_tokens)
    if missing := sorted(expected.keys() - shapes.keys()):
        shown = f"{len(missing)} of its tensors, such as {printable(missing[0])}"
        raise InvalidInputError(f"{name} lacks {shown}; it is damaged, or another kind of model")
    if unknown := sorted(shapes.keys() - expected.keys()):
        shown = printable(unknown[0][:100])
        raise bases.UnsupportedModelError(f"{name} has tensors of another kind of model, such as {shown}")
    for tensor, shape in expected.items():
        rows, *others = shapes[tensor]
        is_longer = tensor in bases.VOCABULARY_TENSORS and rows > num_tokens
        if (*others,) != shape[1:] or (rows != shape[0] and not is_longer):
            shown = f"{tensor} is {[rows, *others]}, not {list(shape)}"
            raise InvalidInputError(f"{name}: {shown}; fetch the model again")
    tokenizer, chat = tokenizer_files.read(name, end_ids, num_tokens)
    our_rows = tokenizer.swapped_ids.astype(np.intp)
    readers = {
        tensor: partial(read, tensor, our_rows if tensor in bases.VOCABULARY_TENSORS else None) for tensor in shapes
    }
    return bases.Base(name, family, files, config, tokenizer, bases.LazyTensors(readers), chat)


def read_model_config(folder: Path, name: str) -> dict[str, Any]:
    """Return the content of `config.json`, or raise an InvalidInputError if it is damaged or the model brings code."""
    if (folder / "adapter_config.json").exists():  # transformers would load the base that the file names
        raise InvalidInputError(f"{name} is an adapter (LoRA), so merge it with its base model first")
    if not (folder / CONFIG_FILE).is_file():
        hint = "".join(f"; it has a GGUF file: write gguf:{file}" for file in sorted(folder.glob("*.gguf"))[:1])
        raise InvalidInputError(f"{name} has no {CONFIG_FILE}, so it is no model of transformers{hint}")
    contents = {file: read_json(folder / file, name) for file in (CONFIG_FILE, TOKENIZER_CONFIG_FILE)}
    for file, key, is_code in CODE_SETTINGS:
        if is_code(contents[file].get(key)):
            raise InvalidInputError(
                f"{name} needs code of its own ({key} in {file}), which is never run; "
                "choose a model whose architecture is part of transformers"
            )
    return contents[CONFIG_FILE]


def find_weight_files(folder: Path, name: str) -> list[Path]:
    """Return the safetensors files of a model, or raise an InvalidInputError if one is missing, or it has a pickle."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / WEIGHTS_INDEX_FILE).is_file():
        weight_map = read_json(folder / WEIGHTS_INDEX_FILE, name).get("weight_map")
        files = sorted({str(file) for file in weight_map.values()}) if isinstance(weight_map, dict) else []
        if not files or any(Path(file).name != file or not (folder / file).is_file() for file in files):
            raise InvalidInputError(f"{name}: {WEIGHTS_INDEX_FILE} is damaged, or a file that it names is missing")
        return [folder / file for file in files]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    hint = f", only a pickle ({pickles[0]}), which can run code and is never loaded" if pickles else ""
    raise InvalidInputError(f"{name} has no {WEIGHTS_FILE}{hint}; choose a model with safetensors")


def read_text(path: Path, name: str) -> str:
    try:
        return read_limited(path, MAX_JSON_BYTES).decode()
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{name}: {path.name} cannot be read or is not text; fetch the model again") from error


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the content of a JSON object, empty if there is no file; damage raises an InvalidInputError."""
    text = read_text(path, name) if path.is_file() else "{}"
    try:
        content = parse_json(text)
        if isinstance(content, dict):
            return content
    except InvalidInputError:
        pass
    raise InvalidInputError(f"{name}: {path.name} is no JSON object; fetch the model again")


def read_folder_base(folder: Path, name: str) -> bases.Base:
    """Return the model of a folder, or raise an InvalidInputError: if a file is damaged, or would run code."""
    settings = read_model_config(folder, name)
    config, paths = read_config(settings, name), find_weight_files(folder, name)
    ends = [read_json(folder / "generation_config.json", name).get("eos_token_id"), settings.get("eos_token_id")]
    end_ids = [id for value in ends for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]
    tokenizer_files = read_tokenizer_files(folder, name, end_ids)
    try:
        weight_files = [TensorFile(path) for path in paths]
    except (RunError, OSError) as error:
        raise InvalidInputError(f"{name} has damaged weights: {error}; fetch the model again") from error
    files = {
        tensor: file
        for file in weight_files
        for tensor in file.tensors
        if not tensor.endswith(IGNORED_TENSORS) and not (config.tie_weights and tensor == "lm_head.weight")
    }
    for tensor, file in files.items():
        if (dtype := file.tensors[tensor][0]) not in FLOAT_DTYPES:
            shown = f"{printable(tensor[:100])} is {dtype}, not {', '.join(FLOAT_DTYPES)}"
            raise bases.UnsupportedModelError(f"{name}: {shown}")
    shapes = {tensor: file.tensors[tensor][1] for tensor, file in files.items()}
    num_rows = shapes.get(bases.VOCABULARY_TENSORS[0], (0,))[0]
    num_tokens = min(num_rows, tokenizer_files.num_tokens)
    family = FAMILIES[settings["model_type"]]

    def read(tensor: str, rows: npt.NDArray[np.intp] | None) -> Float32Array:
        return to_float32(files[tensor].read_weight(tensor, rows))

    return new_base(name, family, tuple(paths), config, tokenizer_files, end_ids, shapes, read, num_tokens)


def read_tokenizer_files(folder: Path, name: str, end_ids: list[int]) -> TokenizerFiles:
    """Read `tokenizer.json` and what other files say about it, after a try in a sandbox."""
    path, template_path = folder / "tokenizer.json", folder / "chat_template.jinja"
    if not path.is_file():
        raise InvalidInputError(f"{name} has no {path.name}; choose a model with one")
    content, settings = read_text(path, name), read_json(folder / TOKENIZER_CONFIG_FILE, name)
    texts: dict[str, str | None] = {}
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):  # a text, or a dictionary with it
        token = settings.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        texts[key] = text if isinstance(text, str) else None
    try:
        first_id = SANDBOX.call(try_tokenizer, str(path.absolute()), name, texts, end_ids)
    except SandboxError as error:
        raise InvalidInputError(
            f"{name} has a damaged tokenizer: {path.name}: {error}; fetch the model again"
        ) from error
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {str(item.get("name")): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    if template_path.is_file():
        template = read_text(template_path, name)
    return TokenizerFiles(content, texts, first_id, template if isinstance(template, str) else None)


def find_folder(source: PretrainedSource, on_progress: bases.ProgressCallback) -> Path:
    """Return the folder of a model: of one on the Hub in its local cache, after downloading the missing files."""
    name, repo_id, cached_error = source.name, str(source.path), None
    if source.kind != "hub":
        return source.path
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError as error:
        raise InvalidInputError(f"{name} needs huggingface_hub; {install_command('hf')}") from error
    files: dict[str, Any] = {"allow_patterns": DOWNLOADED_FILES, "ignore_patterns": ["*/*"]}
    try:
        folder = Path(snapshot_download(repo_id, local_files_only=True, **files))
        read_model_config(folder, name)
        find_weight_files(folder, name)
        return folder
    except Exception as error:  # not cached or only a part of it, or a damaged cache
        cached_error = error
    try:
        on_progress(bases.LoadingProgress(f"asking the Hugging Face Hub for {repo_id}"))
        read_model_config(Path(hf_hub_download(repo_id, CONFIG_FILE)).parent, name)
        on_progress(bases.LoadingProgress(f"downloading {repo_id}"))
        return Path(snapshot_download(repo_id, **files))
    except InvalidInputError:
        raise
    except Exception as error:  # libraries for connections raise errors of many types
        if isinstance(cached_error, InvalidInputError):
            raise cached_error from error
        reason = f"is neither in the local cache nor reachable ({type(error).__name__}); check the name and the network"
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "GatedRepoError" in kinds:
            reason = "is only for users who accepted its terms on huggingface.co; do so and log in with `hf auth login`"
        elif "RepositoryNotFoundError" in kinds:
            reason = "is not on the Hugging Face Hub, or it is private; check the name"
        raise InvalidInputError(f"{name} {reason}") from error
