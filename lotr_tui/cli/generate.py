"""`lotr-tui generate`: texts that continue or answer a prompt, and scenes."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.config import LSTM
from engine.errors import InvalidInputError
from lotr_tui.cli import options
from lotr_tui.cli.dialogue.options import AnswerOptions, SceneOptions, parse_dialogue
from lotr_tui.cli.parser import float_option, int_option
from lotr_tui.cli.standard_input import read_standard_input

if TYPE_CHECKING:
    from engine.runs.combine import CombinationOptions
    from lotr_tui.cli.dialogue.options import DialogueOptions

SAMPLING = "Sampling, by default as in a new session with the model"
"""Section of the help text."""
MAX_PROMPT_BYTES = 100_000
"""Maximum size of a prompt on standard input; a large model reads it in a minute or two."""


@options.with_combination
@options.merge_options("dialogue", parse_dialogue)
def generate(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Text to continue; - or nothing: read it from standard input."),
    ] = None,
    run: options.RunsOption = None,
    runs_dir: options.RunsDirOption = None,
    combination: "CombinationOptions | None" = None,
    precision: options.PrecisionOption = "auto",
    temperature: Annotated[
        float | None,
        float_option("--temperature", help="From 0 (always the likeliest word) to 2.", rich_help_panel=SAMPLING),
    ] = None,
    top_k: Annotated[
        int | None,
        int_option("--top-k", help="Sample from the N likeliest words; 0: from all.", rich_help_panel=SAMPLING),
    ] = None,
    top_p: Annotated[
        float | None,
        float_option(
            "--top-p", help="Sample from the likeliest words up to this total probability.", rich_help_panel=SAMPLING
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        float_option(
            "--min-p",
            help="Sample from words at least this probable, relative to the likeliest.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        float_option(
            "--repetition-penalty", help="Above 1: words already used become less likely.", rich_help_panel=SAMPLING
        ),
    ] = None,
    seed: Annotated[
        int | None,
        int_option("--seed", help="Random seed. Default: a new one, which is printed.", rich_help_panel=SAMPLING),
    ] = None,
    max_tokens: Annotated[
        int | None, int_option("--max-tokens", help="Maximum words per text, or tokens.", rich_help_panel=SAMPLING)
    ] = None,
    count: Annotated[
        int, int_option("--count", minimum=1, maximum=1_000_000, help="Number of texts, with consecutive seeds.")
    ] = 1,
    reply: Annotated[
        bool,
        typer.Option(
            "--reply",
            help="Answer the prompt instead of continuing it; a model by others uses its chat template if it has one.",
        ),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="PROMPT", help="System prompt for the chat template. Default: its own one."),
    ] = None,
    dialogue: "DialogueOptions | None" = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per token.")] = False,
) -> None:
    """Continue or answer a prompt, or write a scene. The text goes to stdout, everything else to stderr."""
    from engine.generation.settings import SamplerSettings, check_seed, random_seed

    options.check_output_format(as_json=as_json, jsonl=jsonl)
    options_of_sampler = {
        "repetition_penalty": repetition_penalty,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "max_tokens": max_tokens,
    }
    given: dict[str, Any] = {name: value for name, value in options_of_sampler.items() if value is not None}
    SamplerSettings(**given)  # raises before the model is loaded
    first_seed = random_seed() if seed is None else seed
    check_seed(first_seed)
    check_seed(first_seed + count - 1)
    seeds = range(first_seed, first_seed + count)
    if isinstance(dialogue, SceneOptions) and reply:
        raise InvalidInputError("--reply belongs to an answer, not to a scene; leave out --reply or --scene")
    if system is not None and not reply:
        raise InvalidInputError("--system belongs to an answer by a chat template; add --reply, or leave out --system")
    # A speaker opens a conversation or a scene without a prompt.
    text = None if prompt is None and dialogue is not None else _read_prompt(prompt)
    from lotr_tui.session.session_model import load_session_model

    session_model = load_session_model(run or [], runs_dir, combination, precision)
    if not run and session_model.name == LSTM:
        print("note: this is the small LSTM; `lotr-tui fetch smollm2` brings a model that understands", file=sys.stderr)
    settings = replace(session_model.default_settings.sampler, **given)
    tokenizer = session_model.model.tokenizer
    if text is not None and not tokenizer.is_open:  # reports bytes that are not UTF-8 like other symbols that it skips
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    if system is not None and session_model.chat is None:
        raise InvalidInputError(f"--system needs a chat template: {session_model.chat_problem}; leave it out")
    if reply and session_model.cast:
        dialogue = dialogue or AnswerOptions()
    if isinstance(dialogue, SceneOptions):
        from lotr_tui.cli.dialogue.scenes import generate_scenes_on_console

        generate_scenes_on_console(session_model, text, dialogue, settings, seeds, as_json=as_json, jsonl=jsonl)
    elif dialogue is not None:
        from lotr_tui.cli.dialogue.answers import generate_answers_on_console

        generate_answers_on_console(session_model, text, dialogue, settings, seeds, as_json=as_json, jsonl=jsonl)
    else:
        from engine.generation.prompt import encode_prompt
        from lotr_tui.cli.generate_console import generate_on_console

        encoded = encode_prompt(text or "", tokenizer)
        generate_on_console(
            session_model,
            encoded,
            settings,
            seeds,
            reply=reply,
            system_prompt=system or "",
            as_json=as_json,
            jsonl=jsonl,
        )


def _read_prompt(prompt: str | None) -> str:
    """Return the prompt, or standard input where it is "-" or missing."""
    if prompt is None and sys.stdin.isatty():
        raise InvalidInputError('PROMPT is missing; give a text, such as `lotr-tui generate "Where is Frodo"`')
    return read_standard_input(MAX_PROMPT_BYTES) if prompt is None or prompt == "-" else prompt
