"""One run of a comparison: its settings, its figures, and the text that its perplexities are measured on."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from engine.config import Config
from engine.data.speakers import CAST_FILE
from engine.data.tokenizers.base import is_open_vocabulary
from engine.data.tokenizers.loading import tokenizer_file_name
from engine.errors import InvalidInputError
from engine.events import Evaluated, Finished, Started, Step
from engine.runs.directory import MAX_CONFIG_BYTES, MAX_VOCABULARY_BYTES, METRICS_FILE, read_config
from engine.runs.metrics import drop_superseded, read_events
from engine.runs.summary import RunState, directory_size, run_state, saved_perplexity
from engine.storage.files import read_limited


@dataclass(frozen=True)
class ScoredText:
    """Identity of the text that the validation and test perplexities of a run are measured on.

    Each part is compared with the same part of another run; None is unknown, and equals nothing.
    """

    corpus: str | None = None
    split: str | None = None
    mode: str | None = None
    vocabulary: str | None = None
    form: str | None = None
    """Form in which the characters are counted: lower-case words, or the text as written; a script has speakers."""


@dataclass(frozen=True)
class ComparedRun:
    """Settings and figures of a run. A run may lack a configuration, a model, or both."""

    name: str
    path: Path
    state: RunState
    device: str
    """Device of the training, such as "cpu"; "" if it is unknown."""
    settings: Mapping[str, object] | None
    """Value of every setting; None if the configuration is missing or damaged."""
    text: ScoredText
    figures: Mapping[str, float]
    """Figures by the name of their metric, such as "valid_perplexity"; unknown ones are absent."""


def read_compared_run(path: Path, name: str = "") -> ComparedRun:
    """Read a run directory, from which any file may be missing; `name` replaces the name of the folder.

    A setting that an older configuration lacks has its default, with which the run is also loaded. The validation
    perplexity is the one of the saved model; without a saved model, it is the lowest one.
    """
    config = None
    with suppress(InvalidInputError):
        config = read_config(path)
    all_events = list(read_events(path / METRICS_FILE, subsample=True))
    events = drop_superseded(all_events)
    started = next((event for event in reversed(events) if isinstance(event, Started)), None)
    steps = [event for event in events if isinstance(event, Step)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    finished = next((event for event in reversed(events) if isinstance(event, Finished)), None)

    valid_perplexity = saved_perplexity(all_events)
    if valid_perplexity is None:
        valid_perplexity = min(
            (event.valid_perplexity for event in evaluations if event.valid_perplexity > 0), default=None
        )
    progress: list[Step | Evaluated] = [*steps[-1:], *evaluations[-1:]]
    figures = {
        "valid_perplexity": valid_perplexity,
        "test_perplexity": finished.test_perplexity if finished else None,
        "valid_bits_per_character": started.bits_per_character(valid_perplexity)
        if started and valid_perplexity
        else None,
        "epochs": finished.epochs if finished else max((event.epoch for event in progress), default=None),
        "seconds": finished.seconds if finished else max((event.seconds for event in progress), default=None),
        "tokens_per_second": _median_speed(steps),
        "parameters": started.parameters if started else None,
        "size_bytes": directory_size(path),
    }
    return ComparedRun(
        name=name or path.name,
        path=path,
        state=run_state(path, events),
        device=started.device if started else "",
        settings=None if config is None else config.settings(),
        text=ScoredText() if config is None else _scored_text(path, config, started),
        figures={key: value for key, value in figures.items() if value is not None and math.isfinite(value)},
    )


def _median_speed(steps: Sequence[Step]) -> float | None:
    """Return the median of the tokens per second, which a pause or a busy minute hardly changes."""
    speeds = [event.tokens_per_second for event in steps if math.isfinite(event.tokens_per_second)]
    return median(speeds) if speeds else None


def _scored_text(path: Path, config: Config, started: Started | None) -> ScoredText:
    data = config.data
    columns = [data.corpus_format, *([data.text_column] if data.corpus_format == "csv" else [])]
    held_out = (
        [data.valid_corpus, data.test_corpus] if data.valid_corpus else [data.split, data.split_seed, data.held_out]
    )
    is_dialogue = data.mode == "dialogue"
    scenes = [data.speaker_column, data.scene_column, data.scene_lines, data.min_speaker_lines] if is_dialogue else []
    form = "original" if is_open_vocabulary(data.tokenizer) else data.tokenizer
    return ScoredText(
        corpus=_join([(started.corpus_sha256 if started else "") or data.corpus, *columns]),
        split=_join([*held_out, data.min_characters, config.training.max_eval_tokens]),
        mode=_join([data.mode, *scenes]),
        vocabulary=_vocabulary_digest(path, config),
        form=_join([form, *scenes, started.valid_characters]) if started else None,
    )


def _join(parts: Sequence[object]) -> str:
    return "\n".join(map(str, parts))


def _vocabulary_digest(path: Path, config: Config) -> str | None:
    """Return a checksum of the tokenizer of a run, with its cast; None if a file is missing."""
    files = [(tokenizer_file_name(config.data.tokenizer), MAX_VOCABULARY_BYTES)]
    if config.data.mode == "dialogue":
        files.append((CAST_FILE, MAX_CONFIG_BYTES))
    digest = hashlib.sha256(config.data.tokenizer.encode())
    try:
        for name, max_bytes in files:
            digest.update(read_limited(path / name, max_bytes))
    except OSError:
        return None
    return digest.hexdigest()
