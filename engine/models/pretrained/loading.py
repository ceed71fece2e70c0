"""Loading of models by others with transformers, after checks. Pickles and remote code are never loaded."""

import importlib.util
import logging
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidInputError, LotrError, describe_error, install_command, printable
from engine.models.pretrained import base_folder
from engine.models.pretrained.base import LoadingProgress, ProgressCallback, check_memory, describe_model, format_bytes
from engine.models.pretrained.names import parse_pretrained_name
from engine.models.pretrained.special_tokens import TokenizerFiles
from engine.runtime.process import limit_openmp_spinning, preload_torch, silence_descriptors
from engine.runtime.sandbox import Sandbox, SandboxError

if TYPE_CHECKING:
    from engine.models.pretrained.model import PretrainedModel

# Transformers first reads the settings of a model here.
SANDBOX = Sandbox(
    *("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto"),
    "engine.models.pretrained.loading",
    max_cpu_seconds=15,
)
MEMORY_FACTOR = 1.2  # peak memory of loading a folder, relative to the weights as they are kept in memory
CONTEXT_SIZE_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length", "context_length")
UNLIMITED_CONTEXT_SIZE = 32_768  # of models without a limit, such as Mamba


def load_pretrained(name: str, on_progress: ProgressCallback | None = None) -> "PretrainedModel":
    """Load the model of a folder or of the Hub in seconds; an InvalidInputError names the model and the remedy."""
    report = on_progress or (lambda progress: None)
    source = parse_pretrained_name(name)
    if missing := [module for module in ("torch", "transformers") if importlib.util.find_spec(module) is None]:
        raise InvalidInputError(f"{name} needs {' and '.join(missing)}; {install_command('hf')}")
    report(LoadingProgress("importing torch and transformers"))
    SANDBOX.start()
    limit_openmp_spinning()
    preload_torch()
    silence_libraries()
    silence_descriptors()
    folder = source.path
    if source.kind == "hub":
        folder = base_folder.fetch_folder(source.target, name, report)
    report(LoadingProgress("checking the files"))
    base_folder.read_model_config(folder, name)
    base_folder.read_json(folder / "generation_config.json", name)  # transformers reads it as a whole
    stored = sum(file.stat().st_size for file in base_folder.find_weight_files(folder, name))
    tokenizer_files = base_folder.read_tokenizer_files(folder, name, [0])
    try:
        required = SANDBOX.call(try_config, str(folder.absolute()), name)
        return _load(folder, name, tokenizer_files, stored, required, report)
    except Exception as error:  # of many types, for each kind of model
        if isinstance(error, LotrError) and not isinstance(error, SandboxError):
            raise
        raise InvalidInputError(f"{name}: transformers cannot load it: {describe_error(error)[:300]}") from error


def silence_libraries() -> None:
    import huggingface_hub.utils
    import transformers

    transformers.logging.set_verbosity(logging.CRITICAL)
    libraries: list[Any] = [transformers.logging, huggingface_hub.utils]
    libraries[0].disable_progress_bar()
    libraries[1].disable_progress_bars()
    for library in ("huggingface_hub", "httpx", "urllib3"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for module in ("transformers", "huggingface_hub", "torch"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")


def try_config(path: str, name: str) -> int:
    # Called in the sandbox; returns the bytes of the model in single precision.
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto import modeling_auto

    silence_libraries()
    auto: Any = AutoModelForCausalLM
    config = _read_config(Path(path))
    names = config.architectures if isinstance(config.architectures, list) else []
    is_decoder = any(str(name).endswith(("CausalLM", "LMHeadModel")) for name in names)
    is_masked = config.model_type in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder
    is_causal = config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_masked
    if not is_causal or getattr(config, "is_encoder_decoder", False):
        raise InvalidInputError(
            f"{name} is no causal language model, which predicts the next token; choose another one"
        )
    with torch.device("meta"):
        module: torch.nn.Module = auto.from_config(config)
    return 4 * sum(part.numel() for part in module.parameters()) + sum(part.nbytes for part in module.buffers())


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config.return_dict = True
    return config


def _load(
    folder: Path, name: str, tokenizer_files: TokenizerFiles, stored: int, required: int, report: ProgressCallback
) -> "PretrainedModel":
    # `stored` and `required` are the bytes of the weights in the folder and in single precision.
    import torch
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    device, dtype = torch.device("cpu"), "float32"
    if torch.cuda.is_available() and MEMORY_FACTOR * stored < torch.cuda.mem_get_info()[0]:
        device, dtype, required = torch.device("cuda"), "auto", stored
    required = int(MEMORY_FACTOR * required)
    check_memory(name, required)
    report(LoadingProgress(f"reading {format_bytes(stored)} of weights", required))
    options = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    module, info = auto.from_pretrained(
        folder, config=_read_config(folder), dtype=dtype, output_loading_info=True, **options
    )
    if missing := sorted(info.get("missing_keys") or []):
        shown = f"{len(missing)} of its tensors, such as {printable(missing[0])}"
        raise InvalidInputError(f"{name} lacks {shown}; it is another kind of model, or damaged")
    report(LoadingProgress("trying the model", required))
    return adapt(module.eval().requires_grad_(False).to(device), tokenizer_files, name)


def adapt(module: Any, tokenizer_files: TokenizerFiles, name: str) -> "PretrainedModel":
    """Return a model of transformers, in evaluation mode, as one of ours."""
    from engine.models.pretrained.model import PretrainedModel

    config = module.config.get_text_config()
    num_tokens = min(tokenizer_files.num_tokens, int(config.vocab_size))
    ends = [getattr(each, "eos_token_id", None) for each in (getattr(module, "generation_config", None), module.config)]
    end_ids = [id for end in ends for id in (end if isinstance(end, list) else [end]) if id is not None]
    tokenizer = tokenizer_files.make_tokenizer(name, end_ids, num_tokens)
    family = re.sub("(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", type(module).__name__)
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    description = describe_model(family, layers, width, sum(part.numel() for part in module.parameters()))
    sizes = (getattr(config, key, None) for key in CONTEXT_SIZE_NAMES)
    context_size = next((size for size in sizes if isinstance(size, int) and size > 1), UNLIMITED_CONTEXT_SIZE)
    chat = tokenizer_files.make_chat_template(tokenizer)
    return PretrainedModel(module, tokenizer, name, description, context_size, chat)
