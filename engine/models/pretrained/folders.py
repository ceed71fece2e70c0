"""Reading of models by others without PyTorch: of folders, of the Hugging Face Hub, and of those stored in 8 bits."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.config import ModelConfig
from engine.errors import InvalidInputError, RunError, install_command
from engine.models import weights as layout
from engine.models.pretrained import base as bases
from engine.models.pretrained import gguf_file, names
from engine.models.pretrained.chat import SANDBOX, ChatTemplate, JinjaTemplate
from engine.models.pretrained.tokenizer import PretrainedTokenizer, SpecialTokens
from engine.runtime.process import silence_descriptors
from engine.runtime.sandbox import SandboxError
from engine.storage.files import read_limited, write_folder
from engine.storage.tensor_file import SCALE_SUFFIX, Int8Rows, TensorFile, check_tensors, to_int8

IGNORED_TENSORS = "rotary_emb.inv_freq"  # end of the names of tensors in old files, which follow from the settings
DOWNLOADED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]  # never pickles or code
CONFIG_FILE, TOKENIZER_CONFIG_FILE, TEMPLATE_FILE = "config.json", "tokenizer_config.json", "chat_template.jinja"
WEIGHTS_FILE, WEIGHTS_INDEX_FILE, TOKENIZER_FILE = "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
MAX_FILE_BYTES = 64_000_000  # of the files without the weights
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
ATTENTION_SETTINGS = ("attn_implementation", "_attn_implementation")  # owner/name is a program on the Hub


def read_base(name: str, on_progress: bases.ProgressCallback | None = None) -> bases.Base:
    """Return the pre-trained model `smollm2`, `gguf:FILE`, `hf:FOLDER` or `hf:owner/name`, without PyTorch.

    A model that only transformers can load raises an UnsupportedModelError, a damaged one an InvalidInputError.
    """
    if name == names.SMOLLM2:
        return read_stored_base(name)
    source = names.parse_pretrained_name(name)
    silence_descriptors()
    with bases.refuse_in_one_line(name):
        if source.kind == "gguf":
            return gguf_file.read_gguf_base(source.path, name)
        return read_folder_base(find_folder(source, on_progress or (lambda progress: None)), name)


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


def read_folder_base(folder: Path, name: str) -> bases.Base:
    """Return the model of a folder, or raise an InvalidInputError: if a file is damaged, or would run code."""
    settings = read_model_config(folder)
    config, paths = bases.read_config(settings), find_weight_files(folder)
    ends = [each.get("eos_token_id") for each in (read_json(folder / "generation_config.json"), settings)]
    end_ids = [id for value in ends for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]
    files, readers, num_tokens = list(map(TensorFile, paths)), {}, 0
    for file, tensor in ((each, tensor) for each in files for tensor in each.tensors):
        if tensor.endswith(IGNORED_TENSORS) or (config.tie_weights and tensor == "lm_head.weight"):
            continue
        if tensor == bases.VOCABULARY_TENSORS[0]:
            num_tokens = file.tensors[tensor][1][0]
        readers[tensor] = partial(file.read_weight, tensor)
    tokenizer, chat = read_tokenizer_files(folder, end_ids)(end_ids, num_tokens)
    origin = bases.FAMILIES[settings["model_type"]], paths, config, readers
    return bases.make_base(name, *origin, tokenizer, chat, [file.release_pages for file in files])


def read_tokenizer_files(folder: Path, end_ids: list[int]) -> bases.TokenizerReader:
    """Read `tokenizer.json` and what other files say about it, after a try in a sandbox."""
    path, settings = folder / TOKENIZER_FILE, read_json(folder / TOKENIZER_CONFIG_FILE)
    if not path.is_file():
        raise InvalidInputError(f"it has no {path.name}; choose a model with one")
    content = read_limited(path, MAX_FILE_BYTES).decode()
    special = {key: token for key, token in settings.items() if key.endswith("_token")}  # texts, or dictionaries of one
    contents = {key: token.get("content") if isinstance(token, dict) else token for key, token in special.items()}
    texts = {key: text for key, text in contents.items() if isinstance(text, str)}
    try:
        first_id = SANDBOX.call(bases.try_tokenizer, str(path.absolute()), texts, end_ids)
    except SandboxError as error:
        raise InvalidInputError(f"it has a damaged tokenizer: {path.name}: {error}; fetch the model again") from error
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((item["template"] for item in template if item["name"] == "default"), None)
    if (folder / TEMPLATE_FILE).is_file():
        template = read_limited(folder / TEMPLATE_FILE, MAX_FILE_BYTES).decode()
    return partial(bases.read_tokenizer, content, texts, first_id, template if isinstance(template, str) else None)


def find_folder(source: names.PretrainedSource, on_progress: bases.ProgressCallback) -> Path:
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
        on_progress(bases.LoadingProgress(f"asking the Hugging Face Hub for {repo_id}"))
        read_model_config(Path(hf_hub_download(repo_id, CONFIG_FILE)).parent)
        on_progress(bases.LoadingProgress(f"downloading {repo_id}"))
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


def store_base(base: bases.Base, name: str, folder: Path, sha256: str, source: str) -> None:
    """Convert a model, whose file has the hash `sha256` and comes from `source`, to 8 bits and write it to a folder."""
    from safetensors.numpy import save

    weights = {tensor: to_int8(base.weights[tensor]) for tensor in base.weights}
    layout.check_weights(weights, base.shapes, bases.MAX_WEIGHT)
    tensors = {tensor: part.values if isinstance(part, Int8Rows) else part for tensor, part in weights.items()}
    tensors |= {tensor + SCALE_SUFFIX: part.scales for tensor, part in weights.items() if isinstance(part, Int8Rows)}
    content = save(tensors)
    num_tokens, template = len(base.tokenizer), base.chat.template if base.chat else None
    facts = name, base.family, base.config, sha256, source, num_tokens, base.tokenizer.specials, template
    stored = msgspec.json.encode(StoredBase(1, *facts, len(content), hashlib.sha256(content).hexdigest()))
    tokenizer = base.tokenizer.to_json().encode()
    write_folder(folder, {names.BASE_FILE: stored, TOKENIZER_FILE: tokenizer, WEIGHTS_FILE: content})


def read_stored_base(name: str, *, check_bytes: bool = False) -> bases.Base:
    # Its size, names and shapes are checked, or with `check_bytes` all bytes.
    folder = names.base_folder(name)
    if not folder.exists():
        raise InvalidInputError(f"{name} has not been fetched; run `lotr-tui fetch {name}`")
    with bases.refuse_in_one_line(name):
        stored = msgspec.json.decode(read_limited(folder / names.BASE_FILE, MAX_FILE_BYTES), type=StoredBase)
        content = read_limited(folder / TOKENIZER_FILE, MAX_FILE_BYTES).decode()
        tokenizer = PretrainedTokenizer(content, stored.num_tokens, stored.specials)
        file = TensorFile(folder / WEIGHTS_FILE)
        if (size := file.path.stat().st_size) != stored.weights_bytes:
            raise RunError(f"{WEIGHTS_FILE} has {size:,} bytes, not {stored.weights_bytes:,}")
        if check_bytes and bases.hash_files([file.path]) != stored.weights_sha256:
            raise RunError(f"{WEIGHTS_FILE} has changed")
        check_tensors(file.tensors, shapes := layout.weight_shapes(stored.config, stored.num_tokens))
    weights = bases.LazyTensors({tensor: partial(file.read_weight, tensor) for tensor in shapes})
    chat = ChatTemplate(replace(stored.template, is_trusted=True), tokenizer) if stored.template else None
    origin = stored.sha256, (file.release_pages,)
    return bases.Base(name, stored.family, (file.path,), stored.config, tokenizer, weights, chat, *origin)
