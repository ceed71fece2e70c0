"""The command line: the form of options, help and errors on top of Typer, shared options, and the table of commands.

A command's module is imported when the command is called: this is where numpy, rich and the engine are loaded. Modules
of commands import PyTorch and Textual only where a training or a screen begins.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from typer.completion import get_completion_inspect_parameters
from typer.core import TyperCommand, TyperGroup

from engine.config import FOUNTAIN_SUFFIX, SETTINGS, TEACHER_SEPARATOR, Config, DataConfig
from engine.errors import ColumnError, InvalidInputError, shell_word, suggest_nearest
from engine.presets import PRESETS
from engine.storage.files import absolute_path
from lotr_tui.completion import COMPLETE_VARIABLE
from lotr_tui.completion.values import VALUES
from lotr_tui.textual_fixes import is_served

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions

COMMANDS = {
    "train": ("train", "Train a model from scratch, in a live dashboard or with plain lines."),
    "finetune": ("train", "Teach SmolLM2 to converse like the speakers of a corpus."),
    "attach": ("runs", "Show the dashboard of a running or finished run."),
    "status": ("runs", "Print the progress of a run on one screen of text."),
    "stop": ("runs", "Ask a running training to save and stop."),
    "generate": ("generate", "Continue or answer a prompt, or write a scene."),
    "eval": ("evaluate", "Print the perplexity and bits per character of models on a text."),
    "who": ("text", "Show which speaker would say a text, and which words gave the speaker away."),
    "serve": ("machine", "Show the session or a dashboard in a browser, or answer other programs."),
    "learn": ("machine", "Learn what a language model is: short chapters with something to move."),
    "runs": ("runs", "List, compare or import runs, or show, rename, delete or export one."),
    "data": ("data", "Describe a corpus, or find the speech in it."),
    "fetch": ("data", "Download files that are too large to be included: a model, dialogues, or books."),
    "tokenize": ("text", "Show how a text is split into tokens."),
    "ablate": ("train", "Measure the effect of each technique of a training."),
    "search": ("train", "Search hyperparameters within a budget."),
    "locate": ("machine", "Print where runs, models, settings and bundled files are."),
    "completion": ("machine", "Print the completion for bash, zsh or fish."),
    "doctor": ("machine", "Show what works on this machine, and what to do about the rest."),
}
"""Module and summary of each command, in the order of the help."""
MAX_HELP_WIDTH, MAX_TERM_WIDTH = 100, 30
SIMILARITY = 0.7  # of a suggested command or option, as difflib measures it
INVALID = r"Invalid value for '([^']*)': "
REWORDED = (
    (r"Missing (?:argument|option) '([^']*)'.*", r"\1 is missing"),
    (r"Option '([^']*)' requires .*", r"\1 needs a value"),
    (r"Option '([^']*)' does not take a value", r"\1 takes no value"),
    (r"No such option:? '?([^\s']+).*", r"unknown option \1"),
    (r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", r"unexpected argument '\1'"),
    (INVALID + r"\w+ '(.*)' is a file", r"\1 \2 is a file; name a folder"),
)
"""Errors of the parser, and how we say them."""


def option(usage: str, help: str = "", panel: str | None = None, **more: Any) -> Any:
    """Return an option such as "--run NAME", a flag such as "--json", or an argument such as "RUN".

    Without a help text, it is a setting of `Config`, which has its description and its choices.
    """
    name, _, metavar = usage.partition(" ")
    complete = VALUES.get(name) or VALUES.get(metavar)
    if not help:
        _, kind, meta = SETTINGS[name.removeprefix("--").replace("-", "_")]
        help, choices = str(meta.description), get_args(kind)
        if choices:
            metavar, complete = "|".join(choices), lambda: list(choices)
        else:
            metavar, help = "N" if kind is int else "NAME", f"{help[:1].upper()}{help[1:]}."
    if not name.startswith("-"):
        return typer.Argument(metavar=name, help=help, autocompletion=complete, **more)
    flags = {"metavar": metavar or None, "help": help, "rich_help_panel": panel, "autocompletion": complete}
    return typer.Option(name, **(flags | more))


def expand(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the fields of dataclasses in place of the parameters of these classes."""
    given = signature(function).parameters
    classes: dict[str, Callable[..., Any]] = {
        name: each.annotation for name, each in given.items() if hasattr(each.annotation, "__dataclass_fields__")
    }
    fields = {name: signature(options).parameters for name, options in classes.items()}

    @wraps(function)
    def run_command(**arguments: Any) -> Any:
        for name, options in classes.items():
            arguments[name] = options(**{field: arguments.pop(field) for field in fields[name]})
        return function(**arguments)

    options = [each for name, own in given.items() for each in fields.get(name, {name: own}).values()]
    options = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in options]
    run_command.__signature__ = Signature(options)  # type: ignore[attr-defined]
    run_command.__annotations__ = {each.name: each.annotation for each in options}
    return run_command


