"""The API for other programs, used by the real `openai` and `llm`: texts, figures, refusals, and clients that leave."""

import asyncio
import json
import math
import re
import socket
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import accumulate
from typing import ClassVar

import pytest

pytest.importorskip("textual_serve", reason="needs textual-serve; pip install 'lotr-tui[serve]'")
pytest.importorskip("openai", reason="needs openai; pip install openai")

import numpy as np
import openai
from aiohttp.test_utils import TestClient, TestServer

from engine.data.scripts import Turn, encode_speaker, encode_turns
from engine.generation.generate import TextInProgress, generate, prefill
from engine.generation.turns import answerer_probs, begin_turn
from engine.models.pretrained.chat import ChatMessage
from lotr_tui.serve import api, api_request
from lotr_tui.serve.access import AccessGuard
from lotr_tui.serve.api import MAX_BODY_BYTES, ApiServer
from tests.support.browser import ServeProcess
from tests.support.dialogues import dialogue_session_model
from tests.support.sampling import said_text_of
from tests.support.serving import run_as_command
from tests.support.slow_models import FakeSlowModel, slow_session_model

QUESTION = {"role": "user", "content": "Where is the Ring?"}
MODEL = dialogue_session_model(end_bias=-3.0)


@asynccontextmanager
async def serve(session_model=MODEL, origins=()):
    """Serve a model, and yield the real client of it and a plain one, which has the token too."""
    guard = AccessGuard()
    application = ApiServer(session_model, guard, origins).make_application()
    headers = {"Authorization": f"Bearer {guard.token}"}
    async with TestClient(TestServer(application), headers=headers) as plain:
        url = str(plain.make_url("/v1"))
        async with openai.AsyncOpenAI(base_url=url, api_key=guard.token, max_retries=0) as client:
            yield client, plain


def line_of(lines, speaker, seed):
    """Return the line that the engine writes after the lines of a script."""
    model, sampler = MODEL.model, MODEL.default_settings.sampler
    ids = encode_turns(model.tokenizer, lines)
    return said_text_of(generate(begin_turn(model, prefill(model, ids), speaker, sampler, seed, ids))).strip()


async def test_the_speakers_are_models_and_answer_with_a_line_streamed_or_not():
    async with serve() as (client, _):
        names = [model.id async for model in client.models.list()]
        assert names == ["scenes", "scenes/frodo", "scenes/gandalf", "scenes/gollum"]
        assert (await client.models.retrieve("scenes/gollum")).id == "scenes/gollum"
        with pytest.raises(openai.NotFoundError, match="there is no model 'scenes/sam'"):
            await client.models.retrieve("scenes/sam")
        asked = {"model": "scenes/gollum", "messages": [QUESTION], "seed": 5}
        answer = await client.chat.completions.create(**asked)
        line = line_of([Turn("STRANGER", QUESTION["content"])], "GOLLUM", 5)
        assert [(each.message.role, each.message.content) for each in answer.choices] == [("assistant", line)]
        said, reasons = "", []
        options = {"include_usage": True}
        async for chunk in await client.chat.completions.create(**asked, stream=True, stream_options=options):
            for choice in chunk.choices:
                said += choice.delta.content or ""
                reasons.append(choice.finish_reason)
        assert said == line
        assert reasons == [*[None] * (len(reasons) - 1), answer.choices[0].finish_reason]
        assert chunk.usage == answer.usage


async def test_a_conversation_is_a_script_in_which_the_likeliest_speaker_answers():
    lines = [Turn("FRODO", "Where is the Ring?"), Turn("GOLLUM", "We has it"), Turn("FRODO", "Give it to me!")]
    messages = [
        {"role": "user", "name": "Frodo", "content": "Where is the Ring?"},
        {"role": "assistant", "content": "Gollum: We has it"},
        {"role": "user", "content": [{"type": "text", "text": "FRODO: Give it"}, {"type": "text", "text": "to me!"}]},
    ]
    state = prefill(MODEL.model, encode_turns(MODEL.model.tokenizer, lines))
    name = answerer_probs(MODEL.model, state, ("GANDALF", "GOLLUM"))[0].name
    async with serve() as (client, _):
        answer = (await client.chat.completions.create(model="scenes", messages=messages, seed=2)).choices[0].message
        assert (answer.content, answer.name) == (line_of(lines, name, 2), name.capitalize())
        said = {"role": "assistant", "content": answer.content, "name": answer.name}
        answered = [*messages, said, QUESTION]
        follows = await client.chat.completions.create(model="scenes/frodo", messages=answered, seed=2)
    lines += [Turn(name, answer.content), Turn("STRANGER", QUESTION["content"])]
    assert follows.choices[0].message.content == line_of(lines, "FRODO", 2)


