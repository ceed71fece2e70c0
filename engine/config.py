"""Settings of the data, the model and the training: frozen dataclasses, validated and stored as JSON."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, Self, get_args, get_origin

import msgspec

from engine.errors import ConfigError, InvalidInputError, suggest_nearest
from engine.storage.files import decode

BUNDLED = "bundled"  # value of `DataConfig.corpus` that stands for the dialogues shipped with lotr-tui
FOUNTAIN_SUFFIX = ".fountain"  # of screenplays, which are read as text
LSTM, BASE = "lstm", "base"  # the small LSTM and the pre-trained one shipped with lotr-tui, in place of a run's name
TEACHER_SEPARATOR = ","  # between the names of runs in the setting `teachers`
TokenizerName = Literal["words", "whitespace", "characters", "bpe", "pretrained"]
DataMode = Literal["line", "stream", "dialogue"]
MAX_SHOWN_VALUE = 200  # maximum characters of an invalid value in an error


def setting(default: Any, description: str, minimum: float | None = None, maximum: float | None = None) -> Any:
    """Return a dataclass field with a default, a description for users and an inclusive range."""
    return field(default=default, metadata={"meta": msgspec.Meta(description=description, ge=minimum, le=maximum)})


class _Section:
    """Base of the configuration dataclasses, which checks all settings on construction."""

    def __post_init__(self) -> None:
        values = vars(self)
        try:
            msgspec.convert(values, _SCHEMAS[type(self)])
        except (msgspec.ValidationError, UnicodeEncodeError):
            for name, value in values.items():
                read_setting(name, value)


@dataclass(frozen=True)
class DataConfig(_Section):
    """Settings that say which text to use and how to turn it into tokens."""

    corpus: str = setting(BUNDLED, "path of the training text; 'bundled' is the dialogues shipped with lotr-tui")
    corpus_format: Literal["csv", "text"] = setting("csv", "csv: one utterance per row; text: one utterance per line")
    text_column: str = setting("dialog", "column with the utterances; dialog: or dialogue, text, line …")
    speaker_column: str = setting("char", "column with the speakers; char: or character, speaker …")
    valid_corpus: str = setting("", "path of a validation text; needs test_corpus, and corpus is then not split")
    test_corpus: str = setting("", "path of a test text; needs valid_corpus")
    tokenizer: TokenizerName = setting(
        "words",
        "words: lower-case words of letters, digits and apostrophes; whitespace: split at white space; characters: one "
        "token each; bpe: byte pairs of the training split; pretrained: that of the pre-trained model of --init",
    )
    vocabulary_size: int = setting(2048, "tokens of a bpe vocabulary; other tokenizers use min_count", 300, 100_000)
    scene_column: str = setting("movie", "CSV column whose changes end a scene; may be missing")
    scene_lines: int = setting(20, "lines after which a scene ends", 1, 1_000_000)
    min_speaker_lines: int = setting(10, "minimum training lines of a speaker in the cast of a dialogue", 1, 1_000_000)
    mode: DataMode = setting("line", "line: <eos> ends lines; stream: only splits; dialogue: lines are 'Name: text'")
    split: Literal["lines", "scenes"] = setting("lines", "lines: shuffled; scenes: blocks of 20 lines, in file order")
    split_seed: int = setting(1234, "seed of the shuffle before the split", 0, 2**63 - 1)
    held_out: float = setting(0.1, "fraction of the text for validation, and for test", 0.0001, 0.4)
    min_characters: int = setting(20, "lines of this length or shorter are left out; -1 keeps empty lines", -1, 10_000)
    min_count: int = setting(3, "words with fewer training occurrences become <unk>, characters bytes", 1, 1_000_000)


@dataclass(frozen=True)
class ModelConfig(_Section):
    """Architecture and regularization; section numbers are of AWD-LSTM (Merity et al. 2017, arXiv 1708.02182)."""

    architecture: Literal["lstm", "transformer"] = setting("lstm", "transformer: self-attention in the layout of Llama")
    embedding_size: int = setting(300, "size of token embeddings; of a transformer, the width of all layers", 1, 16_384)
    hidden_size: int = setting(300, "units per LSTM layer; with tied weights, the last has embedding_size", 1, 16_384)
    num_layers: int = setting(1, "number of layers", 1, 64)
    num_heads: int = setting(6, "attention heads per transformer layer; each has an even number of units", 1, 256)
    feed_forward_size: int = setting(0, "inner units of a transformer; 0: 8/3 of embedding_size, in 32s", 0, 65_536)
    context_size: int = setting(64, "tokens that a transformer reads before it forgets the older half", 2, 65_536)
    num_kv_heads: int = setting(0, "key and value heads, each for several query heads; 0: one per query head", 0, 256)
    head_size: int = setting(0, "units of a transformer's head; 0: embedding_size / num_heads", 0, 1024)
    norm_eps: float = setting(1e-5, "number added to the mean square in a transformer's norms", 1e-12, 1e-2)
    rope_base: float = setting(10_000.0, "base of the frequencies of rotary positions", 1, 1e9)
    rope_scaling: Literal["none", "linear", "llama3"] = setting("none", "linear: all positions; llama3: some")
    rope_factor: float = setting(1.0, "factor by which scaled rotary positions extend the context", 1, 1024)
    rope_original_context: int = setting(8192, "llama3: context before rotary positions were scaled", 2, 10_000_000)
    qkv_bias: bool = setting(False, "add biases to a transformer's queries, keys and values, as Qwen2 does")
    lora_rank: int = setting(0, "rank of the trained changes of a pre-trained model (LoRA); 0: all weights", 0, 512)
    lora_alpha: float = setting(32.0, "the low-rank changes are multiplied by lora_alpha / lora_rank", 0, 4096)
    lora_dropout: float = setting(0.1, "dropout on the inputs of the low-rank changes", 0, 0.99)
    lora_targets: str = setting(
        "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj", "matrices with low-rank changes, separated by commas"
    )
    tie_weights: bool = setting(True, "share one matrix between the embedding and the output layer (4.5)")
    variational_dropout: bool = setting(True, "use one dropout mask for all time steps (4.2)")
    embedding_dropout: float = setting(0.2, "fraction of the vocabulary whose embedding is zeroed (4.3)", 0, 0.99)
    input_dropout: float = setting(0.6, "dropout on the embeddings", 0, 0.99)
    hidden_dropout: float = setting(0.3, "dropout between LSTM layers, or on what transformer layers add", 0, 0.99)
    output_dropout: float = setting(0.6, "dropout on the output of the last layer", 0, 0.99)
    weight_drop: float = setting(0.5, "LSTM: DropConnect on the hidden-to-hidden weights (section 2)", 0, 0.99)
    mogrifier_rounds: int = setting(0, "LSTM: rounds of mutual gating of input and state (Melis et al. 2019)", 0, 16)
    mogrifier_rank: int = setting(32, "LSTM: inner size of the mogrifier's matrices", 1, 4096)
    initialization: Literal["uniform", "notebook"] = setting("uniform", "notebook: Xavier, orthogonal, zero biases")
    subword_embeddings: bool = setting(True, "add embeddings of letter groups, shared by words with the same letters")
    punctuation: bool = setting(False, "learn from the punctuation between words; predictions marginalize over it")
    unigram_bias: bool = setting(True, "start the output bias at the log frequencies of the training tokens")

    def layer_sizes(self) -> list[tuple[int, int]]:
        """Return the input size and the hidden size of each LSTM layer, first layer first."""
        last = self.embedding_size if self.tie_weights else self.hidden_size
        hidden = [self.hidden_size] * (self.num_layers - 1) + [last]
        return list(zip([self.embedding_size, *hidden[:-1]], hidden, strict=True))


@dataclass(frozen=True)
class TrainingConfig(_Section):
    """Settings of the optimization, the evaluations and the hardware."""

    init: str = setting("", "run, base, smollm2, gguf:FILE or hf:FOLDER to start from; empty: random weights")
    teachers: str = setting("", "paths of runs whose averaged predictions are learned, separated by commas; --teacher")
    teacher_weight: float = setting(0.5, "fraction of the loss that teachers give (Hinton et al. 2015)", 0, 1)
    teacher_columns: int = setting(0, "columns of a window with text by teachers, beside batch_size others", 0, 65_536)
    epochs: int = setting(80, "passes over the training split", 1, 100_000)
    fine_tune_epochs: int = setting(0, "most epochs of averaged SGD from the best weights (section 5)", 0, 100_000)
    fine_tune_lr: float = setting(30.0, "learning rate of fine-tuning", 1e-9, 1000)
    batch_size: int = setting(20, "parallel columns that the text is cut into", 1, 65_536)
    bptt: int = setting(25, "time steps of truncated back-propagation", 1, 10_000)
    variable_bptt: bool = setting(False, "draw the length of each window at random and rescale the learning rate (4.1)")
    shuffle_lines: bool = setting(True, "read lines, in a dialogue scenes, in a new random order every epoch")
    optimizer: Literal["adamw", "adam", "sgd"] = setting("adamw", "optimizer of the main training")
    lr: float = setting(0.01, "peak learning rate", 1e-9, 1000)
    schedule: Literal["one_cycle", "slanted_triangular", "plateau", "constant"] = setting(
        "one_cycle", "after a warm-up, cosine decay to 0; slanted_triangular: linear to 1/32; plateau: halve when stuck"
    )
    warmup_fraction: float = setting(0.25, "fraction of one_cycle and slanted_triangular that warms up", 0, 1)
    layer_lr_decay: float = setting(1.0, "divides the learning rate, once more for each lower layer", 1, 100)
    unfreeze_epochs: int = setting(0, "epochs after which the next lower layer learns too; 0: all at once", 0, 100_000)
    beta2: float = setting(0.99, "decay rate of Adam's second moment", 0, 0.999999)
    weight_decay: float = setting(0.1, "weight decay; adamw and adam leave out the biases", 0, 100)
    clip: float = setting(1.0, "maximum gradient norm; 0: no clipping", 0, 1e6)
    ar: float = setting(0.0, "activation regularization: L2 penalty on the outputs (4.6)", 0, 1000)
    tar: float = setting(0.0, "temporal activation regularization: L2 penalty on hidden-state changes (4.6)", 0, 1000)
    softmax_samples: int = setting(0, "sampled softmax: tokens scored besides the window's; 0: all", 0, 1_000_000)
    name_weight: float = setting(1.0, "factor of the loss of names in a dialogue, which no evaluation scores", 0, 1)
    label_smoothing: float = setting(0.0, "fraction of each target spread over all tokens by frequency", 0, 0.9)
    averaging: Literal["ema", "nt_asgd", "none"] = setting(
        "ema", "evaluate averaged weights; ema: moving average; nt_asgd: since validation stopped improving (section 3)"
    )
    ema_decay: float = setting(0.98, "decay rate of the moving average", 0, 0.9999)
    nonmonotone_interval: int = setting(5, "nt_asgd starts if validation is worse than so many earlier", 1, 100_000)
    eval_every_epochs: int = setting(1, "epochs between evaluations", 1, 100_000)
    eval_every_steps: int = setting(0, "optimizer steps between evaluations; 0: use eval_every_epochs", 0, 10_000_000)
    max_eval_tokens: int = setting(0, "first tokens of the validation split to score in training; 0: all", 0, 2**31)
    validation_metric: Literal["perplexity", "notebook"] = setting("perplexity", "notebook: a faulty formula")
    score_test: bool = setting(True, "score the test split once, at the end; false: never read it")
    checkpoint_seconds: float = setting(30.0, "seconds between checkpoints; 0: only on request, and at the end", 0, 1e6)
    patience: int = setting(0, "stop after this many evaluations without a new best; 0: never", 0, 100_000)
    seed: int = setting(0, "seed of initialization, dropout and line order", 0, 2**63 - 1)
    keep_epoch_checkpoints: bool = setting(True, "also keep the models of epochs 1 and 4, in 8 bits, as RUN@EPOCH")
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "device to train on")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "auto: bf16 where it is faster, otherwise fp32")
    gradient_checkpointing: Literal["auto", "true", "false"] = setting(
        "auto", "adapters: compute layers twice instead of keeping their outputs; auto: where these do not fit"
    )
    threads: int = setting(0, "CPU threads; 0: all cores", 0, 1024)
    sample_prompt: str = setting("Bilbo Baggins is", "prompt that is continued at every evaluation")
    sample_seed: int = setting(0, "seed of the sample at every evaluation", 0, 2**63 - 1)
    sample_temperature: float = setting(0.7, "temperature of the sample at every evaluation", 0, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        for other in ("label_smoothing", "teachers"):
            if self.softmax_samples and getattr(self, other):
                raise ConfigError(f"softmax_samples and {other} cannot be combined; use --set softmax_samples=0")
        if self.sample_prompt.encode(errors="replace").decode() != self.sample_prompt:
            raise ConfigError(f"sample_prompt={self.sample_prompt} is not UTF-8 text; type another prompt")


class Setting(NamedTuple):
    section: str  # attribute of `Config`
    type: Any  # a `Literal`, bool, int, float or str
    meta: msgspec.Meta  # description and range


class _Settings(dict[str, Setting]):
    def __missing__(self, name: str) -> Setting:
        raise ConfigError(f"unknown setting {name!r}{suggest_nearest(name, self)} See `lotr-tui train --list-settings`")


SETTINGS = _Settings()  # by name; an unknown one raises a ConfigError
_SCHEMAS: dict[type, Any] = {}  # by section, which msgspec checks in one call
for _section, _kind in (("data", DataConfig), ("model", ModelConfig), ("training", TrainingConfig)):
    _own = {item.name: Setting(_section, item.type, item.metadata["meta"]) for item in fields(_kind)}
    SETTINGS |= _own
    _SCHEMAS[_kind] = msgspec.defstruct(_section, [(name, Annotated[each[1:]]) for name, each in _own.items()])


def split_assignment(assignment: str) -> tuple[str, str]:
    """Return the name and the text of "key=value"; another form raises a ConfigError."""
    name, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set {assignment!r} is not of the form key=value")
    return name.strip(), text.strip()


def read_setting(name: str, value: Any, *, is_text: bool = False) -> Any:
    """Return the value of a setting, with `is_text` from text; an invalid name or value raises a ConfigError."""
    _, kind, meta = SETTINGS[name]
    if is_text and kind is bool:
        value = {"yes": "true", "no": "false"}.get(value.lower(), value)
    try:
        return msgspec.convert(value, Annotated[kind, meta], strict=not is_text)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter for an argument that is not UTF-8
        shown = str(value)[:MAX_SHOWN_VALUE]
        if get_origin(kind) is Literal:
            nearest = suggest_nearest(shown, get_args(kind))
            raise ConfigError(f"{name}={shown} is not one of {', '.join(get_args(kind))}{nearest}") from error
        expected = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
        allowed = "" if meta.ge is None else f" from {meta.ge} to {meta.le}"
        raise ConfigError(f"{name}={shown} is not {expected}{allowed}") from error


@dataclass(frozen=True)
class Config:
    """Complete configuration of a training: enough to repeat it."""

    preset: str = ""  # the preset that the configuration comes from; empty for the defaults of all settings
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig(punctuation=True)
    training: TrainingConfig = TrainingConfig()

    def settings(self) -> dict[str, str | int | float | bool]:
        """Return the preset and the value of every setting, by name, in the order of the sections."""
        return {"preset": self.preset, **asdict(self.data), **asdict(self.model), **asdict(self.training)}

    def difference(self, other: "Config") -> tuple[str, Any, Any] | None:
        """Return the first setting that differs, and both values; None if at most the presets differ."""
        values = other.settings() | {"preset": self.preset}
        changes = ((name, mine, values[name]) for name, mine in self.settings().items() if mine != values[name])
        return next(changes, None)

    def with_values(self, *assignments: str, **values: Any) -> Self:
        """Return a copy with other settings, also as texts "key=value"; an invalid one raises a ConfigError."""
        for name, text in map(split_assignment, assignments):
            values[name] = read_setting(name, text, is_text=True)
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            changes.setdefault(SETTINGS[name].section, {})[name] = value
        # All changes of a section at once, since the validity of one value can depend on another.
        return replace(self, **{section: replace(getattr(self, section), **new) for section, new in changes.items()})

    def to_json(self) -> str:
        """Return the configuration as JSON: one object per section."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, source: str) -> "Config":
        """Parse the output of `to_json`, or raise a ConfigError about `source`. A missing setting gets its default."""
        try:
            data = json.loads(text)  # unlike msgspec, reads the lone surrogates of a path that is not UTF-8
            missing = [item.name for item in fields(cls) if isinstance(data, dict) and item.name not in data]
            if missing:
                raise ConfigError(f"{', '.join(missing)} missing")
            return decode(cls, data)
        except InvalidInputError as error:
            raise ConfigError(f"{source} is not a valid configuration: {error}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source} is not a valid configuration: not valid JSON") from error
