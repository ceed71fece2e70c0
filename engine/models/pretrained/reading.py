"""Reading of pre-trained models by name, without PyTorch. What a kind of files needs is imported when one is read."""

from engine.models.pretrained.base import Base, ProgressCallback
from engine.models.pretrained.names import SMOLLM2, parse_pretrained_name
from engine.runtime.process import silence_descriptors


def read_base(name: str, on_progress: ProgressCallback | None = None) -> Base:
    """Return the pre-trained model `smollm2`, `gguf:FILE`, `hf:FOLDER` or `hf:owner/name`.

    Its weights are read when they are needed, see `Base.decoder`. `on_progress` is told about a download from the Hub.

    Raises:
        UnsupportedModelError: If only transformers can load the model.
        InvalidInputError: If the model is missing or damaged: one line that names it and the remedy.
    """
    if name == SMOLLM2:
        from engine.models.pretrained.store import read_stored_base

        return read_stored_base(name)
    source = parse_pretrained_name(name)
    silence_descriptors()
    if source.kind == "gguf":
        from engine.models.pretrained.gguf_file import read_gguf_base

        return read_gguf_base(source.path, name)
    from engine.models.pretrained.base_folder import fetch_folder, read_folder_base

    folder = source.path
    if source.kind == "hub":
        folder = fetch_folder(source.target, name, on_progress or (lambda progress: None))
    return read_folder_base(folder, name)
