"""Texts that a model reads before its answer to a request of the API, and what is left out of a long chat."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from engine.analysis.tokenized_text import read_label
from engine.data import speakers
from engine.data.scripts import Turn, encode_turns
from engine.data.tokenizers import Tokenizer
from engine.errors import InvalidInputError
from engine.generation.generate import encode_prompt
from engine.models.base import AdaptedModel, LanguageModel
from engine.models.pretrained.chat import ChatMessage
from lotr_tui.serve.api_request import Asked, Message
from lotr_tui.session.cast import answering_cast, read_name
from lotr_tui.session.read_text import NextTokenContext
from lotr_tui.session.reply import encode_beginning, join_messages, parse_script
from lotr_tui.session.session_model import SessionModel

DEFAULT_CONTEXT_SIZE = 32_768  # tokens that a model without a limit reads, such as an LSTM
PART_CHARACTERS = 4096  # of a long text, which are counted at once
MAX_CUT_TOKENS = 8  # by which two parts of a text may have more tokens than the whole


class Prompt(NamedTuple):
    context: NextTokenContext
    num_dropped: int = 0  # messages at the beginning of a chat that are left out


def read_prompts(session_model: SessionModel, asked: Asked, speaker: str, said_by: Mapping[str, str]) -> list[Prompt]:
    """Return the texts to read before the answers of `speaker`, or of the likeliest one if that is empty.

    `said_by` has the speakers of earlier answers. A text that the model cannot read raises an InvalidInputError.
    """
    name, model, cast = session_model.name, session_model.model, session_model.cast
    chat = session_model.chat
    if asked.strength is not None:
        if not isinstance(model, AdaptedModel) or not model.strengths:
            raise InvalidInputError(f"{name} has no adapter; leave out strength")
        model = model.with_strengths(dict.fromkeys(model.strengths, asked.strength))
    size: int = getattr(getattr(model, "model", model), "context_size", DEFAULT_CONTEXT_SIZE)

    def read_script(messages: Sequence[Message]) -> NextTokenContext:
        return _read_script(model, cast, messages, speaker, said_by)

    def read_chat(messages: Sequence[Message]) -> NextTokenContext:
        assert chat is not None, "the model has a chat template"
        return NextTokenContext(model, [*chat.encode(_template_messages(messages))], is_chat=True)

    if not asked.messages:
        prompts = list[Prompt]()
        for text in asked.prompts:
            check_length(text, model.tokenizer, size)
            encode_prompt(text, model.tokenizer)  # raises if the model knows no word of it
            ids = encode_beginning(model, text, predicts_eos=session_model.predicts_eos, speaker=speaker)
            prompts.append(Prompt(NextTokenContext(model, ids, reopens_last_word=True)))
    elif cast:
        instructions = [message.text for message in asked.messages if message.is_system]
        if instructions and not speaker:  # a name says who answers, as in the chat template of an exported model
            speaker, _ = read_label(f"{' '.join(instructions[-1].split())}:", cast)
        said = tuple(message for message in asked.messages if not message.is_system)
        prompts = [_slide(replace(asked, messages=said), model.tokenizer, size, read_script)]
    elif chat is not None:
        prompts = [_slide(asked, model.tokenizer, size, read_chat)]
    else:
        raise InvalidInputError(f"{name} has neither a cast nor a chat template; use /v1/completions")
    for prompt in prompts:
        if len(prompt.context.ids) >= size:
            raise _too_long(size)
    return prompts


def _read_script(
    model: LanguageModel, cast: Sequence[str], messages: Sequence[Message], speaker: str, said_by: Mapping[str, str]
) -> NextTokenContext:
    lines = list[Turn]()
    for message in messages:
        name = read_name("as", message.name or "anyone", cast) or speakers.STRANGER
        if message.role == "assistant" and not message.name:
            name = said_by.get(message.text.strip()) or speaker or speakers.first_to_answer(cast)
        lines += parse_script(message.text, cast, name, is_open=message is messages[-1])
    if lines and not lines[-1].text:  # "Gandalf:" says who answers
        speaker = lines.pop().speaker
    last = lines[-1] if lines else Turn("", "")
    candidates = answering_cast(cast, last.speaker, last.text)
    ids = [*encode_turns(model.tokenizer, lines)]
    return NextTokenContext(model, ids, candidates=candidates, speaker=speaker)


def _template_messages(messages: Sequence[Message]) -> list[ChatMessage]:
    said = list[ChatMessage]()
    for message in messages:
        if message.is_system:
            said.append(ChatMessage("system", message.text))
        elif message.role == "assistant":
            said.append(ChatMessage("assistant", message.text))
        else:  # what a tool has found is told to the model, which knows no tools
            said.append(ChatMessage("user", message.text))
    joined = join_messages(said)
    if not joined:
        raise InvalidInputError("the messages are empty; give at least one text")
    return joined


# Length


def _slide(
    asked: Asked, tokenizer: Tokenizer, size: int, read: Callable[[Sequence[Message]], NextTokenContext]
) -> Prompt:
    """Read a chat without its oldest messages, so that the answer has room in a context of `size` tokens.

    System messages and the last message are kept.
    """
    messages = asked.messages
    last = len(messages) - 1
    limit = size - min(asked.sampler.max_tokens, size // 2)

    def keep(start: int) -> list[Message]:
        return [each for index, each in enumerate(messages) if index >= start or each.is_system]

    @cache
    def read_from(start: int) -> NextTokenContext:
        return read(keep(start))

    def is_short(start: int) -> bool:
        return len(read_from(start).ids) < limit

    check_length("\n".join(each.text for each in keep(last)), tokenizer, size)
    # Counted from the end, so that a long history is not tokenized.
    start, num_tokens = len(messages), 0
    while start > 0 and num_tokens < limit:
        start -= 1
        num_tokens += 1 + _count_tokens(messages[start].text, tokenizer, limit)
    if not is_short(start):
        start += bisect_left(range(start, last), True, key=is_short)
    while 0 < start < last and messages[start].role == "assistant":  # templates expect a question first
        start += 1
    return Prompt(read_from(start), len(messages) - len(keep(start)))


def check_length(text: str, tokenizer: Tokenizer, size: int) -> None:
    """Raise an InvalidInputError if a text has more than `size` tokens, without tokenizing all of it."""
    if len(text) > size and _count_tokens(text, tokenizer, size) > size:
        raise _too_long(size)


def _count_tokens(text: str, tokenizer: Tokenizer, limit: int) -> int:
    """Return the number of tokens of a text, or a lower bound above `limit`."""
    num_tokens = 0
    for start in range(0, len(text), PART_CHARACTERS):
        num_tokens += len(tokenizer.encode(text[start : start + PART_CHARACTERS]))
        if len(text) > PART_CHARACTERS:
            num_tokens -= min(num_tokens, MAX_CUT_TOKENS)
        if num_tokens > limit:
            break
    return num_tokens


def _too_long(size: int) -> InvalidInputError:
    return InvalidInputError(f"the text exceeds the context of {size:,} tokens; send less")
