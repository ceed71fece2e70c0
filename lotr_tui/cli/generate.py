"""`lotr-tui generate`: texts that continue or answer a prompt, and scenes, which models write as scripts."""

import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

from engine.config import LSTM
from engine.data import scripts, speakers
from engine.data.tokenizers import EOS_ID
from engine.errors import InvalidInputError, printable, shell_word
from engine.generation import generate as generation
from engine.generation import turns as conversation
from engine.generation.settings import SamplerSettings, check_seed, random_seed
from engine.generation.turns import MAX_ANSWERS, Answer, stream_answers
from engine.models import base, dialogue
from engine.models.pretrained.chat import ChatMessage
from engine.runtime.process import Cancellation
from lotr_tui import STARTED, formatting
from lotr_tui.cli import console, main
from lotr_tui.cli.main import option
from lotr_tui.session.cast import answering_cast, describe_unknown_name, read_name
from lotr_tui.session.model_loading import parse_adapter
from lotr_tui.session.reply import encode_beginning, parse_script
from lotr_tui.session.session_model import (
    SessionModel,
    chat_start,
    default_num_answers,
    load_session_model,
)
from lotr_tui.session.settings import read_strength

if TYPE_CHECKING:  # this module imports tokenizers, which a model of words does not need
    from engine.models.pretrained.base import LoadingProgress

SAMPLING, DIALOGUE = "Sampling, by default as in a new session with the model", "Dialogue"
MAX_PROMPT_BYTES = 100_000  # of standard input; a large model reads it in a minute or two
MAX_COUNT, MAX_TURNS = 1_000_000, 10_000
MAX_BATCH_SIZE = 16  # texts generated together; larger batches are hardly faster
MAX_LISTED_SPEAKERS = 10  # whose probabilities the JSON of a turn has
FIGURES = ("index", "id", "text", "logprob", "sampling_prob", "rank", "entropy", "num_kept", "top_tokens", "seconds")
PENALTY_HELP = "Above 1: words already used become less likely."
CHAT_HELP = "Answer the prompt; a model by others uses its chat template if it has one."
STRENGTH_HELP = "How much of the adapter acts: 0 is the model as it came, 1 (default) as trained, up to 1.5."
StrengthOption = Annotated[float | None, option("--strength X", STRENGTH_HELP, main.MODEL, parser=read_strength)]
STEER_HELP = "Write like a speaker, or like the lines of good.txt and unlike bad.txt: good.txt,bad.txt:X, X a strength."
TO_HELP = "Who answers; '!NAME' outside of the cast. Default: the likeliest speaker."
BEST_OF_HELP = "Draw N answers, print the one that the prompt makes most likely. Default: 8, with a large model 4."
RAW_HELP = "Print the exact text, with control characters, which a terminal obeys. JSON always has it, escaped."
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
Events = Iterator[generation.TokenEvent | generation.Done]
commands = main.Commands()


@dataclass(frozen=True)
class SamplingOptions:
    """Sampler settings that have options. None is the setting of a new session."""

    temperature: Annotated[float | None, option("--temperature X", "0 (the likeliest) to 2.", SAMPLING)] = None
    top_k: Annotated[int | None, option("--top-k N", "Sample from the N likeliest words; 0: all.", SAMPLING)] = None
    top_p: Annotated[float | None, option("--top-p X", "Words of this total probability.", SAMPLING)] = None
    min_p: Annotated[float | None, option("--min-p X", "Words of this relative probability.", SAMPLING)] = None
    repetition_penalty: Annotated[float | None, option("--repetition-penalty X", PENALTY_HELP, SAMPLING)] = None
    max_tokens: Annotated[int | None, option("--max-tokens N", "Words, or tokens, per text.", SAMPLING)] = None


