"""Loading of models by others, with checks before anything large is read. Pickles and remote code are never loaded."""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidInputError, LotrError, describe_error, printable
from engine.models.pretrained import folder_checks, gguf_file
from engine.models.pretrained.base import LoadingProgress, ProgressCallback
from engine.models.pretrained.gguf_tensors import GGUFFile
from engine.models.pretrained.names import PretrainedSource, parse_pretrained_name
from engine.models.pretrained.special_tokens import try_texts
from engine.models.pretrained.tokenizer import convert_panics
from engine.runtime.process import limit_openmp_spinning, preload_torch, silence_descriptors
from engine.runtime.sandbox import Sandbox, SandboxError
from engine.storage.tensor_file import read_header

if TYPE_CHECKING:
    import torch

    from engine.models.pretrained.model import PretrainedModel

MAX_REASON_CHARACTERS = 300
"""Maximum characters of an error of transformers in a message."""
SANDBOX = Sandbox(
    *("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto"),
    *("transformers.models.auto.tokenization_auto", "engine.models.pretrained.adapter"),
    max_cpu_seconds=15,
)
"""Process in which transformers reads the settings and the tokenizer of a model first."""
MAX_PARAMETERS_FACTOR = 2
"""Maximum number of parameters that a configuration may describe, relative to those in the files."""


def load_pretrained(name: str, on_progress: ProgressCallback | None = None) -> "PretrainedModel":
    """Load the model that `name` names (see `is_pretrained_name`), and report each step to `on_progress`.

    Loading takes seconds, so use a thread. `on_progress` is called in the same thread.

    Raises:
        InvalidInputError: If the model cannot be loaded: one line that names the model and the remedy.
    """
    report = on_progress or (lambda progress: None)
    source = parse_pretrained_name(name)
    _check_extra(source)
    report(LoadingProgress("importing torch and transformers"))
    if source.kind != "gguf":
        SANDBOX.start()
    limit_openmp_spinning()
    preload_torch()
    silence_libraries()
    silence_descriptors()
    if source.kind == "gguf":
        return _load_gguf(source, report)
    folder = source.path
    if source.kind == "hub":
        from engine.models.pretrained.hub import fetch_folder

        folder = fetch_folder(source.target, name, lambda text: report(LoadingProgress(text)))
    return _load_folder(folder, source, report)


def _check_extra(source: PretrainedSource) -> None:
    modules = ["torch", "transformers", *(["accelerate"] if source.kind == "gguf" else [])]
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise InvalidInputError(f"{source.name} needs {' and '.join(missing)}; pip install 'lotr-tui[hf]'")


