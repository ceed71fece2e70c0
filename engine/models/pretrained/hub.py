"""Models on the Hugging Face Hub: the local cache first, then a download."""

import fnmatch
from collections.abc import Callable
from pathlib import Path

from engine.errors import InvalidInputError
from engine.models.pretrained.base_folder import FAMILIES
from engine.models.pretrained.folder_checks import (
    CONFIG_FILE,
    PICKLE_SUFFIXES,
    check_is_causal,
    find_weight_files,
    format_bytes,
    read_model_config,
)

ALLOWED_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""Patterns of the files that are downloaded: never pickles or code."""
TIMEOUT_SECONDS = 5.0
"""Maximum time to wait for an answer of the Hub."""


def fetch_folder(repo_id: str, name: str, on_progress: Callable[[str], None]) -> Path:
    """Return the folder of a model in the local cache, after downloading the missing files.

    Args:
        repo_id: Identifier on the Hub, `owner/name`.
        name: Name of the model for messages.
        on_progress: Receives the state of the download in words.

    Raises:
        InvalidInputError: If the model is neither in the cache nor reachable, or it cannot be used.
    """
    cached = _find_in_cache(repo_id)
    if cached is not None:
        try:
            read_model_config(cached, name)
            find_weight_files(cached, name)
            return cached
        except InvalidInputError as error:
            cached_error = error  # the cache may have only a part of the model
    on_progress(f"asking the Hugging Face Hub for {repo_id}")
    try:
        return _download(repo_id, name, on_progress)
    except InvalidInputError:
        raise
    except ImportError as error:
        raise InvalidInputError(f"{name} needs transformers; pip install 'lotr-tui[hf]'") from error
    except Exception as error:  # libraries for connections raise errors of many types
        if cached is not None:
            raise cached_error from error
        raise InvalidInputError(_describe_failure(error, repo_id, name)) from error


def _find_in_cache(repo_id: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, local_files_only=True, allow_patterns=list(ALLOWED_FILES)))
    except Exception:  # not cached, or a damaged cache
        return None


def _download(repo_id: str, name: str, on_progress: Callable[[str], None]) -> Path:
    """Download the files of a model one after the other, the small ones first, and check them before the weights."""
    from huggingface_hub import HfApi, hf_hub_download

    info = HfApi().model_info(repo_id, files_metadata=True, timeout=TIMEOUT_SECONDS)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or [] if "/" not in file.rfilename}
    if not any(file.endswith(".safetensors") for file in sizes):
        if any(file.endswith(PICKLE_SUFFIXES) for file in sizes):
            raise InvalidInputError(
                f"{name} has its weights only as a pickle, which can run code and is never loaded; "
                "choose a model with safetensors"
            )
        raise InvalidInputError(f"{name} has no weights in safetensors; choose another model")
    wanted = [file for file in sizes if any(fnmatch.fnmatch(file, pattern) for pattern in ALLOWED_FILES)]
    wanted.sort(key=lambda file: (file.endswith(".safetensors"), file != CONFIG_FILE, file))
    total, done, folder = sum(sizes[file] for file in wanted), 0, Path()
    for file in wanted:
        on_progress(f"downloading {format_bytes(done)} of {format_bytes(total)}")
        path = hf_hub_download(repo_id, file, revision=info.sha, etag_timeout=TIMEOUT_SECONDS)
        folder = Path(path).parent
        if file == CONFIG_FILE:
            config = read_model_config(folder, name)
            if config.get("model_type") not in FAMILIES:
                check_is_causal(config, name)
        done += sizes[file]
    return folder


def _describe_failure(error: Exception, repo_id: str, name: str) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return (
            f"{name} is only for users who accepted its terms on huggingface.co; do so and log in with `hf auth login`"
        )
    if "RepositoryNotFoundError" in kinds:
        return f"{name}: there is no model {repo_id} on the Hugging Face Hub, or it is private; check the name"
    return (
        f"{name} is neither in the local cache nor reachable ({type(error).__name__}); "
        "check the name and the network, or give a folder or a GGUF file"
    )