@dataclass(frozen=True)
class Request:
    """Texts to generate, and the form in which they are printed: text, an object per text, or one per token."""

    loaded: SessionModel
    settings: SamplerSettings
    seeds: Sequence[int]
    as_json: bool = False
    jsonl: bool = False
    raw: bool = False  # plain text as the model wrote it, with control characters

    def print_piece(self, piece: str) -> None:
        """Print a part of a plain text, by default as any terminal can show it: a file may be shown by one later."""
        print(piece if self.raw else formatting.displayable(piece), end="", flush=True)


@commands.command("generate", cls=main.Command, epilog='lotr-tui generate "Where is the Ring?" --as FRODO --to GANDALF')
@main.expand
def generate(
    *,
    prompt: Annotated[str | None, option("PROMPT", "Text to continue; - or nothing: standard input.")] = None,
    run: main.RunsOption = None,
    runs_dir: main.RunsDirOption = None,
    strength: StrengthOption = None,
    adapter: main.AdaptersOption = None,
    steer: Annotated[str | None, option("--steer NAME:X", STEER_HELP, main.MODEL)] = None,
    combination: main.Combination,
    precision: main.PrecisionOption = "auto",
    sampling: SamplingOptions,
    seed: Annotated[int | None, option("--seed N", "Default: a new one, which is printed.", SAMPLING)] = None,
    count: Annotated[int, option("--count N", "Number of texts, with consecutive seeds.", min=1, max=MAX_COUNT)] = 1,
    reply: Annotated[bool, option("--reply", CHAT_HELP)] = False,
    system: Annotated[str | None, option("--system PROMPT", "System prompt of the chat template.")] = None,
    as_: Annotated[str | None, option("--as NAME", "Who says the prompt. Default: a stranger.", DIALOGUE)] = None,
    to: Annotated[str | None, option("--to NAME", TO_HELP, DIALOGUE)] = None,
    best_of: Annotated[int | None, option("--best-of N", BEST_OF_HELP, DIALOGUE, min=1, max=MAX_ANSWERS)] = None,
    scene: Annotated[bool, option("--scene", "Write a scene, which may start with the prompt.", DIALOGUE)] = False,
    cast: Annotated[str | None, option("--cast A,B,...", "Of the scene. Default: everybody.", DIALOGUE)] = None,
    turns: Annotated[
        int | None, option("--turns N", "Of the scene. Default: 8.", DIALOGUE, min=1, max=MAX_TURNS)
    ] = None,
    as_json: Annotated[bool, option("--json", "Print one JSON object per text.")] = False,
    jsonl: main.JsonLinesOption = False,
    raw: Annotated[bool, option("--raw", RAW_HELP)] = False,
) -> None:
    """Continue or answer a prompt, or write a scene. The text goes to stdout, everything else to stderr."""
    given: dict[str, Any] = {name: value for name, value in vars(sampling).items() if value is not None}
    SamplerSettings(**given)  # raises before the model is loaded
    first_seed = random_seed() if seed is None else seed
    check_seed(first_seed)
    check_seed(first_seed + count - 1)
    of_answer = {"--as": as_, "--to": to, "--best-of": best_of, "--reply": reply or None}
    use = next((name for name, value in of_answer.items() if value is not None), "")
    if scene and use:
        raise InvalidInputError(f"{use} belongs to an answer, not to a scene; leave out {use} or --scene")
    for name, value in (("--cast", cast), ("--turns", turns)):
        if value is not None and not scene:
            raise InvalidInputError(f"{name} has no effect without --scene; give both")
    if system is not None and not reply:
        raise InvalidInputError("--system belongs to an answer by a chat template; add --reply, or leave out --system")
    is_conversation = scene or use not in ("", "--reply")
    text = None
    if prompt is not None or not is_conversation:  # a speaker opens a conversation or a scene without a prompt
        text = console.read_text(prompt, "PROMPT", 'lotr-tui generate "Where is Frodo"', MAX_PROMPT_BYTES)

    adapters, announced = [parse_adapter(each) for each in adapter or []], partial(announce, "+".join(run or []))
    loaded = load_session_model(run or [], runs_dir, combination.options(), precision, announced, adapters)
    if not run and loaded.name == LSTM:
        print("note: this is the small LSTM; `lotr-tui fetch smollm2` brings a model that understands", file=sys.stderr)
    if loaded.warning:
        print(printable(f"note: {loaded.name}: {loaded.warning}"), file=sys.stderr)
    if strength is not None:
        loaded = replace(loaded, model=change_strength(loaded.model, loaded.name, strength))
    if steer is not None:
        from lotr_tui.session.steering import Steering  # most calls do not need it

        steering = Steering(steer, loaded)
        loaded = steering()
        print(steering.effect, file=sys.stderr)
    model = loaded.model
    seeds = range(first_seed, first_seed + count)
    request = Request(loaded, replace(loaded.default_settings.sampler, **given), seeds, as_json, jsonl, raw)
    if text is not None and not model.tokenizer.is_open:  # bytes that are not UTF-8 count as unknown symbols
        text = text.encode(errors="surrogateescape").decode(errors="replace")
    if scene:
        write_scene(request, text, cast, turns or 8)
    elif is_conversation or (reply and isinstance(model, dialogue.DialogueModel)):
        answer(request, text, use, as_, to, best_of)
    else:
        continue_text(request, text or "", reply=reply, system=system or "")