async def test_a_prompt_that_ends_in_a_name_is_continued_by_that_speaker():
    lines = [Turn("STRANGER", "Where is the Ring?")]
    async with serve() as (client, _):
        prompt = "Stranger: Where is the Ring?\nGollum:"
        text = (await client.completions.create(model="scenes", prompt=prompt, seed=3)).choices[0].text
        messages = [{"role": "user", "content": "Where is the Ring?\nGollum:"}]
        answer = await client.chat.completions.create(model="scenes", messages=messages, seed=3)
    assert text.startswith(" ")
    assert answer.choices[0].message.name == "Gollum"
    assert answer.choices[0].message.content == line_of(lines, "GOLLUM", 3)


async def test_a_system_message_to_a_cast_says_who_answers_or_nothing():
    lines = [Turn("STRANGER", QUESTION["content"])]
    async with serve() as (client, _):
        for role, text, speaker in (("system", "Gollum", "GOLLUM"), ("developer", "You are a helpful assistant.", "")):
            messages = [{"role": role, "content": text}, QUESTION]
            answer = (await client.chat.completions.create(model="scenes", messages=messages, seed=5)).choices[0]
            assert speaker in ("", answer.message.name.upper())
            assert answer.message.content == line_of(lines, answer.message.name.upper(), 5)


async def test_log_probabilities_are_those_of_the_model():
    tokenizer, sampler = MODEL.model.tokenizer, replace(MODEL.default_settings.sampler, max_tokens=8)
    ids = [*encode_speaker(tokenizer, "GANDALF"), *tokenizer.encode(" You shall not").tolist()]
    *tokens, _ = generate(TextInProgress(MODEL.model, ids, sampler, 1))
    asked = {"model": "scenes", "seed": 1, "max_tokens": 8}
    async with serve() as (client, _):
        text = (await client.completions.create(prompt="Gandalf: You shall not", logprobs=3, **asked)).choices[0]
        chat = await client.chat.completions.create(messages=[QUESTION], logprobs=True, top_logprobs=2, **asked)
    figures = text.logprobs
    assert text.text == "".join(token.piece for token in tokens)
    assert figures.text_offset == [*accumulate((len(token.piece) for token in tokens), initial=0)][:-1]
    assert figures.tokens == [token.text for token in tokens]
    assert figures.token_logprobs == pytest.approx([token.logprob for token in tokens])
    for top, token in zip(figures.top_logprobs, tokens, strict=True):
        assert top == pytest.approx({name: math.log(prob) for name, prob in token.top_tokens[:3]})
    entries = chat.choices[0].logprobs.content
    assert len(entries) == chat.usage.completion_tokens
    assert all(entry.logprob <= entry.top_logprobs[0].logprob and len(entry.top_logprobs) == 2 for entry in entries)


async def test_tokens_have_their_text_and_the_bytes_that_they_add_also_inside_of_a_character():
    model = FakeSlowModel()
    model.prefer("\N{MAGE}\n", 40.0)
    asked = {"model": "mage", "seed": 1, "max_tokens": 40, "temperature": 1.0}
    async with serve(slow_session_model(model, "mage")) as (client, _):
        chat = await client.chat.completions.create(messages=[QUESTION], logprobs=True, top_logprobs=2, **asked)
        text = await client.completions.create(prompt="Where", logprobs=2, **asked)
    tokens = chat.choices[0].logprobs.content
    written = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    assert written.startswith(chat.choices[0].message.content)
    assert {"\n", "\\xf0"} <= {token.token for token in tokens}
    assert {(token.token, *token.bytes) for token in tokens} >= {("\n", 10), ("\\xf0", 240)}
    assert {"\n", "\\xf0"} <= set(text.choices[0].logprobs.tokens)


async def test_a_text_ends_before_the_first_stop_string_wherever_the_tokens_are_cut():
    asked = {"model": "scenes", "prompt": "Where is the Ring?", "seed": 4, "temperature": 1.0, "max_tokens": 30}
    async with serve() as (client, _):
        whole = (await client.completions.create(**asked)).choices[0].text
        rng = np.random.default_rng(0)
        for start in rng.integers(0, len(whole) - 8, 12).tolist():
            stop = whole[start : start + int(rng.integers(1, 8))]
            stream = await client.completions.create(**asked, stop=["not in the text", stop], stream=True)
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].text for chunk in chunks) == whole[: whole.index(stop)], stop
            assert chunks[-1].choices[0].finish_reason == "stop"
        never = await client.completions.create(**asked, stop=whole + "x")
        assert (never.choices[0].text, never.choices[0].finish_reason) == (whole, "length")


