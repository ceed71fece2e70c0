"""Texts that a model reads before its answer to a request of the API, and the removal of a chat's oldest messages."""

from collections.abc import Mapping, Sequence
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
TEMPLATE_TOKENS = 32  # of a chat template before and after all messages
MESSAGE_TOKENS = 4  # of a chat template around the role and the text of a message


class Prompt(NamedTuple):
    context: NextTokenContext
    num_dropped: int = 0  # messages at the beginning of a chat that are left out


def read_prompts(session_model: SessionModel, asked: Asked, speaker: str, said_by: Mapping[str, str]) -> list[Prompt]:
    """Return the texts to read before the answers of `speaker`, or of the likeliest one if that is empty.

    `said_by` has the speakers of earlier answers. A text that the model cannot read raises an InvalidInputError.
    """
    name = session_model.name
    model = session_model.model
    cast = session_model.cast
    if asked.strength is not None:
        if not isinstance(model, AdaptedModel) or not model.strengths:
            raise InvalidInputError(f"{name} has no adapter; leave out strength")
        model = model.with_strengths(dict.fromkeys(model.strengths, asked.strength))
    size: int = getattr(getattr(model, "model", model), "context_size", DEFAULT_CONTEXT_SIZE)
    prompts = list[Prompt]()
    if not asked.messages:
        for text in asked.prompt:
            _check_size(_count_tokens(text, model.tokenizer, size), size)
            encode_prompt(text, model.tokenizer)  # raises if the model knows no word of it
            ids = encode_beginning(model, text, predicts_eos=session_model.predicts_eos, speaker=speaker)
            prompts.append(Prompt(NextTokenContext(model, ids, reopens_last_word=True)))
    elif cast:
        said = [message for message in asked.messages if message.template_role != "system"]
        instructions = [message.text for message in asked.messages if message.template_role == "system"]
        if instructions and not speaker:  # a name says who answers, as in the chat template of an exported model
            speaker, _ = read_label(f"{' '.join(instructions[-1].split())}:", cast)
        kept = _slide(said, asked.sampler.max_tokens, model.tokenizer, size)
        prompts.append(Prompt(_read_script(model, cast, kept, speaker, said_by), len(said) - len(kept)))
    elif session_model.chat is not None:
        kept = _slide(asked.messages, asked.sampler.max_tokens, model.tokenizer, size)
        joined = join_messages([ChatMessage(each.template_role, each.text) for each in kept])
        if not joined:
            raise InvalidInputError("the messages are empty; give at least one text")
        context = NextTokenContext(model, [*session_model.chat.encode(joined)], is_chat=True)
        prompts.append(Prompt(context, len(asked.messages) - len(kept)))
    else:
        raise InvalidInputError(f"{name} has neither a cast nor a chat template; use /v1/completions")
    for prompt in prompts:
        _check_size(len(prompt.context.ids), size)
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


# Length


def _slide(messages: Sequence[Message], max_tokens: int, tokenizer: Tokenizer, size: int) -> Sequence[Message]:
    """Return the latest messages that leave room for an answer in a context of `size` tokens, and all system messages.

    Tokens are counted from the last message on, so that a long history is not tokenized.
    """
    room = min(max_tokens + TEMPLATE_TOKENS, size // 2)
    start = len(messages) - 1
    is_system = [each.template_role == "system" for each in messages]
    needed = [each.text for index, each in enumerate(messages) if is_system[index] or index == start]
    num_tokens = _count_tokens("\n".join(needed), tokenizer, size)
    _check_size(num_tokens, size)
    for index in reversed(range(start)):
        if not is_system[index]:
            label = messages[index].name or messages[index].role
            num_tokens += MESSAGE_TOKENS + _count_tokens(f"{label}: {messages[index].text}", tokenizer, size)
        if num_tokens + room > size:
            break
        start = index
    while 0 < start < len(messages) - 1 and messages[start].role == "assistant":  # templates expect a question first
        start += 1
    return [each for index, each in enumerate(messages) if is_system[index] or index >= start]


def _check_size(num_tokens: int, size: int) -> None:
    if num_tokens >= size:
        raise InvalidInputError(f"the text exceeds the context of {size:,} tokens; send less")


def _count_tokens(text: str, tokenizer: Tokenizer, limit: int) -> int:
    """Return the number of tokens of a text, or a lower bound from `limit` on, without tokenizing all of it."""
    num_tokens = 0
    for start in range(0, len(text), PART_CHARACTERS):
        num_tokens += len(tokenizer.encode(text[start : start + PART_CHARACTERS]))
        if len(text) > PART_CHARACTERS:
            num_tokens -= min(num_tokens, MAX_CUT_TOKENS)
        if num_tokens >= limit:
            break
    return num_tokens
