"""Training jobs: what a training starts from, with checked settings, and the run directory that it writes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from engine import events
from engine.config import BUNDLED, TEACHER_SEPARATOR, Config, DataConfig
from engine.control import CommandQueue
from engine.data import speakers
from engine.data.arrays import Float32Array, Float64Array
from engine.data.corpus import Lines
from engine.data.dataset import Dataset, load_dataset
from engine.data.tokenizers import OPEN_VOCABULARIES, Tokenizer
from engine.errors import ConfigError, RunError
from engine.models import adapters, dialogue, weights
from engine.models.pretrained.names import GGUF_PREFIX, HF_PREFIX, is_pretrained_name, parse_pretrained_name
from engine.runs import directory, loading, locked_run
from engine.runtime.process import get_process_info, require_package
from engine.storage.files import absolute_path, default_runs_dir
from engine.storage.tensor_file import to_float32
from engine.training import TrainingInput
from engine.training.diagnoses import History

if TYPE_CHECKING:  # `train --help` needs no tokenizers by others
    from engine.models.pretrained.base import Base

POWER_L2 = 5.0  # of 2, 5, 10 and 20 the best on validation lines of other splits of the film dialogues
MAX_POWER_LINES = 4000  # that the powers are fitted to, fewer for a large cast; of a longer split, the first ones
INHERITED_SETTINGS = (
    "tokenizer", "vocabulary_size", "architecture", "embedding_size", "hidden_size", "num_layers", "num_heads",
    "num_kv_heads", "head_size", "feed_forward_size", "context_size", "norm_eps", "rope_base", "rope_scaling",
    "rope_factor", "rope_original_context", "qkv_bias", "tie_weights", "punctuation",
    "mogrifier_rounds", "mogrifier_rank",
)  # fmt: skip
"""Settings that must equal the settings of the initial run, because its weights or its tokenizer depend on them."""
LORA_SETTINGS = ("lora_rank", "lora_alpha", "lora_targets")  # the same, where the initial run is an adapter
# Of a script: a vocabulary that spells it, lines in order and together, and a line to answer.
DIALOGUE_DEFAULTS = {
    "tokenizer": "bpe", "split": "scenes", "min_characters": -1, "shuffle_lines": True,
    "sample_prompt": "Where are you going?",
}  # fmt: skip
WITHOUT_WORDS = {"punctuation": False, "subword_embeddings": False}  # of a model whose tokens are not words
# Of a Transformer where the preset is for an LSTM.
TRANSFORMER_DEFAULTS: dict[str, Any] = weights.TRANSFORMER_VALUES | {
    "tie_weights": True, "unigram_bias": False, "embedding_dropout": 0.0, "variational_dropout": False,
}  # fmt: skip
DEFAULT_PATIENCE = 4  # from an initial run, unless the preset has one: a small corpus is soon overfitted
MAX_ADAPTED_CONTEXT = 1024  # of a pre-trained model: scenes are shorter, and twice as much predicts no better
WHOLE_MODEL_LR = 5e-5  # where a preset for adapters trains all weights of a pre-trained model instead
# Axis of the vocabulary in each tensor that has one.
VOCABULARY_AXES = {
    "embedding.weight": 0, "output.weight": 0, "output.bias": 0, "punctuation_softmax.bias": 1,
    "model.embed_tokens.weight": 0,
}  # fmt: skip


def configure(preset: Config, apply_options: Callable[[Config], Config], runs_dir: Path | None = None) -> Config:
    """Return `preset` changed by `apply_options`, with defaults that depend on the tokenizer and the initial run."""
    config = apply_options(preset)
    defaults: dict[str, Any] = {}
    if init := config.training.init:
        initial = _read_initial_config(init, runs_dir)
        defaults |= _inherited_settings(initial)
        defaults["patience"] = preset.training.patience or DEFAULT_PATIENCE
        if is_pretrained_name(init):
            defaults["context_size"] = min(initial.model.context_size, MAX_ADAPTED_CONTEXT)
            defaults["bptt"] = min(preset.training.bptt, defaults["context_size"])
            if preset.model.lora_rank and not config.model.lora_rank:
                defaults["lr"] = WHOLE_MODEL_LR
    if config.data.mode == "dialogue":
        defaults = DIALOGUE_DEFAULTS | defaults
    if defaults.get("tokenizer", config.data.tokenizer) in OPEN_VOCABULARIES:
        defaults = WITHOUT_WORDS | defaults
    is_transformer = defaults.get("architecture", config.model.architecture) == "transformer"
    if is_transformer and preset.model.architecture != "transformer":
        sizes = {
            # Windows that are shorter than the context would leave its later positions untrained.
            "bptt": defaults.get("context_size", config.model.context_size),
            "num_heads": weights.largest_num_heads(config.model.embedding_size, config.model.num_heads),
        }
        defaults = TRANSFORMER_DEFAULTS | sizes | defaults
    return apply_options(preset.with_values(**defaults))


def default_preset(init: str, mode: str | None, runs_dir: Path | None = None) -> str:
    """Return the name of the preset for a training from the run or pre-trained model `init`; "" for random weights."""
    if not init:
        return "default"
    if is_pretrained_name(init) or directory.needs_base(_read_initial_config(init, runs_dir)):
        return "lora"
    return "dialogue" if mode == "dialogue" else "finetune"


def load_training_input(config: Config, runs_dir: Path | None = None) -> TrainingInput:
    """Load the dataset of `config`, and what the training starts from; an unusable model raises an InvalidInputError.

    An open vocabulary comes from the initial model, or from the first teacher. The weights are mapped to a closed one.
    """
    init, mode, tokenizer = config.training.init, config.data.mode, None
    if is_pretrained_name(init):
        base = _read_base(init)
        _check_settings(config, _base_config(base), init)
        if config.model.lora_rank:
            adapters.lora_targets(config.model)
        base.check_weights()
        base = base.for_scripts() if mode == "dialogue" else base
        return TrainingInput(load_dataset(config.data, base.tokenizer), None, base)
    initial = _read_initial_config(init, runs_dir) if init else None
    if config.model.lora_rank and not (initial and initial.model.lora_rank):
        raise ConfigError(
            f"lora_rank={config.model.lora_rank} changes a pre-trained model, and {init or 'no --init'} is none; "
            "add --init smollm2, or use --set lora_rank=0"
        )
    if initial is None:
        if (teachers := config.training.teachers) and config.data.tokenizer in OPEN_VOCABULARIES:
            run_dir, _ = loading.find_model(teachers.split(TEACHER_SEPARATOR)[0], runs_dir)
            _, teacher_tokenizer = loading.read_config_and_tokenizer(run_dir)
            tokenizer = teacher_tokenizer if teacher_tokenizer.name == config.data.tokenizer else None
        if config.data.tokenizer == "pretrained" and tokenizer is None:
            raise ConfigError("tokenizer=pretrained is that of a pre-trained model; add --init smollm2, or use another")
        return TrainingInput(load_dataset(config.data, tokenizer))
    _check_settings(config, initial, init)
    run_dir, epoch = loading.find_model(init, runs_dir)
    if directory.needs_base(initial):
        base = loading.read_run_base(run_dir, mode)
        dataset = load_dataset(config.data, base.tokenizer)
        if initial.model.lora_rank:
            tensors = loading.read_adapter(run_dir, initial.model, epoch)
            return TrainingInput(dataset, {name: to_float32(tensor) for name, tensor in tensors.items()}, base)
        return TrainingInput(dataset, loading.load_model(run_dir, epoch).decoder.weights, base)
    decoder = loading.load_model(run_dir, epoch).decoder
    dataset = load_dataset(config.data, decoder.tokenizer if decoder.tokenizer.is_open else None)
    return TrainingInput(dataset, map_to_vocabulary(decoder.weights, decoder.tokenizer, dataset.tokenizer))


def map_to_vocabulary(weights: Mapping[str, Float32Array], old: Tokenizer, new: Tokenizer) -> dict[str, Float32Array]:
    """Return `weights` for another vocabulary: a new token gets the mean over all (Howard and Ruder 2018, 3.2)."""
    if old.tokens == new.tokens:
        return dict(weights)
    id_of_token = {token: id for id, token in enumerate(old.tokens)}
    old_ids = np.array([id_of_token.get(token, -1) for token in new.tokens])
    mapped = dict(weights)
    for name, axis in VOCABULARY_AXES.items():
        if name in weights:
            mean = weights[name].mean(axis, keepdims=True)
            is_known = np.expand_dims(old_ids >= 0, [i for i in range(mean.ndim) if i != axis])
            mapped[name] = np.where(is_known, weights[name].take(old_ids, axis), mean)
    return mapped


def canonical_config(config: Config, runs_dir: Path | None = None) -> Config:
    """Return `config` with names that mean the same later and from any directory: absolute paths and no "latest"."""
    data, training = config.data, config.training
    paths = {"corpus": data.corpus, "valid_corpus": data.valid_corpus, "test_corpus": data.test_corpus}
    teachers: list[str] = []
    for name in filter(None, map(str.strip, training.teachers.split(TEACHER_SEPARATOR))):
        teacher = canonical_name(name, runs_dir, keep_name=False)
        if TEACHER_SEPARATOR in teacher:
            raise ConfigError(f"--teacher {name} has a comma in its path; rename the run or its folder")
        if teacher in teachers:
            raise ConfigError(f"--teacher {name} is given twice; give each teacher once")
        teachers.append(teacher)
    return config.with_values(
        **{name: str(absolute_path(Path(path))) for name, path in paths.items() if path not in ("", BUNDLED)},
        init=canonical_name(training.init, runs_dir) if training.init else "",
        teachers=TEACHER_SEPARATOR.join(teachers),
    )


def canonical_name(model: str, runs_dir: Path | None = None, *, keep_name: bool = True) -> str:
    """Return the name of a model in a configuration: an absolute path, or a run's name if `keep_name` allows it."""
    if model in directory.BUNDLED_FOLDERS:
        return model
    if is_pretrained_name(model):
        source = parse_pretrained_name(model)
        prefix = {"gguf": GGUF_PREFIX, "folder": HF_PREFIX}.get(source.kind)
        return f"{prefix}{absolute_path(source.path)}" if prefix else model
    run_dir, epoch = loading.find_model(model, runs_dir)
    is_name = keep_name and run_dir.parent == (runs_dir or default_runs_dir())
    name = run_dir.name if is_name else str(absolute_path(run_dir))
    return name if epoch is None else f"{name}@{epoch}"