def silence_libraries() -> None:
    """Keep transformers and the libraries that it uses from printing warnings and progress bars over the screen."""
    import huggingface_hub.utils
    import transformers

    transformers.logging.set_verbosity(logging.CRITICAL)
    libraries: list[Any] = [transformers.logging, huggingface_hub.utils]
    libraries[0].disable_progress_bar()
    libraries[1].disable_progress_bars()
    for library in ("huggingface_hub", "accelerate", "httpx", "urllib3"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for module in ("transformers", "huggingface_hub", "accelerate", "torch", "gguf"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")


def _load_folder(folder: Path, source: PretrainedSource, report: ProgressCallback) -> "PretrainedModel":
    import torch

    name = source.name
    report(LoadingProgress("checking the files"))
    config = folder_checks.read_model_config(folder, name)
    folder_checks.check_file_sizes(folder, name)
    folder_checks.check_is_causal(config, name)
    files = folder_checks.find_weight_files(folder, name)
    num_parameters, stored = folder_checks.count_parameters(files, name)
    folder_checks.check_layers(config, sum(len(read_header(file).tensors) for file in files), name)
    try:
        num_described, num_buffer_bytes = SANDBOX.call(try_folder, str(folder.absolute()), name)
    except SandboxError as error:
        raise _loading_error(name, error) from error
    if num_described > MAX_PARAMETERS_FACTOR * num_parameters:
        raise InvalidInputError(
            f"{name}: config.json describes {num_described:,} parameters, but the weights have {num_parameters:,}; "
            "fetch the model again"
        )
    required = int(folder_checks.LOADING_FACTOR * 4 * max(num_parameters, num_described)) + num_buffer_bytes
    device = torch.device("cpu")
    if torch.cuda.is_available() and stored * folder_checks.LOADING_FACTOR < torch.cuda.mem_get_info()[0]:
        device, required = torch.device("cuda"), int(stored * folder_checks.LOADING_FACTOR)
    folder_checks.check_memory(name, required)
    report(LoadingProgress(f"reading {folder_checks.format_bytes(stored)} of weights", required))
    dtype = torch.float32 if device.type == "cpu" else "auto"
    hf_tokenizer = _read_tokenizer(folder, name)
    hf_config = read_hf_config(folder)
    softcaps = "attn_logit_softcapping" in config
    module = _read_weights(folder, name, dtype, softcaps_attention=softcaps, config=hf_config)
    return _new_model(module, hf_tokenizer, source, report, device, required)


def try_folder(path: str, name: str) -> tuple[int, int]:
    """Read the settings and the tokenizer of a folder, and build its model without weights, in a sandbox.

    Returns:
        The number of parameters, and the bytes of the tensors that are no parameters.
    """
    import torch
    import transformers

    from engine.models.pretrained.adapter import read_tokenizer_files

    auto: Any = transformers.AutoModelForCausalLM
    silence_libraries()
    with torch.device("meta"):
        module: torch.nn.Module = auto.from_config(read_hf_config(Path(path)))
    files = read_tokenizer_files(_read_tokenizer(Path(path), name))
    try_texts(files.make_tokenizer(name, [0], files.num_tokens))
    return sum(part.numel() for part in module.parameters()), sum(part.nbytes for part in module.buffers())


def read_hf_config(folder: Path) -> Any:
    """Return the configuration of a folder in the form of transformers, with the kind of output that we read."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config.return_dict = True
    return config


def _load_gguf(source: PretrainedSource, report: ProgressCallback) -> "PretrainedModel":
    import torch
    from transformers import AutoConfig

    name, path = source.name, source.path
    report(LoadingProgress("checking the file"))
    num_tensors = len(GGUFFile(path, name).shapes)  # refuses damaged files
    reader = gguf_file.open_gguf(path)
    required = gguf_file.required_bytes(reader)
    folder_checks.check_memory(name, required)
    report(LoadingProgress("reading the tokenizer", required))

    def on_tensor(index: int, total: int) -> None:
        if index % max(1, total // 20) == 0:
            report(LoadingProgress(f"converting weights, {100 * index // total} %", required))

    with gguf_file.shared_reader(reader, on_tensor):
        try:
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        except Exception as error:
            raise _loading_error(name, error) from error
        settings = config.to_dict()
        folder_checks.check_is_causal(settings, name)
        folder_checks.check_layers(settings, num_tensors, name)
        hf_tokenizer = _read_tokenizer(path.parent, name, gguf_file=path.name)
        softcaps = "attn_logit_softcapping" in settings
        module = _read_weights(path.parent, name, torch.float32, softcaps_attention=softcaps, gguf_file=path.name)
    device = torch.device("cpu")
    if torch.cuda.is_available() and required < torch.cuda.mem_get_info()[0]:
        device = torch.device("cuda")
    return _new_model(module, hf_tokenizer, source, report, device, required)


def _read_tokenizer(folder: Path, name: str, **options: Any) -> Any:
    """Return the tokenizer of a model, an object of transformers with a fast implementation."""
    from transformers import AutoTokenizer

    try:
        with convert_panics():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # of many types, for each kind of tokenizer
        raise _loading_error(name, error, "its tokenizer") from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InvalidInputError(f"{name} has no tokenizer.json, and its other tokenizer is not supported")
    return tokenizer


def _read_weights(
    folder: Path, name: str, dtype: Any, *, softcaps_attention: bool, **options: Any
) -> "torch.nn.Module":
    """Return the model of transformers, with all its weights read from safetensors or GGUF.

    `softcaps_attention` is True for models that bound the logits of attention, such as Gemma 2.
    """
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    version = tuple(map(int, transformers.__version__.split(".")[:2]))
    options["torch_dtype" if version < (4, 56) else "dtype"] = dtype
    if version < (5, 0) and softcaps_attention:
        options["attn_implementation"] = "eager"  # the faster one leaves the bound out
    if "gguf_file" not in options:
        options["use_safetensors"] = True
    try:
        module, info = auto.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, output_loading_info=True, **options
        )
    except Exception as error:  # of many types, for each kind of model
        raise _loading_error(name, error) from error
    if missing := sorted(info.get("missing_keys") or []):
        raise InvalidInputError(
            f"{name} lacks {len(missing)} of its tensors, such as {printable(missing[0])}; "
            "it is another kind of model, or damaged"
        )
    loaded: torch.nn.Module = module.eval().requires_grad_(False)
    return loaded


def _loading_error(name: str, error: Exception, part: str = "it") -> InvalidInputError:
    reason = describe_error(error)
    if len(reason) > MAX_REASON_CHARACTERS:
        reason = f"{reason[:MAX_REASON_CHARACTERS]}…"
    return InvalidInputError(f"{name}: transformers cannot load {part}: {reason}")


def _new_model(
    module: "torch.nn.Module",
    hf_tokenizer: Any,
    source: PretrainedSource,
    report: ProgressCallback,
    device: "torch.device",
    required: int,
) -> "PretrainedModel":
    from engine.models.pretrained.adapter import adapt

    report(LoadingProgress("trying the model", required))
    try:
        with convert_panics():
            return adapt(module.to(device), hf_tokenizer, source.name)
    except LotrError:
        raise
    except Exception as error:  # of many types, for each kind of model
        raise _loading_error(source.name, error) from error