def change_strength(model: base.LanguageModel, name: str, strength: float) -> base.LanguageModel:
    """Return a model with its adapter at another strength; without one, --strength raises an InvalidInputError."""
    if not isinstance(model, base.AdaptedModel) or not model.strengths:
        raise InvalidInputError(f"--strength needs an adapter, and {name} has none; leave it out")
    return model.with_strengths({next(iter(model.strengths)): strength})


def announce(name: str, progress: "LoadingProgress") -> None:
    """Print what a large model needs before it is loaded."""
    if progress.tokens_per_second:
        print(f"note: {printable(name)} {formatting.format_needs(progress)} on this machine", file=sys.stderr)


def print_text(
    request: Request,
    events: Events,
    prompt: generation.EncodedPrompt,
    label: Callable[[], str] = str,
    details: Callable[[], Mapping[str, object]] = dict,
    *,
    is_line: bool = False,
) -> int:
    """Print one text while its events come, as text with a summary on stderr or as JSON; return its number of tokens.

    At the end of the text, `label` is called for the beginning of the summary, and `details` for more fields of the
    JSON object. With `is_line`, a text is a whole line, without the space before its first word.
    """
    tokenizer, is_plain = request.loaded.model.tokenizer, not (request.as_json or request.jsonl)
    tokens: list[dict[str, Any]] = []
    first_token_seconds: float | None = None
    for event in events:
        if isinstance(event, generation.TokenEvent):
            first_token_seconds = first_token_seconds or time.perf_counter() - STARTED
            if is_plain:
                piece = event.piece.removeprefix(" ") if event.index == 0 else event.piece
                request.print_piece(piece)
                continue
            tokens.append({name: getattr(event, name) for name in (*FIGURES, "piece")})
            if request.jsonl:
                console.print_json({"event": "token", **tokens.pop()})
        elif request.jsonl:
            console.print_json({"event": "done", **asdict(event), **details()})
        elif request.as_json:
            text = "".join(token["piece"] for token in tokens)
            facts: dict[str, Any] = {"prompt": prompt.text}
            facts |= {"text": text.removeprefix(" " if is_line or not tokenizer.is_open else "")}
            facts |= {**details(), "tokens": tokens, "unknown": prompt.unknown_tokens, "seed": event.seed}
            facts |= {**asdict(request.settings), "run": request.loaded.settings_name}
            facts |= {"strengths": request.loaded.strengths, "reason": event.reason}
            speeds = {"tokens_per_second": event.tokens_per_second, "first_token_seconds": first_token_seconds}
            console.print_json({**facts, **speeds})
        else:
            print(flush=True)
            noun = formatting.token_noun(tokenizer)
            strengths = formatting.describe_strengths(request.loaded.strengths)
            parts = [label(), f"seed {event.seed}", strengths, request.settings.describe()]
            parts += [f"{event.tokens_per_second:,.0f} {noun}s/s", formatting.describe_finish_reason(event, noun)]
            print(" · ".join(filter(None, parts)), file=sys.stderr)
        num_tokens = event.tokens if isinstance(event, generation.Done) else 0
    return num_tokens