class Form:
    """Form of a command: its help in sections with examples as they are typed. Errors know their command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["arguments"] = list(args)
        try:
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:  # so that the message names the command
                error.ctx = ctx  # type: ignore[attr-defined]
            raise
        if ctx.params.get("as_json") and ctx.params.get("jsonl"):
            raise InvalidInputError("--json and --jsonl exclude each other; give one of them")
        if ctx.params.get("vocabulary_size") is not None and ctx.params["tokenizer"] != "bpe":
            raise InvalidInputError("--vocabulary-size belongs to --tokenizer bpe; add that option")
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = ["[OPTIONS]"]
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            if param.param_type_name == "argument":
                name = param.metavar + ("..." if param.nargs != 1 else "")
                pieces.append(name if param.required else f"[{name}]")
        return [*pieces, *(["[COMMAND]"] if hasattr(self, "commands") else [])]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Commands": []}
        for name, command in getattr(self, "commands", {}).items():
            sections["Commands"].append((name, command.get_short_help_str(limit=MAX_HELP_WIDTH)))
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            if param.param_type_name == "argument":
                sections["Arguments"].append((param.metavar, param.help or ""))
            else:
                title = getattr(param, "rich_help_panel", None) or "Options"
                sections.setdefault(title, []).append(param.get_help_record(ctx))
        sections["Options"] = sections.pop("Options")  # the general ones come last
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=MAX_TERM_WIDTH)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if examples := self.epilog:  # type: ignore[attr-defined]
            formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()))


class Command(Form, TyperCommand):
    pass


class Group(Form, TyperGroup):
    """Group of commands. Options before a command are passed on to it, which refuses unknown ones."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise InvalidInputError(_describe_unknown_command(args[0], list(self.commands), ctx.command_path))
        before = ctx.meta["arguments"][: -len(args)]
        options = before[:-1] if before[-1:] == ["--"] else before
        name, command, arguments = super().resolve_command(ctx, [args[0], *options, *args[1:]])
        if ctx.parent is None:
            module = import_module(f"lotr_tui.cli.{COMMANDS[args[0]][0]}")
            command = typer.main.get_group(module.commands).commands[args[0]]
        return name, command, arguments


Commands = partial(
    typer.Typer,
    cls=Group,
    add_completion=False,
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_HELP_WIDTH},
)


