"""Every hyperparameter, documented once, and the presets. Configuration is data: frozen, checked, JSON."""

import json
import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from engine.errors import ConfigError, nearest

BUNDLED = "bundled"


def setting(default: Any, meaning: str, low: float = -math.inf, high: float = math.inf) -> Any:
    """A field of a configuration: its default, what it means, and the range (ends included) it must lie in."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high})


def _check(name: str, value: Any, kind: Any, low: float, high: float) -> None:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if value not in choices:
            raise ConfigError(f"{name}={value} is none of {', '.join(choices)}{nearest(str(value), choices)}")
        return
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name}={value} is not {_kind_name(kind)}")
    if kind in (int, float) and not low <= value <= high:  # NaN fails both comparisons
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise ConfigError(f"{name}={value} is out of range; it must be at least {low:g}{upper}")


def _kind_name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "a value")


def _hints(kind: type) -> dict[str, Any]:
    """The types of a configuration's fields; working them out is slow enough to be felt at start-up."""
    if kind not in _KNOWN_HINTS:
        _KNOWN_HINTS[kind] = get_type_hints(kind)
    return _KNOWN_HINTS[kind]


_KNOWN_HINTS: dict[type, dict[str, Any]] = {}


class _Checked:
    """Checks every field of a dataclass against its type and range when it is made."""

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            _check(item.name, value, hints[item.name], item.metadata["low"], item.metadata["high"])


@dataclass(frozen=True)
class DataConfig(_Checked):
    """Which text, and how it becomes tokens."""

    corpus: str = setting(BUNDLED, "path of the corpus; 'bundled' is the dialogues that come with lotr-tui")
    corpus_format: Literal["csv", "text"] = setting(
        "csv", "a CSV with a row an utterance, or plain text with a line each"
    )
    text_column: str = setting("dialog", "CSV column of the utterances")
    speaker_column: str = setting("char", "CSV column of the speakers, if there is one")
    valid_corpus: str = setting("", "path of a validation text; with test_corpus, the corpus is not split")
    test_corpus: str = setting("", "path of a test text")
    tokenizer: Literal["words", "spaces"] = setting(
        "words", "words: lower-case words of letters and digits; spaces: whatever stands between white space"
    )
    mode: Literal["line", "stream"] = setting("line", "line: <eos> ends every line; stream: one <eos> ends each split")
    split_seed: int = setting(1234, "seed of the shuffle before the 80/10/10 split", 0, 2**63 - 1)
    min_characters: int = setting(20, "lines must be longer than this after the clean-up", 0, 10_000)
    min_count: int = setting(3, "words seen less often in the training split become <unk>", 1, 1_000_000)


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """The LSTM language model of the notebook and of the paper (arXiv 1708.02182, sections 2 and 4)."""

    embedding_size: int = setting(300, "size of a word's embedding", 1, 16_384)
    hidden_size: int = setting(300, "hidden units of every LSTM layer but a tied model's last", 1, 16_384)
    layers: int = setting(1, "LSTM layers", 1, 16)
    tied: bool = setting(True, "the output layer is the embedding; the last layer then has embedding_size units (4.5)")
    locked: bool = setting(True, "one dropout mask for all time steps (4.2) instead of one each")
    dropout_words: float = setting(0.2, "share of the vocabulary whose embedding is zeroed in a pass (4.3)", 0, 0.99)
    dropout_input: float = setting(0.6, "dropout on the embeddings", 0, 0.99)
    dropout_between: float = setting(0.3, "dropout between LSTM layers", 0, 0.99)
    dropout_output: float = setting(0.6, "dropout on the last layer's output", 0, 0.99)
    weight_drop: float = setting(0.5, "DropConnect on the hidden-to-hidden weights (section 2)", 0, 0.99)
    initialisation: Literal["uniform", "notebook"] = setting(
        "uniform", "uniform: the paper's; notebook: Xavier input, orthogonal recurrent weights, zero biases"
    )
    spelling: bool = setting(True, "words that share letters share a part of their embeddings")
    pauses: bool = setting(
        False, "the punctuation between words is learned from, and guessed where words are predicted"
    )
    unigram_bias: bool = setting(True, "the output bias starts at the log frequencies of the training words")

    def layer_sizes(self) -> list[tuple[int, int]]:
        """Input and hidden size of each LSTM layer, first layer first."""
        last = self.embedding_size if self.tied else self.hidden_size
        hidden = [self.hidden_size] * (self.layers - 1) + [last]
        return list(zip([self.embedding_size, *hidden[:-1]], hidden, strict=True))