def generate_texts(
    request: Request, state: generation.DecoderState, ids: Sequence[int], context: Sequence[int] = ()
) -> Iterator[Events]:
    """Yield the events of the text of each seed, which continues `ids` from `state`. Several texts share batches.

    `context` are the ids of the lines before, if the text is a line of a conversation.
    """
    for start in range(0, len(request.seeds), MAX_BATCH_SIZE):
        seeds = request.seeds[start : start + MAX_BATCH_SIZE]
        begin = partial(generation.TextInProgress, request.loaded.model, ids, request.settings)
        texts = [begin(seed, state, noise_context=context) for seed in seeds]
        if len(texts) == 1:  # its tokens are printed as they come
            yield generation.generate(texts[0])
            continue
        events: list[list[generation.TokenEvent | generation.Done]] = [[] for _ in texts]
        for index, event in chain.from_iterable(generation.generate_batch(texts)):
            events[index].append(event)
        yield from map(iter, events)


def continue_text(request: Request, text: str, *, reply: bool = False, system: str = "") -> None:
    """Print one continuation of a prompt, or with `reply` one answer to it, for each seed.

    A model with a chat template answers by it, and any other model with a line after the prompt. A model with a cast
    reads the lines of a script, of which the last is continued.
    """
    model, tokenizer, chat = request.loaded.model, request.loaded.model.tokenizer, request.loaded.chat
    problem = getattr(getattr(model, "chat", None), "problem", "") or f"{request.loaded.name} has no chat template"
    if system and chat is None:
        raise InvalidInputError(f"--system needs a chat template: {problem}; leave it out")
    prompt = generation.encode_prompt(text, tokenizer)
    console.report_unknown_text(prompt, tokenizer)
    if reply and chat is not None:
        messages = [ChatMessage("system", system.strip()), ChatMessage("user", text.strip())]
        ids = [*chat.encode([message for message in messages if message.text])]
        state = generation.prefill(model, ids, chat_start(model))
    else:
        ids = encode_beginning(model, prompt.text, predicts_eos=request.loaded.predicts_eos)
        if reply:
            ids += tokenizer.encode("\n").tolist() if tokenizer.reads_line_ends else [EOS_ID]
            note = "this model learned each line on its own, in random order: a reply hardly depends on what you say"
            if request.loaded.source:
                note = f"{problem}; it continues the text on the next line"
            elif not request.loaded.predicts_eos:
                note = "this model was trained without line ends, so it rarely answers, or stops"
            if not (request.as_json or request.jsonl):
                print(f"note: {note}", file=sys.stderr)
        state = generation.prefill_prompt(model, ids)
    context_size = getattr(model, "context_size", math.inf)
    penalized_ids = ids[-conversation.MAX_HISTORY_TOKENS if reply and chat is not None else 0 :]  # as in a session
    for events in generate_texts(request, state, penalized_ids):
        num_tokens = len(ids) + 1 + print_text(request, events, prompt)  # with the token that starts a text
        if num_tokens > context_size:
            note = f"the context of {context_size:,} tokens was full, so the model forgot the beginning of the text"
            print(f"note: {note}", file=sys.stderr)


def check_has_cast(model: base.LanguageModel, run: str, use: str) -> dialogue.DialogueModel:
    """Return a model that knows speakers, which the option `use` needs; another one raises an InvalidInputError."""
    if isinstance(model, dialogue.DialogueModel):
        return model
    raise InvalidInputError(
        f"{use} needs a model that knows speakers, and {shell_word(run)} does not; "
        "train one: lotr-tui train --mode dialogue"
    )