def describe_usage_error(error: Any) -> str:
    """Return the message of an error of the parser in our words, with the command whose help explains it."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "lotr-tui"
    for pattern, words in REWORDED:
        if re.fullmatch(pattern, message, re.DOTALL):
            message = re.sub(pattern, words, message, flags=re.DOTALL)
            break
    if message.startswith("unknown option") and error.ctx:
        names = [name for param in error.ctx.command.get_params(error.ctx) for name in param.opts if name[0] == "-"]
        near = difflib.get_close_matches(message.split()[-1], names, 1, SIMILARITY)
        message += f"; did you mean {near[0]}?" if near else ""
    elif message.startswith("unexpected argument") and command.endswith(" generate"):
        message += "; put a prompt of several words in quotes"
    elif match := re.fullmatch(INVALID + "'(.*)' is not one of (.*)", message, re.DOTALL):
        choices = re.findall(r"'([^']*)'", match[3])
        message = f"{match[1]} {match[2]} is not one of {', '.join(choices)}{suggest_nearest(match[2], choices)}"
    elif match := re.fullmatch(INVALID + "Input should be ([^,]*).*", message, re.DOTALL):
        message = f"{match[1]} {error.__cause__.errors()[0]['input']} must be {match[2]}"
    message = message.removesuffix(".")
    return f"{message} See `{command} --help`" if message.endswith("?") else f"{message}; see `{command} --help`"


def _describe_unknown_command(name: str, names: list[str], group: str) -> str:
    near = [f"--{name}"] if name in ("help", "version") else []
    near += [command for command in names if len(name) > 1 and (command.startswith(name) or name.startswith(command))]
    near += difflib.get_close_matches(name, names, cutoff=SIMILARITY)
    if near:
        return f"unknown command {name!r}; did you mean `{group} {near[0]}`?"
    if " " in name.strip():
        return f"unknown command {name!r}; to continue a text, use: lotr-tui generate {shell_word(name)}"
    return f"unknown command {name!r}; the commands are {', '.join(names)}. See `{group} --help`"


# Options of several commands


def _check_theme(name: str) -> str:
    from lotr_tui.theme import THEME_NAMES  # imports Textual

    if name not in THEME_NAMES:
        nearest = suggest_nearest(name, THEME_NAMES)
        raise InvalidInputError(f"unknown theme {name!r}{nearest} The themes: {', '.join(THEME_NAMES)}")
    return name


DATA, MODEL, SCREEN, TRAINING = "Data", "Model", "Screen", "Training"
MODEL_NAMES = "Name or path of a run, latest, RUN@EPOCH, hf:FOLDER, hf:owner/name or gguf:FILE"
DEFAULT_MODEL = "Default: bundled where SmolLM2 was fetched, else lstm."
RUNS = f"{MODEL_NAMES}; repeat it for an ensemble of runs. {DEFAULT_MODEL}"
JsonOption = Annotated[bool, option("--json", "Print JSON.")]
JsonLinesOption = Annotated[bool, option("--jsonl", "Print one JSON object per token.")]
RunArgument = Annotated[str, option("RUN", "Name or path of a run, or latest.")]
RunsOption = Annotated[list[str] | None, option("--run RUN", RUNS, MODEL)]
RunOption = Annotated[str | None, option("--run RUN", f"{MODEL_NAMES}. {DEFAULT_MODEL}", MODEL)]
RunsDirOption = Annotated[Path | None, option("--runs-dir DIR", "Folder of the runs.", file_okay=False)]
ThemeOption = Annotated[str | None, option("--theme NAME", "shire or any Textual theme.", SCREEN, parser=_check_theme)]
NoMouseOption = Annotated[bool, option("--no-mouse", "Leave the mouse to the terminal, to select text.", SCREEN)]
ADAPTER = "Run whose adapter is put beside that of the model, and its strength; up to three adapters in all."
AdaptersOption = Annotated[list[str] | None, option("--adapter RUN:X", ADAPTER, MODEL)]
PRECISION = "int8 is faster for large models, and less exact; auto computes as the model is stored."
PrecisionOption = Annotated[Literal["auto", "fp32", "int8"], option("--precision auto|fp32|int8", PRECISION, MODEL)]
TokenizerOption = Annotated[str | None, option("--tokenizer", panel=DATA)]
VocabularySizeOption = Annotated[int | None, option("--vocabulary-size", panel=DATA)]
TextColumnOption = Annotated[str | None, option("--text-column", panel=DATA)]
SpeakerColumnOption = Annotated[str | None, option("--speaker-column", panel=DATA)]
ModeOption = Annotated[str | None, option("--mode", panel=DATA)]
SplitOption = Annotated[str | None, option("--split", panel=DATA)]
SplitSeedOption = Annotated[int | None, option("--split-seed", panel=DATA)]
SetOption = Annotated[list[str] | None, option("--set KEY=VALUE", "A setting; see train --list-settings.", TRAINING)]
CsvOption = Annotated[Path | None, option("--csv FILE", "Corpus: CSV, TSV or JSON lines. Default: bundled.", DATA)]
TextOption = Annotated[Path | None, option("--text FILE", "Corpus: lines of text, a script, or a screenplay.", DATA)]


@dataclass(frozen=True)
class Combination:
    """Options that combine models to play, as `engine.runs.combine` has them."""

    mixture: Annotated[bool, option("--mixture", "Mix with a Kneser-Ney model, tuned on validation.", MODEL)] = False
    cache: Annotated[bool, option("--cache", "Make recently used words more likely (continuous cache).", MODEL)] = False

    def options(self) -> "CombinationOptions | None":
        if self == Combination():
            return None
        from engine.runs.combine import CombinationOptions  # imports numpy

        return CombinationOptions(**vars(self))


INIT_HELP = (
    "Fine-tune: start from a run or RUN@EPOCH, from base (the pre-trained LSTM that is included), or with an adapter "
    "from smollm2, gguf:FILE, hf:FOLDER or hf:owner/name."
)
TEACHER_HELP = "Distil: also learn the averaged predictions of this run; repeat it for an ensemble."
PRESET_HELP = (
    f"Settings to start from: {', '.join(PRESETS)}. Default: default; with --init finetune, or dialogue with --mode "
    "dialogue, or lora for a model by others."
)


@dataclass(frozen=True)
class TrainingOptions:
    """Options that describe a training. A field that is called like a setting of `Config` changes it, unless None."""

    preset: Annotated[str | None, option("--preset NAME", PRESET_HELP, TRAINING)] = None
    init: Annotated[str | None, option("--init RUN", INIT_HELP, TRAINING)] = None
    teacher: Annotated[list[str] | None, option("--teacher RUN", TEACHER_HELP, TRAINING)] = None
    csv: CsvOption = None
    text: TextOption = None
    valid: Annotated[Path | None, option("--valid FILE", "Validation text, if the corpus is split.", DATA)] = None
    test: Annotated[Path | None, option("--test FILE", "Test text, if the corpus is split.", DATA)] = None
    text_column: TextColumnOption = None
    speaker_column: SpeakerColumnOption = None
    tokenizer: TokenizerOption = None
    mode: ModeOption = None
    split: SplitOption = None
    split_seed: SplitSeedOption = None
    seed: Annotated[int | None, option("--seed", panel=TRAINING)] = None
    epochs: Annotated[int | None, option("--epochs", panel=TRAINING)] = None
    device: Annotated[str | None, option("--device", panel=TRAINING)] = None
    threads: Annotated[int | None, option("--threads", panel=TRAINING)] = None
    precision: Annotated[str | None, option("--precision", panel=TRAINING)] = None
    assignments: SetOption = None

    def configure(self, runs_dir: Path | None = None) -> Config:
        """Return the preset, changed by these options, or raise an InvalidInputError."""
        from engine.training.job import configure, default_preset  # imports numpy

        if self.init is not None and not self.init.strip():  # an unset variable must not train from random weights
            raise InvalidInputError("--init names no run; give one, or omit the option; see `lotr-tui runs`")
        name = default_preset(self.init or "", self.mode, runs_dir) if self.preset is None else self.preset
        config = configure(PRESETS[name], self.apply, runs_dir)
        return replace(config, data=ask_for_columns(config.data))

    def apply(self, config: Config) -> Config:
        """Return `config` with the changes that these options make, or raise an InvalidInputError."""
        if self.csv and self.text:
            raise InvalidInputError("--csv and --text exclude each other; give one corpus")
        if self.text and (self.text_column or self.speaker_column):
            raise InvalidInputError(f"--text {self.text} reads lines without columns; for columns, use --csv")
        values = {name: value for name, value in vars(self).items() if name in SETTINGS and value is not None}
        if self.teacher:
            values["teachers"] = TEACHER_SEPARATOR.join(self.teacher)
        if path := self.csv or self.text:
            is_table = self.csv is not None and path.suffix.lower() != FOUNTAIN_SUFFIX
            values |= {"corpus": str(absolute_path(path)), "corpus_format": "csv" if is_table else "text"}
        config = config.with_values(**values)
        if self.valid or self.test:
            if not (self.valid and self.test and path):
                raise InvalidInputError("--valid and --test need each other, and --text or --csv for the training text")
            # The files are lines and tokens already, and all of them count.
            is_closed = config.data.tokenizer in ("words", "whitespace")
            if is_closed and self.tokenizer is None and not config.training.init:
                config = config.with_values(tokenizer="whitespace")
            if config.data.tokenizer == "whitespace":
                config = config.with_values(min_count=1)
            config = config.with_values(min_characters=0 if is_closed else -1)
            config = config.with_values(valid_corpus=str(self.valid), test_corpus=str(self.test))
        return config.with_values(*self.assignments or ())


def ask_for_columns(data: DataConfig) -> DataConfig:
    """Return `data` with the columns that the person at the terminal chooses if its table leaves them open.

    Without a terminal, reading the table raises the error.
    """
    from engine.data.corpus import check_columns  # imports numpy

    while sys.stdin.isatty() and sys.stderr.isatty():
        try:
            check_columns(data)
            break
        except ColumnError as error:
            columns = [f"{number:3}  {shown}" for number, (shown, _) in enumerate(error.answers, 1)]
            print(error.question, *columns, sep="\n", file=sys.stderr)
            number = typer.prompt(f"Column, 1 to {len(error.answers)}", type=int, err=True)
            if 1 <= number <= len(error.answers):
                data = replace(data, **{error.setting: error.answers[number - 1][1]})
    return data


def has_terminal() -> bool:
    """Return True if a screen can be drawn: in a browser, or on a terminal that is not dumb while CI is not set."""
    is_plain = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("CI", "") not in ("", "0", "false")
    # The screen is drawn on standard error.
    return is_served() or (not is_plain and all(each.isatty() for each in (sys.stdin, sys.stdout, sys.stderr)))


# The command without a name, and all others


app = Commands(epilog='lotr-tui --run latest\nlotr-tui generate "Where is Frodo"')
PACE = "Words per second on the screen; 0: no delay. Default: the last one used."


@app.callback()
@expand
def session(
    context: typer.Context,
    *,
    run: RunsOption = None,
    adapter: AdaptersOption = None,
    combination: Combination,
    runs_dir: RunsDirOption = None,
    pace: Annotated[float | None, option("--pace X", PACE, SCREEN)] = None,
    theme: ThemeOption = None,
    no_mouse: NoMouseOption = False,
    version: Annotated[bool, option("--version", "Print the versions that matter.")] = False,
) -> int:
    """Train, play with and understand small language models in a terminal.

    Without a command, this opens the interactive session.
    """
    if context.invoked_subcommand:
        return 0
    if version:
        from lotr_tui.doctor.checks import list_versions

        for name, value in list_versions().items():
            print(f"{name} {value}")
        return 0
    if pace is not None:
        from lotr_tui.session.settings import check_pace

        check_pace(pace)
    from lotr_tui.session.model_loading import parse_adapter

    adapters = [parse_adapter(each) for each in adapter or []]
    from lotr_tui.cli.launch import open_session  # imports Textual

    return open_session(run or [], runs_dir, combination.options(), pace, theme, mouse=not no_mouse, adapters=adapters)


def run_command(arguments: list[str] | None = None) -> int:
    """Run the command that `arguments`, by default the arguments of the process, name, and return its exit code."""
    if COMPLETE_VARIABLE in os.environ:
        get_completion_inspect_parameters()  # also registers the shells
    root = typer.main.get_group(app)
    root.commands = {name: Command(name, help=summary) for name, (_, summary) in COMMANDS.items()}
    try:
        result = root.main(arguments, prog_name="lotr-tui", standalone_mode=False)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    return result if isinstance(result, int) else 0
