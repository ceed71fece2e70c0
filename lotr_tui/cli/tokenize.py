"""`lotr-tui tokenize`: the tokens of a text, marked in the text and listed with their ids, or as JSON."""

from typing import Annotated

from rich.text import Text

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.errors import InvalidInputError, printable
from engine.models.pretrained.names import is_pretrained_name
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model_by_name, read_config_and_tokenizer
from lotr_tui.cli import options
from lotr_tui.cli.console import make_console, print_json, read_text, report_names
from lotr_tui.cli.parser import add_command, argument, make_group
from lotr_tui.formatting import displayable, plural

MAX_TEXT_BYTES = 1_000_000  # of standard input
TOKEN_STYLES = ("reverse", "underline")  # of neighbouring tokens, which show their borders without colour
commands = make_group()


@add_command(commands, "tokenize", 'lotr-tui tokenize "my precious" --tokenizer bpe')
def tokenize(
    text: Annotated[str | None, argument("TEXT", "Text; - or nothing: standard input.")] = None,
    run: options.RunOption = None,
    runs_dir: options.RunsDirOption = None,
    tokenizer: options.TokenizerOption = None,
    vocabulary_size: options.VocabularySizeOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show how a text is split: by the tokenizer of a run, or by one that is learned from the bundled dialogues."""
    if run is not None and tokenizer is not None:
        raise InvalidInputError("--run has its own tokenizer; leave out --run or --tokenizer")
    options.check_vocabulary_size(vocabulary_size, tokenizer)
    content = read_text(text, "TEXT", 'lotr-tui tokenize "Where is Frodo"', MAX_TEXT_BYTES).removesuffix("\n")
    if not content:
        raise InvalidInputError("the text is empty; give at least one character")
    if tokenizer is not None:
        values = {"tokenizer": tokenizer} | ({} if vocabulary_size is None else {"vocabulary_size": vocabulary_size})
        splitter = load_dataset(Config().with_values(**values).data).tokenizer
        source = "learned from the bundled dialogues"
    elif is_pretrained_name(run):
        loaded = load_model_by_name(run, runs_dir)
        splitter, (source,) = loaded.decoder.tokenizer, report_names([loaded.name])
    else:
        splitter = read_config_and_tokenizer(resolve_run(run, runs_dir))[1]
        source = f"run {run or 'bundled'}"
    spans, unknown = splitter.spans(content), [span.text for span in splitter.unknown_spans(content)]
    if as_json:
        tokens = [
            {
                "id": span.id,
                "token": splitter.tokens[span.id],
                "text": content[span.start : span.end],
                "start": span.start,
            }
            for span in spans
        ]
        facts = {"tokenizer": splitter.name, "vocabulary_size": len(splitter), "characters": len(content)}
        print_json({**facts, "unknown": unknown, "tokens": tokens})
        return
    marked, end = Text(), 0
    for index, span in enumerate(spans):
        marked.append(_visible(content[end : span.start]), "dim")
        marked.append(_visible(content[span.start : span.end]), TOKEN_STYLES[index % 2])
        end = max(end, span.end)
    marked.append(_visible(content[end:]), "dim")
    parts = [plural(len(spans), "token"), plural(len(content), "character")]
    parts += [f"{len(content) / len(spans):.1f} characters per token"] if spans else []
    parts += [f"unknown: {', '.join(map(printable, unknown))}"] if unknown else []
    parts.append(f"{splitter.name}, {len(splitter):,} tokens, {source}")
    console = make_console()
    console.print(marked, soft_wrap=True)
    console.print(" ".join(f"{_visible(splitter.tokens[span.id])}:{span.id}" for span in spans), soft_wrap=True)
    console.print(" · ".join(parts), soft_wrap=True)


def _visible(text: str) -> str:
    """Return text on one line in which line feeds can be seen, and without other control characters."""
    return displayable(text).replace("\n", "⏎")