def _read_prompt(
    text: str | None, model: dialogue.DialogueModel, speaker: str
) -> tuple[list[scripts.Turn], generation.EncodedPrompt]:
    """Return the lines of a prompt and its tokens; a prompt of None has none. `speaker` says a line without a name."""
    if text is None:
        return [], generation.EncodedPrompt("", (), ())
    turns = parse_script(text, model.cast, speaker)
    encoded = generation.encode_prompt(" ".join(turn.text for turn in turns), model.tokenizer)
    return turns, replace(encoded, text=text)


def answer(
    request: Request, text: str | None, use: str, speaking_as: str | None, to: str | None, best_of: int | None
) -> None:
    """Print an answer to the prompt for each seed, or the best of several, which have consecutive seeds.

    Without a prompt, it is the first line of a conversation. Names are as they were typed: None is a stranger for who
    says the prompt, and the likeliest for who answers. `use` is the option that needs a model with a cast.
    """
    model = check_has_cast(request.loaded.model, request.loaded.settings_name, use)
    listener = read_name("as", speaking_as or "anyone", model.cast) or None
    name = read_name("to", to or "anyone", model.cast) or None
    if name is not None and name == listener:
        raise InvalidInputError(f"--as and --to are both {name}; name two speakers")
    turns, prompt = _read_prompt(text, model, listener or speakers.STRANGER)
    if not turns and (best_of or 1) > 1:
        raise InvalidInputError(f"--best-of {best_of} compares answers to a PROMPT; give one")
    num_answers = best_of or default_num_answers(model) if turns else 1
    listener = listener or (turns[-1].speaker if turns else None)
    state = conversation.read_turns(model, turns, generation.prefill(model, ()))  # in two parts, as a session does
    likeliest = conversation.next_speaker_probs(model, state)
    if name is None:
        names = answering_cast(model.cast, listener or "", turns[-1].text if turns else "")
        likeliest = conversation.answerer_probs(model, state, names)
        name = likeliest[0].name
    share = next((each.prob for each in likeliest if each.name == name), None)
    history = scripts.encode_turns(model.tokenizer, turns)[-conversation.MAX_HISTORY_TOKENS :]
    if not (request.as_json or request.jsonl):
        if to is None and share is not None:
            print(f"{name} answers, the likeliest speaker ({formatting.format_percent(share)})", file=sys.stderr)
        for each in (listener, name):
            if each != speakers.STRANGER and (note := describe_unknown_name(each or "", model.cast)):
                print(f"note: {note}", file=sys.stderr)
    candidates: list[Answer] = []

    def best_answer(seed: int) -> Events:
        line = conversation.begin_turn(model, state, name, request.settings, seed, history)
        for event in stream_answers(line, num_answers):
            if isinstance(event, generation.TokenEvent):
                yield event
            elif isinstance(event, list):
                candidates[:] = event
                yield event[0].done

    def label() -> str:
        return f"{name} · best of {num_answers}, score {candidates[0].score:+.2f}" if candidates else name

    def details() -> dict[str, object]:
        fields = ("text", "score", "log_prob", "log_prob_alone", "is_repetition")
        rows = [
            {**{field: getattr(each, field) for field in fields}, "seed": each.done.seed, "reason": each.done.reason}
            for each in candidates
        ]
        facts = {"speaker": name, "speaking_as": listener, "probability": share}
        return {**facts, "score": candidates[0].score if candidates else None, "candidates": rows}

    if num_answers == 1:
        head = scripts.encode_speaker(model.tokenizer, name)
        texts = generate_texts(request, generation.prefill(model, head, state), (*history, *head), history)
    else:
        texts = (best_answer(request.seeds[0] + index * num_answers) for index in range(len(request.seeds)))
    for events in texts:
        print_text(request, events, prompt, label, details, is_line=True)


