"""Report on the tokens of a text: marked in the text, listed with their ids, or as JSON."""

from pathlib import Path

from rich.text import Text

from engine.config import Config, TokenizerName
from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import Tokenizer
from engine.errors import printable
from engine.models.pretrained.names import is_pretrained_name
from engine.runs.directory import read_config_and_tokenizer, resolve_run
from lotr_tui.cli.console import make_console, print_json
from lotr_tui.cli.model_names import report_name
from lotr_tui.formatting import displayable, plural

TOKEN_STYLES = ("reverse", "underline")
"""Styles of neighbouring tokens, which show their borders without colour."""
LINE_FEED_MARK = "⏎"


def find_tokenizer(
    run: str | None, runs_dir: Path | None, name: TokenizerName | None, vocabulary_size: int | None
) -> tuple[Tokenizer, str]:
    """Return a tokenizer, and where it comes from."""
    if name is None and is_pretrained_name(run):
        from engine.runs.loading import load_model_by_name  # a tokenizer alone does not need it

        loaded = load_model_by_name(run, runs_dir)
        return loaded.decoder.tokenizer, report_name(loaded.name)
    if name is None:
        path = resolve_run(run, runs_dir)
        return read_config_and_tokenizer(path)[1], f"run {run or 'bundled'}"
    values = {"tokenizer": name} | ({} if vocabulary_size is None else {"vocabulary_size": vocabulary_size})
    return load_dataset(Config().with_values(**values).data).tokenizer, "learned from the bundled dialogues"


def print_tokens_as_json(text: str, tokenizer: Tokenizer) -> None:
    """Print the tokens of a text with their ids and places as one JSON object."""
    spans = tokenizer.spans(text)
    tokens = [
        {"id": span.id, "token": tokenizer.tokens[span.id], "text": text[span.start : span.end], "start": span.start}
        for span in spans
    ]
    print_json(
        {
            "tokenizer": tokenizer.name,
            "vocabulary_size": len(tokenizer),
            "characters": len(text),
            "unknown": [span.text for span in tokenizer.unknown_spans(text)],
            "tokens": tokens,
        }
    )


def print_tokens(text: str, tokenizer: Tokenizer, source: str) -> None:
    """Print the text with marked tokens, the ids below it, and a summary."""
    spans = tokenizer.spans(text)
    marked, end = Text(), 0
    for index, span in enumerate(spans):
        marked.append(_visible(text[end : span.start]), "dim")
        marked.append(_visible(text[span.start : span.end]), TOKEN_STYLES[index % 2])
        end = max(end, span.end)
    marked.append(_visible(text[end:]), "dim")
    console = make_console()
    console.print(marked, soft_wrap=True)
    console.print(" ".join(f"{_visible(tokenizer.tokens[span.id])}:{span.id}" for span in spans), soft_wrap=True)
    unknown = tokenizer.unknown_spans(text)
    parts = [
        plural(len(spans), "token"),
        plural(len(text), "character"),
        *([f"{len(text) / len(spans):.1f} characters per token"] if spans else []),
        *([f"unknown: {', '.join(printable(span.text) for span in unknown)}"] if unknown else []),
        f"{tokenizer.name}, {len(tokenizer):,} tokens, {source}",
    ]
    console.print(" · ".join(parts), soft_wrap=True)


def _visible(text: str) -> str:
    """Return text on one line in which line feeds can be seen, and without other control characters."""
    return displayable(text).replace("\n", LINE_FEED_MARK)