async def test_a_model_with_a_chat_template_answers_by_it():
    model = FakeSlowModel()
    async with serve(slow_session_model(model)) as (client, _):
        messages = [
            {"role": "developer", "content": "You are Gandalf."},
            {"role": "user", "content": "Look it up."},
            {"role": "assistant", "content": None},
            {"role": "tool", "content": "It is in Mordor.", "tool_call_id": "1"},
            {"role": "assistant", "content": "In Mordor."},
            QUESTION,
        ]
        await client.chat.completions.create(model="Slowpoke-1B-Instruct", messages=messages, max_tokens=3)
    assert [(message.role, message.text) for message in model.chat.encoded[-1]] == [
        ("system", "You are Gandalf."),
        ("user", "Look it up.\nIt is in Mordor."),
        ("assistant", "In Mordor."),
        ("user", QUESTION["content"]),
    ]


async def test_a_chat_longer_than_the_context_loses_its_oldest_turns_and_says_how_many(monkeypatch):
    model = FakeSlowModel(context_size=200)
    history = [{"role": role, "content": f"{number} rings"} for number in range(200) for role in ("user", "assistant")]
    messages = [{"role": "system", "content": "You are Gandalf."}, *history, QUESTION]
    async with serve(slow_session_model(model, "small")) as (client, plain):
        answer = await client.chat.completions.create(model="small", messages=messages, max_tokens=40)
        short = await client.chat.completions.create(model="small", messages=[QUESTION], max_tokens=2)
    num_dropped = answer.model_extra["lotr_tui"]["dropped_messages"]
    kept = [messages[0], *history[num_dropped:], QUESTION]
    assert kept[1]["role"] == "user"
    ids = model.chat.encode([ChatMessage(message["role"], message["content"]) for message in kept])
    assert len(ids) == answer.usage.prompt_tokens
    assert 110 < answer.usage.prompt_tokens <= 160  # the answer has room
    assert "lotr_tui" not in short.model_extra
    monkeypatch.setattr(api_request, "DEFAULT_CONTEXT_SIZE", 200)
    async with serve() as (client, plain):
        asked = {"model": "scenes/gollum", "messages": messages, "max_tokens": 40, "seed": 5, "stream": True}
        response = await plain.post("/v1/chat/completions", json=asked)
        first = (await response.content.readline()).removeprefix(b"data: ")
        num_dropped = json.loads(first)["lotr_tui"]["dropped_messages"]
        assert 300 < num_dropped < 400
        asked["stream"] = False
        whole = await client.chat.completions.create(**asked)
        same = await client.chat.completions.create(**asked | {"messages": [*history[num_dropped:], QUESTION]})
    assert whole.choices[0].message.content == same.choices[0].message.content
    assert whole.model_extra["lotr_tui"]["dropped_messages"] == num_dropped


async def test_pages_of_allowed_origins_only_may_use_the_api():
    page, other = "http://localhost:3000", "http://localhost:3001"
    async with serve(origins=[page]) as (_, plain):
        for origin, allowed in ((page, page), (other, None)):
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST", "Authorization": ""}
            preflight = await plain.options("/v1/chat/completions", headers=headers)
            assert preflight.status == (204 if allowed else 401)
            assert ("authorization" in preflight.headers.get("Access-Control-Allow-Headers", "")) is bool(allowed)
            body = {"model": "scenes", "prompt": "Where is", "max_tokens": 1, "stream": True}
            for status, asked in ((200, body), (404, body | {"model": "x"})):
                response = await plain.post("/v1/completions", json=asked, headers={"Origin": origin})
                assert response.status == status
                assert response.headers.get("Access-Control-Allow-Origin") == allowed
        refused = await plain.get("/v1/models", headers={"Origin": page, "Authorization": ""})
        assert refused.status == 401


async def test_a_strength_is_that_of_all_adapters():
    asked = []

    class AdaptedModel(FakeSlowModel):
        strengths: ClassVar = {"middle-earth": 1.0, "romeo": 0.5}
        read_last_again = FakeSlowModel.advance

        def with_strengths(self, strengths):
            asked.append(strengths)
            return self

    async with serve(slow_session_model(AdaptedModel(), "adapted")) as (client, _):
        await client.completions.create(model="adapted", prompt="Where is", extra_body={"strength": 0.25})
    assert asked == [{"middle-earth": 0.25, "romeo": 0.25}]