def _read_initial_config(init: str, runs_dir: Path | None) -> Config:
    if is_pretrained_name(init):
        return _base_config(_read_base(init))
    return directory.read_config(loading.find_model(init, runs_dir)[0])


def _read_base(name: str) -> "Base":
    from engine.models.pretrained.folders import read_base

    return read_base(name)


def _base_config(base: "Base") -> Config:
    return Config(data=DataConfig(tokenizer="pretrained", mode="stream"), model=base.config)


def _inherited_settings(initial: Config) -> dict[str, Any]:
    names, settings = (*INHERITED_SETTINGS, *(LORA_SETTINGS if initial.model.lora_rank else ())), initial.settings()
    return {name: settings[name] for name in names}


def _check_settings(config: Config, initial: Config, init: str) -> None:
    """Raise a ConfigError that lists the settings in which `config` differs from the initial run."""
    actual = config.settings()
    expected = {name: value for name, value in _inherited_settings(initial).items() if value != actual[name]}
    if directory.needs_base(initial) and config.model.context_size <= initial.model.context_size:  # it has read more
        expected.pop("context_size", None)
    if expected:
        have = ", ".join(f"{name}={str(actual[name]).lower()}" for name in expected)
        needed = "".join(f" --set {name}={str(value).lower()}" for name, value in expected.items())
        source = init if is_pretrained_name(init) else f"run {init!r}"
        raise ConfigError(
            f"a model with {have} cannot start from the weights of {source}; "
            f"use{needed.replace('--set tokenizer=', '--tokenizer ')}, or omit these settings"
        )