@dataclass(frozen=True)
class TrainingConfig(_Checked):
    """How the weights are found."""

    epochs: int = setting(80, "passes over the training split", 1, 100_000)
    fine_tune_epochs: int = setting(
        0, "passes more, by averaged SGD from the best weights, until validation gets no better (section 5)", 0, 100_000
    )
    fine_tune_lr: float = setting(30.0, "learning rate of fine-tuning", 1e-9, 1e3)
    batch_size: int = setting(20, "columns the text is cut into and read side by side", 1, 65_536)
    window: int = setting(25, "BPTT window: time steps back-propagated through", 1, 10_000)
    variable_window: bool = setting(False, "draw each window's length and rescale the learning rate (4.1)")
    shuffle_lines: bool = setting(True, "read the lines in a new order every epoch")
    optimizer: Literal["adamw", "adam", "sgd"] = setting("adamw", "update rule")
    lr: float = setting(0.01, "highest learning rate", 1e-9, 1e3)
    schedule: Literal["one_cycle", "plateau", "constant"] = setting(
        "one_cycle", "one_cycle: warm up, then a cosine to zero; plateau: halve when validation gets no better"
    )
    warmup: float = setting(0.25, "share of a one-cycle schedule that warms up", 0, 1)
    beta2: float = setting(0.99, "decay of Adam's second moment", 0, 0.999999)
    weight_decay: float = setting(0.1, "weight decay; adamw and adam spare the biases", 0, 100)
    clip: float = setting(1.0, "highest norm of the gradient; 0: no clipping", 0, 1e6)
    ar: float = setting(0.0, "alpha: penalty on the size of the outputs (4.6)", 0, 1e3)
    tar: float = setting(0.0, "beta: penalty on how fast the hidden state changes (4.6)", 0, 1e3)
    softmax_samples: int = setting(
        0, "words, beside those of the window, that training compares its targets with; 0: all", 0, 1_000_000
    )
    smoothing: float = setting(0.0, "share of each training target that is spread over the words' frequencies", 0, 0.9)
    averaging: Literal["ema", "nt_asgd", "none"] = setting(
        "ema",
        "evaluate averaged weights: ema: a moving average; nt_asgd: from where validation gets no better (section 3)",
    )
    average: float = setting(0.98, "decay of the moving average", 0, 0.9999)
    nonmonotone: int = setting(
        5, "nt_asgd averages once validation is worse than the best before the last so many evaluations", 1, 100_000
    )
    evaluate_every: int = setting(1, "epochs between evaluations", 1, 100_000)
    evaluate_updates: int = setting(
        0, "updates between evaluations instead, where an epoch has few; 0: count epochs", 0, 10_000_000
    )
    evaluate_tokens: int = setting(
        0, "tokens at the start of the validation split that are scored while training; 0: all", 0, 2**31
    )
    validation: Literal["true", "notebook"] = setting(
        "true", "what the schedule and the choice of the best are told; notebook: its formula, which scores no token"
    )
    checkpoint_seconds: float = setting(
        30.0, "seconds between saves of all that a resume needs; 0: only when asked, and at a stop", 0, 1e6
    )
    patience: int = setting(0, "stop after so many evaluations without a better one; 0: never", 0, 100_000)
    seed: int = setting(0, "seed of the weights, masks and orders", 0, 2**63 - 1)
    keep_epochs: bool = setting(
        True, "beside the best model, keep those of epochs 1, 2, 4, 8 and so on, to be named RUN@EPOCH"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to train")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "auto: bf16 on a GPU that has it, and for layers of 512 or more on a CPU that has it, else fp32"
    )
    threads: int = setting(0, "CPU threads; 0: all cores", 0, 1024)
    sample_prompt: str = setting("Bilbo Baggins is", "continued at every evaluation, always with the same seed")
    sample_seed: int = setting(0, "seed of that sample", 0, 2**63 - 1)
    sample_temperature: float = setting(0.7, "temperature of that sample", 0, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.softmax_samples and self.smoothing:
            raise ConfigError("softmax_samples and smoothing exclude each other; set one of them to 0")


@dataclass(frozen=True)
class Config:
    """All that a training needs to be repeated."""

    preset: str = "default"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig(pauses=True)
    training: TrainingConfig = TrainingConfig()

    def with_values(self, **values: Any) -> Self:
        """A copy with some fields of its parts replaced; field names are unique over the parts.

        Raises:
            ConfigError: no such field, or a value of the wrong type or out of range.
        """
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            changes.setdefault(_part_of(name), {})[name] = value
        # A part's fields all at once: what they may be can depend on each other.
        return replace(self, **{part: replace(getattr(self, part), **its) for part, its in changes.items()})

    def with_settings(self, assignments: list[str]) -> Self:
        """A copy changed by "key=value" texts, as `--set` gives them.

        Raises:
            ConfigError: not of that form, no such field, or a wrong value.
        """
        values = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"--set {assignment!r} is not of the form key=value")
            name = name.strip()
            kind = _hints(_PARTS[_part_of(name)])[name]
            values[name] = _parse(name, text.strip(), kind)
        return self.with_values(**values)

    def to_json(self) -> str:
        """The configuration as JSON, parts and field names as here."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str, source: str) -> "Config":
        """Read what `to_json` wrote.

        Raises:
            ConfigError: not JSON of this form, or a field that this version does not know.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{source} is not JSON; the run is damaged") from error
        if not isinstance(values, dict) or set(values) != {"preset", *_PARTS} or not isinstance(values["preset"], str):
            raise ConfigError(f"{source} is no configuration: preset, {', '.join(_PARTS)} are expected")
        parts = {}
        for part, kind in _PARTS.items():
            known = {item.name for item in fields(kind)}
            if not isinstance(values[part], dict) or not set(values[part]) <= known:
                raise ConfigError(f"{source}: {part!r} is not a table of the known settings; the run is damaged")
            parts[part] = kind(**values[part])
        return cls(preset=values["preset"], **parts)