async def test_each_prompt_of_a_list_is_continued_in_a_choice_of_its_own():
    prompts, asked = ["Where is the Ring?", "Gandalf: You shall not"], {"model": "scenes", "seed": 3, "max_tokens": 5}
    async with serve() as (client, _):
        alone = [await client.completions.create(prompt=prompt, **asked) for prompt in prompts]
        both = await client.completions.create(prompt=prompts, **asked)
        texts = ["", ""]
        async for chunk in await client.completions.create(prompt=prompts, stream=True, **asked):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        with pytest.raises(openai.BadRequestError, match="empty"):
            await client.completions.create(prompt=[""], **asked)
    assert [choice.text for choice in both.choices] == texts == [each.choices[0].text for each in alone]
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.usage.total_tokens == sum(each.usage.total_tokens for each in alone)


BAD_FIELDS = [
    ({"model": "gpt-4"}, "there is no model 'gpt-4', see /v1/models"),
    ({"model": "scenes/gandolf"}, "did you mean scenes/gandalf?"),
    ({"model": None}, "missing required field model"),
    ({"temperature": "hot"}, "temperature: expected float, got str"),
    ({"temperature": 3}, "temperature 3"),
    ({"model": "scenes/sauron"}, "see /v1/models."),
    ({"strength": 2}, "strength '2' is out of range; use 0 (the model as it came) to 1.5; 1 is as trained"),
    ({"strenght": 1}, "unknown field 'strenght'; did you mean strength?"),
    ({"temprature": 1}, "unknown field 'temprature'; did you mean temperature?"),
    ({"strength": 1}, "scenes has no adapter; leave out strength"),
    ({"max_tokens": 0}, "max-tokens 0 is out of range"),
    ({"seed": -1}, "seed -1 is out of range"),
    ({"n": 2}, "n is not supported; leave it out"),
    ({"stop": [""]}, "stop[0]: expected str of length >= 1"),
    ({"top_logprobs": 21}, "top_logprobs: expected int <= 20"),
    ({"frequency_penalty": 0.5}, "frequency_penalty is not supported; leave it out"),
    ({"tools": [{"type": "function"}]}, "tools is not supported; leave it out"),
    ({"messages": []}, "messages is missing or empty"),
    ({"messages": "Hello"}, "messages: expected array, got str"),
    ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role: invalid enum value 'function'"),
    ({f"field{number}": 1 for number in range(100)}, "the request has 105 fields; send at most 100"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "'image_url'"),
    ({"messages": [{"role": "user", "content": "Gandalf:\nFrodo: Yes"}]}, "the line of GANDALF is empty"),
    ({"messages": [{"role": "user", "content": "x", "name": "?"}]}, "'?' is not a name"),
]


async def test_a_bad_request_is_refused_in_one_line():
    async with serve() as (client, plain):
        for fields, message in BAD_FIELDS:
            body = {
                "model": "scenes",
                "messages": [QUESTION],
                "tool_choice": "none",
                "store": False,
                "user": "x",
            } | fields
            response = await plain.post("/v1/chat/completions", json=body)
            error = (await response.json())["error"]
            assert response.status == (404 if (fields.get("model") or "scenes") != "scenes" else 400), fields
            assert message in error["message"]
            assert error["message"].isprintable()
            assert error["type"] == "invalid_request_error"
            assert error["code"] == ("model_not_found" if response.status == 404 else None)
        surrogate = b'{"model": "scenes", "prompt": "\\ud800"}'
        for body in (b"", b"{", b"[" * 100_000, b"[]", b"\xff", surrogate, b" " * (MAX_BODY_BYTES + 1)):
            response = await plain.post("/v1/completions", data=body)
            assert response.status == (413 if len(body) > MAX_BODY_BYTES else 400), body[:9]
            assert len((await response.json())["error"]["message"].splitlines()) == 1
        for path, status in (("completions", 405), ("engines", 404)):
            response = await plain.get(f"/v1/{path}")
            error = (await response.json())["error"]
            assert (response.status, error["type"], error["code"]) == (status, "invalid_request_error", None)
            assert path in error["message"]
        with pytest.raises(openai.AuthenticationError, match="wrong token; use the URL and the token"):
            await client.with_options(api_key="wrong").models.list()
        in_url = await plain.get("/v1/models", params={"token": client.api_key}, headers={"Authorization": ""})
        assert in_url.status == 401
        assert (await client.models.list()).data  # the server is well


async def test_a_prompt_longer_than_the_context_and_a_chat_without_a_form_are_refused():
    async with serve(slow_session_model(FakeSlowModel(has_chat=False, context_size=5), "small")) as (client, _):
        with pytest.raises(openai.BadRequestError, match="exceeds the context of 5 tokens; send less"):
            await client.completions.create(model="small", prompt="Where is the Ring? " * 9)
        with pytest.raises(openai.BadRequestError, match="neither a cast nor a chat template"):
            await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Ho"}])