@dataclass
class TrainingJob:
    """A training that is ready to start: checked input, and a run directory that this process has locked."""

    config: Config
    dataset: Dataset
    run: locked_run.LockedRun
    command_queue: CommandQueue
    is_resume: bool = False

    def events(
        self, cancelled: Callable[[], bool], take_problems: Callable[[], Sequence[str]] = lambda: ()
    ) -> Iterator[events.TrainingEvent]:
        """Train until `cancelled` returns True; yield every event, and what `take_problems` returns, as recorded."""
        self.command_queue.cancelled = cancelled

        def train() -> Iterator[events.TrainingEvent]:
            yield events.Preparing("loading PyTorch")
            from engine.training.trainer import train_run

            history = History(self.config, self.run.path)
            for event in train_run(self.config, self.dataset, self.run.path, self.command_queue, self.is_resume):
                yield from map(events.Warned, take_problems())
                yield event
                yield from history.observe(event)

        return locked_run.record_events(self.run, train())


def prepare_job(config: Config, run_name: str | None = None, runs_dir: Path | None = None) -> TrainingJob:
    """Read the data, check that it fits the configuration, and create the run directory.

    Unusable input, or a missing PyTorch, raises an InvalidInputError; nothing is written then.
    """
    require_package("torch")
    training, context, processes = config.training, config.model.context_size, get_process_info().world_size
    is_transformer = config.model.architecture == "transformer"
    if is_transformer:
        weights.check_transformer_config(config.model)
    batch_size, bptt, columns = training.batch_size, training.bptt, training.teacher_columns
    smaller = batch_size - batch_size % processes
    divisible = f"{smaller} or {smaller + processes}" if smaller else f"{processes}"
    unreadable = "makes windows that a transformer"
    checks = [
        (is_transformer and training.variable_bptt,
         f"variable_bptt=true {unreadable} cannot read; use --set variable_bptt=false"),
        (is_transformer and bptt > context,
         f"bptt={bptt} {unreadable} with context_size={context} cannot read; use --set bptt={context}"),
        (is_transformer and bptt < context and not training.init,  # later positions would stay untrained
         f"bptt={bptt} trains only the first positions of a transformer with context_size={context}; "
         f"use --set context_size={bptt} or --set bptt={context}"),
        (columns and not training.teachers,
         "teacher_columns needs teachers that write the text; add --teacher RUN"),
        (columns and processes > 1,
         "teacher_columns needs a single process; use --set teacher_columns=0, or omit torchrun"),
        (batch_size % processes,
         f"batch_size={batch_size} is not a multiple of {processes} processes; use --set batch_size={divisible}"),
    ]  # fmt: skip
    if problem := next((text for is_wrong, text in checks if is_wrong), ""):
        raise ConfigError(problem)
    config = canonical_config(config, runs_dir)
    dataset, initial_weights, base = source = load_training_input(config, runs_dir)
    if config.training.teachers:
        from engine.training.teachers import load_teachers  # loads PyTorch

        init, teachers = config.training.init, config.training.teachers.split(TEACHER_SEPARATOR)
        if init and canonical_name(init, runs_dir, keep_name=False) in teachers:
            raise ConfigError(
                f"run {init} is a teacher and the initial model, so the student starts with all that it could learn; "
                "use another --teacher, or omit --init"
            )
        load_teachers(config, dataset)
    if (num_tokens := len(dataset.train)) < 2 * config.training.batch_size:
        raise ConfigError(
            f"batch_size={config.training.batch_size} is too large: {num_tokens:,} training tokens "
            f"fill at most {num_tokens // 2:,} columns; use --set batch_size=N or more text"
        )
    if config.model.lora_rank or config.training.device not in ("auto", "cpu"):
        # Loads PyTorch early: a missing device or too little memory is reported now.
        from engine.training.state import plan_memory, prepare_device

        plan_memory(config, source, prepare_device(config.training))
    files = {} if base is None else loading.base_files(base, config.model)
    if dataset.cast:
        files |= fit_dialogue_parts(dataset.splits.train, dataset.splits.valid, dataset.cast)
    run = locked_run.create_run(config, dataset.tokenizer, run_name, runs_dir, initial_weights, files)
    return TrainingJob(config, dataset, run, CommandQueue(run.commands.read))