def write_scene(request: Request, prompt: str | None, cast: str | None, num_turns: int) -> None:
    """Print one scene for each seed, which begins with the lines of the prompt.

    JSON has one object per scene or, line by line, per turn. An interrupted scene is printed as far as it is.
    """
    model = check_has_cast(request.loaded.model, request.loaded.settings_name, "--scene")
    members = None
    if cast is not None:
        members = tuple(speakers.find_speaker(name.strip(), model.cast) for name in cast.split(","))
        if twice := next((member for member in members if members.count(member) > 1), ""):
            raise InvalidInputError(f"--cast names {twice} twice; name every speaker once")
        if len(members) < 2:
            raise InvalidInputError(f"--cast has only {members[0]}, but a scene needs two speakers; add one")
    given, encoded = _read_prompt(prompt, model, speakers.STRANGER)
    state, history = conversation.read_turns(model, given), scripts.encode_turns(model.tokenizer, given)
    is_plain = not (request.as_json or request.jsonl)
    for number, seed in enumerate(request.seeds):
        turns: list[dict[str, Any]] = []
        tokens: list[generation.TokenEvent] = []
        seconds = 0.0
        before = ("\n" if number else "") + "".join(map(scripts.turn_text, given))
        with _defer_interrupt() as is_interrupted:
            for event in conversation.generate_scene(
                model, members, num_turns, request.settings, seed, state, is_interrupted, history=history
            ):
                if isinstance(event, conversation.TurnStart):
                    start, tokens = event, []
                    piece, before = before + f"{speakers.display_name(event.speaker)}:", ""
                elif isinstance(event, generation.TokenEvent):
                    tokens.append(event)
                    seconds += event.seconds
                    piece = _LINE_BREAK.sub(" ", event.piece)
                else:
                    piece = "\n"
                    turns.append(
                        {
                            "turn": len(turns),
                            "speaker": start.speaker,
                            "text": "".join(token.piece for token in tokens).strip(),
                            "probability": start.prob,
                            "speakers": {each.name: each.prob for each in start.candidates[:MAX_LISTED_SPEAKERS]},
                            "seed": event.seed,
                            "tokens": event.tokens,
                            "logprob": sum(token.logprob for token in tokens),
                            "reason": event.reason,
                        }
                    )
                    if request.jsonl:
                        console.print_json({"scene": number, **turns[-1]})
                if is_plain:
                    request.print_piece(piece)
            speed = sum(turn["tokens"] for turn in turns) / seconds if seconds else 0.0
            if request.as_json:
                facts: dict[str, Any] = {"prompt": encoded.text, "given": [asdict(turn) for turn in given]}
                facts |= {"turns": turns, "seed": seed, **asdict(request.settings), "run": request.loaded.settings_name}
                facts |= {"strengths": request.loaded.strengths, "tokens_per_second": speed}
                console.print_json({**facts, "reason": "cancelled" if is_interrupted() else "length"})
            elif is_plain:
                noun = formatting.token_noun(model.tokenizer)
                strengths = formatting.describe_strengths(request.loaded.strengths)
                parts = [f"seed {seed}", strengths, request.settings.describe(), f"{speed:,.0f} {noun}s/s"]
                print(" · ".join(filter(None, [*parts, formatting.plural(len(turns), "turn")])), file=sys.stderr)


@contextmanager
def _defer_interrupt() -> Iterator[Cancellation]:
    """Defer ctrl+c to the end of the block, which gets a cancellation that is set once ctrl+c was pressed.

    A `KeyboardInterrupt` inside a write could print the text twice, so it is raised after the block, or by a second
    ctrl+c at once. Where SIGINT is ignored, as in the background of a shell, it stays ignored.
    """
    cancellation, previous = Cancellation(), signal.getsignal(signal.SIGINT)

    def cancel(signal_number: int, frame: Any) -> None:
        if cancellation():
            signal.default_int_handler(signal_number, frame)
        cancellation.set()

    if previous is signal.default_int_handler:
        signal.signal(signal.SIGINT, cancel)
    try:
        yield cancellation
    finally:
        signal.signal(signal.SIGINT, previous)
    if cancellation():
        raise KeyboardInterrupt