async def test_long_texts_are_refused_before_they_are_tokenized_whole_and_requests_one_at_a_time():
    model, lock, num_read = FakeSlowModel(context_size=60), threading.Lock(), []
    encode = model.tokenizer.encode

    def count(text):
        assert lock.acquire(blocking=False), "two texts are tokenized at once"
        num_read.append(len(text))
        ids = encode(text)
        lock.release()
        return ids

    model.tokenizer.encode = count
    async with serve(slow_session_model(model, "small")) as (_, plain):
        asked = {"model": "small", "prompt": "7" * 1_000_000}, {"model": "small", "messages": [QUESTION] * 10_000}
        chat = plain.post("/v1/chat/completions", json=asked[1] | {"max_tokens": 1})
        responses = await asyncio.gather(chat, *(plain.post("/v1/completions", json=asked[0]) for _ in range(4)))
    assert [response.status for response in responses] == [200, *[400] * 4]
    assert sum(num_read) < 50_000


async def test_a_client_that_does_not_read_its_stream_is_dropped_and_others_are_served(monkeypatch):
    monkeypatch.setattr(api, "MAX_UNREAD_BYTES", 10_000)
    guard = AccessGuard()
    body = {"model": "scenes", "prompt": ["Where is"] * 128, "logprobs": 20, "stream": True, "max_tokens": 1_000_000}
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {guard.token}\r\n"
    async with run_as_command(ApiServer(MODEL, guard).make_application()) as port:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", port))
            slow.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await asyncio.sleep(0.1)
            async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=guard.token) as client:
                async with asyncio.timeout(20):
                    assert (await client.completions.create(model="scenes", prompt="Where is", max_tokens=2)).choices


async def test_requests_wait_for_each_other_and_a_client_that_leaves_stops_its_text():
    model = FakeSlowModel()
    async with serve(slow_session_model(model, "slow")) as (client, _):
        endless = {"model": "slow", "prompt": "Where is", "max_tokens": 1_000_000, "seed": 1, "logprobs": None}
        stream = await client.completions.create(**endless, stream=True)
        first = await anext(aiter(stream))
        assert first.choices[0].text
        waiting = asyncio.create_task(client.completions.create(**endless | {"max_tokens": 2}))
        gone = asyncio.create_task(client.completions.create(**endless))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        gone.cancel()
        await stream.close()
        async with asyncio.timeout(10):
            assert (await waiting).choices[0].text
            await client.completions.create(**endless | {"max_tokens": 2})  # after the one that has left
        num_read = model.num_read
        await asyncio.sleep(0.05)
        assert model.num_read == num_read


async def test_llm_talks_to_a_speaker(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.setenv("LLM_LOAD_PLUGINS", "")
    llm = pytest.importorskip("llm", reason="needs llm; pip install llm")
    async with serve() as (client, _):
        model = {"model_id": "gollum", "model_name": "scenes/gollum", "api_key_name": "lotr-tui"}
        models = json.dumps([model | {"api_base": str(client.base_url).rstrip("/")}])  # which is YAML
        (tmp_path / "extra-openai-models.yaml").write_text(models)
        (tmp_path / "keys.json").write_text(json.dumps({"lotr-tui": client.api_key}))
        response = llm.get_model("gollum").prompt("Where is the Ring?", seed=5)
        assert await asyncio.to_thread(response.text) == line_of([Turn("STRANGER", "Where is the Ring?")], "GOLLUM", 5)


def test_the_command_prints_the_variables_that_the_client_reads(tmp_path, monkeypatch):
    with ServeProcess(tmp_path, "--api", "--run", "lstm") as server:
        match = re.fullmatch(r"export OPENAI_BASE_URL=(\S+) OPENAI_API_KEY=([\w-]{43})", server.url)
        monkeypatch.setenv("OPENAI_BASE_URL", match[1])
        monkeypatch.setenv("OPENAI_API_KEY", match[2])
        with openai.OpenAI() as client:
            messages = [{"role": "user", "content": "Hello"}]
            answer = client.chat.completions.create(model="lstm/gandalf", messages=messages, max_completion_tokens=2)
        assert answer.usage.completion_tokens <= 2
        code, output = server.stop()
    assert code == 143
    assert output.startswith("models: lstm, lstm/NAME with one of these names: ")
    assert ", gandalf, " in output.splitlines()[0]
    assert "Traceback" not in output