def resume_job(
    run: str,
    runs_dir: Path | None = None,
    apply_options: Callable[[Config], Config] = lambda config: config,
    *,
    restart: bool = False,
) -> TrainingJob:
    """Prepare to resume a run, or to `restart` it; one that cannot be resumed exactly raises an InvalidInputError.

    `apply_options` applies command-line options, to check that they do not change the run's configuration.
    """
    require_package("torch")
    run_dir = directory.resolve_run(run, runs_dir)
    config, tokenizer = loading.read_config_and_tokenizer(run_dir)
    if change := config.difference(apply_options(config)):
        name, before, now = change
        raise RunError(
            f"run {run_dir.name!r} was started with {name}={before} and cannot be resumed with {name}={now}; "
            "omit that option, or train a new run"
        )
    dataset = load_dataset(config.data, tokenizer)
    recorded = directory.drop_superseded(directory.read_events(run_dir / directory.METRICS_FILE, subsample=True))
    started = next((event for event in recorded if isinstance(event, events.Started)), None)
    sha256 = started.corpus_sha256 if started else dataset.corpus.sha256
    if sha256 != dataset.corpus.sha256:
        raise RunError(
            f"{config.data.corpus} has changed since run {run_dir.name!r} was started: its SHA-256 was "
            f"{sha256[:12]}… and is now {dataset.corpus.sha256[:12]}…; restore the file, or train a new run"
        )
    if tokenizer.tokens != dataset.tokenizer.tokens:  # a closed vocabulary is built from the corpus again
        raise RunError(
            f"the vocabulary of {config.data.corpus} has changed since the run was started; restore the corpus, or "
            "train a new run"
        )
    actual = get_process_info().world_size
    expected = started.world_size if started else actual
    if expected != actual:  # sums would be rounded differently
        launcher = "lotr-tui" if expected == 1 else f"torchrun --nproc-per-node {expected} -m lotr_tui"
        raise RunError(
            f"run {run_dir.name!r} was trained by {expected} process{'es' if expected > 1 else ''} and cannot be "
            f"resumed by {actual}; use {launcher} train --resume {run_dir.name}"
        )
    locked = locked_run.reopen_run(run_dir)
    try:
        locked_run.prepare_resume(locked, restart=restart)
    except BaseException:
        locked.lock.close()
        raise
    return TrainingJob(config, dataset, locked, CommandQueue(locked.commands.read), is_resume=True)


