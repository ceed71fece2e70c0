"""Loading of models by others with transformers, after checks. Pickles and remote code are never loaded."""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidInputError, LotrError, describe_error, install_command, printable
from engine.models.pretrained import folder as folders
from engine.models.pretrained.base import LoadingProgress, ProgressCallback, check_memory, format_bytes
from engine.models.pretrained.names import parse_pretrained_name
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
OPTIONS: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


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
    folder = folders.find_folder(source, report)
    report(LoadingProgress("checking the files"))
    folders.read_model_config(folder, name)
    folders.read_json(folder / "generation_config.json", name)  # transformers reads it as a whole
    stored = sum(file.stat().st_size for file in folders.find_weight_files(folder, name))
    tokenizer_files = folders.read_tokenizer_files(folder, name, [0])
    try:
        required = SANDBOX.call(try_config, str(folder.absolute()), name)
        import torch
        import transformers

        from engine.models.pretrained.model import PretrainedModel

        device, dtype = torch.device("cpu"), "float32"
        if torch.cuda.is_available() and MEMORY_FACTOR * stored < torch.cuda.mem_get_info()[0]:
            device, dtype, required = torch.device("cuda"), "auto", stored
        required = int(MEMORY_FACTOR * required)
        check_memory(name, required)
        report(LoadingProgress(f"reading {format_bytes(stored)} of weights", required))
        auto: Any = transformers.AutoModelForCausalLM
        module, info = auto.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **OPTIONS
        )
        if absent := sorted(info.get("missing_keys") or []):
            shown = f"{len(absent)} of its tensors, such as {printable(absent[0])}"
            raise InvalidInputError(f"{name} lacks {shown}; it is another kind of model, or damaged")
        return PretrainedModel(module.eval().requires_grad_(False).to(device), tokenizer_files, name)
    except Exception as error:  # of many types, for each kind of model
        if isinstance(error, LotrError) and not isinstance(error, SandboxError):
            raise
        raise InvalidInputError(f"{name}: transformers cannot load it: {describe_error(error)[:300]}") from error


def silence_libraries() -> None:
    import huggingface_hub.utils
    import transformers

    libraries: list[Any] = [transformers.logging, huggingface_hub.utils]
    libraries[0].set_verbosity(logging.CRITICAL)
    libraries[0].disable_progress_bar()
    libraries[1].disable_progress_bars()
    for library in ("huggingface_hub", "httpx", "urllib3"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    for module in ("transformers", "huggingface_hub", "torch"):
        warnings.filterwarnings("ignore", module=rf"{module}(\..*)?")


def try_config(path: str, name: str) -> int:
    # Called in the sandbox; returns the bytes of the model in single precision.
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto import modeling_auto

    silence_libraries()
    auto: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(Path(path), **OPTIONS)
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