_PARTS: dict[str, Any] = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig}


def settings() -> dict[str, tuple[str, str]]:
    """Every field that `--set` takes: its part and its meaning."""
    return {item.name: (part, item.metadata["meaning"]) for part, kind in _PARTS.items() for item in fields(kind)}


def preset(name: str) -> Config:
    """The preset called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, PRESETS)} The presets: {', '.join(PRESETS)}")
    return PRESETS[name]


def _part_of(name: str) -> str:
    known = settings()
    if name not in known:
        raise ConfigError(f"unknown setting {name!r}{nearest(name, known)} See `lotr-tui train --list-settings`")
    return known[name][0]


def _parse(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{name}={text} is not {_kind_name(kind)}") from error


PRESETS: dict[str, Config] = {
    "default": Config("default"),
    # Seven epochs: enough to pass Kneser-Ney, too few to need much dropout or an average.
    "tiny": Config(
        "tiny",
        model=ModelConfig(
            embedding_size=200,
            hidden_size=200,
            pauses=True,
            dropout_words=0.0,
            dropout_input=0.4,
            dropout_output=0.4,
            weight_drop=0.2,
        ),
        training=TrainingConfig(epochs=7, window=35, lr=0.012, weight_decay=0.01, smoothing=0.05, averaging="none"),
    ),
    # The notebook's own settings, and its mistake; `--set validation=true` trains the same model unmisled.
    "notebook": Config(
        "notebook",
        data=DataConfig(mode="stream"),
        model=ModelConfig(
            embedding_size=512,
            hidden_size=512,
            layers=2,
            tied=False,
            locked=False,
            dropout_words=0.0,
            dropout_input=0.65,
            dropout_between=0.65,
            dropout_output=0.65,
            weight_drop=0.0,
            initialisation="notebook",
            spelling=False,
            unigram_bias=False,
        ),
        training=TrainingConfig(
            epochs=50,
            batch_size=64,
            window=50,
            shuffle_lines=False,
            optimizer="adam",
            lr=0.001,
            schedule="plateau",
            beta2=0.999,
            weight_decay=0.0,
            clip=0.25,
            averaging="none",
            validation="notebook",
            precision="fp32",
            seed=1234,
        ),
    ),
    # The paper's for Penn Treebank (section 5), which has 10,000 words: 24,221,600 parameters.
    "paper": Config(
        "paper",
        model=ModelConfig(
            embedding_size=400,
            hidden_size=1150,
            layers=3,
            dropout_words=0.1,
            dropout_input=0.4,
            dropout_between=0.3,
            dropout_output=0.4,
            spelling=False,
            unigram_bias=False,
        ),
        training=TrainingConfig(
            epochs=750,
            fine_tune_epochs=750,
            batch_size=40,
            window=70,
            variable_window=True,
            shuffle_lines=False,
            optimizer="sgd",
            lr=30.0,
            schedule="constant",
            weight_decay=1.2e-6,
            clip=0.25,
            ar=2.0,
            tar=1.0,
            averaging="nt_asgd",
            keep_epochs=False,  # 97 MB each
        ),
    ),
    # Penn Treebank on two CPU cores within an hour: small, and a softmax over a fifth of the vocabulary.
    "ptb": Config(
        "ptb",
        model=ModelConfig(
            embedding_size=400,
            hidden_size=400,
            dropout_words=0.1,
            dropout_input=0.4,
            dropout_output=0.4,
            weight_drop=0.4,
            spelling=False,
        ),
        training=TrainingConfig(
            epochs=24,
            batch_size=40,
            window=35,
            shuffle_lines=False,
            lr=0.005,
            warmup=0.2,
            weight_decay=0.02,
            clip=0.5,
            softmax_samples=2000,
            average=0.998,
            evaluate_every=2,
        ),
    ),
}