def fit_dialogue_parts(train: Lines, valid: Lines, cast: Sequence[str]) -> dict[str, bytes]:
    """Fit the models of the speakers to training lines, and their powers to validation lines; return their files."""
    scenes = spoken_scenes(train, cast)
    turn_model, text_model = dialogue.TurnModel.fit(cast, scenes), dialogue.SpeakerTextModel.fit(len(cast), scenes)
    evidence: list[tuple[Float64Array, Float64Array, Float64Array]] = []
    indices: list[int] = []
    max_lines = min(MAX_POWER_LINES, 1 + dialogue.MAX_DESIGN_ELEMENTS // (3 * len(cast)))
    for scene in spoken_scenes(valid, cast):
        state = dialogue.TurnState()
        for line in scene[: max_lines - len(indices)]:
            evidence.append((turn_model.log_frequencies, turn_model.log_probs(state), text_model.scores(line.text)))
            indices.append(line.speaker)
            state = state.after(line, turn_model.cast)
    if indices:  # the powers make the speakers of lines without and with a scene likeliest
        features, chosen = np.array(evidence).transpose(0, 2, 1), np.array(indices)  # [lines, cast, evidence]
        fits = [dialogue.fit_conditional_logit(features[:, :, [prior, 2]], chosen, POWER_L2) for prior in (0, 1)]
        without, after = (dialogue.EvidencePowers(*np.clip(fit, 0, dialogue.MAX_POWER).tolist()) for fit in fits)
        text_model = replace(text_model, powers=(without, after))
    files = {
        directory.DIALOGUE_FILE: msgspec.json.encode(turn_model),
        directory.WHO_FILE: msgspec.json.encode(text_model),
    }
    return {speakers.CAST_FILE: speakers.cast_to_json(cast).encode(), **files}


def spoken_scenes(lines: Lines, cast: Sequence[str]) -> list[list[dialogue.SpokenLine]]:
    """Return the scenes of lines in file order, with the speakers as indices in the cast."""
    indices = {name: dialogue.cast_index(name, cast) for name in (speakers.SOMEONE, *lines.speaker_names)}
    return [[dialogue.SpokenLine(indices[turn.speaker], turn.text) for turn in scene] for scene in lines.scenes()]
