"""The API for other programs, used by the real `openai` and `llm`: texts, figures, refusals, and clients that leave."""

import asyncio
import json
import math
import re
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
from engine.generation.turns import begin_turn, next_speaker_probs
from lotr_tui.serve.access import AccessGuard
from lotr_tui.serve.api import MAX_BODY_BYTES, ApiServer
from tests.support.browser import ServeProcess
from tests.support.dialogues import dialogue_session_model
from tests.support.sampling import said_text_of
from tests.support.slow_models import FakeSlowModel, slow_session_model

QUESTION = {"role": "user", "content": "Where is the Ring?"}
MODEL = dialogue_session_model(end_bias=-3.0)


@asynccontextmanager
async def serve(session_model=MODEL):
    """Serve a model, and yield the real client of it and a plain one, which has the token too."""
    guard = AccessGuard(is_for_browsers=False)
    application = ApiServer(session_model, guard).make_application()
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
    name = next_speaker_probs(MODEL.model, state, ("GANDALF", "GOLLUM"))[0].name
    async with serve() as (client, _):
        answer = (await client.chat.completions.create(model="scenes", messages=messages, seed=2)).choices[0].message
        assert (answer.content, answer.name) == (line_of(lines, name, 2), name.capitalize())
        # A client sends the answer back without its speaker.
        answered = [*messages, {"role": "assistant", "content": answer.content}, QUESTION]
        follows = await client.chat.completions.create(model="scenes/frodo", messages=answered, seed=2)
    lines += [Turn(name, answer.content), Turn("STRANGER", QUESTION["content"])]
    assert follows.choices[0].message.content == line_of(lines, "FRODO", 2)


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
        messages = [{"role": "system", "content": "You are Gandalf."}, QUESTION]
        await client.chat.completions.create(model="Slowpoke-1B-Instruct", messages=messages, max_tokens=3)
    assert [(message.role, message.text) for message in model.chat.encoded[-1]] == [
        (message["role"], message["content"]) for message in messages
    ]


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
        for path, status, code in (("completions", 405, "method_not_supported"), ("engines", 404, "unknown_url")):
            response = await plain.get(f"/v1/{path}")
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (status, code)
            assert path in error["message"]
        response = await plain.post("/v1/completions", data=b"{}", headers={"Content-Encoding": "gzip"})
        assert response.status == 415
        with pytest.raises(openai.AuthenticationError, match="wrong token; send the token"):
            await client.with_options(api_key="wrong").models.list()
        in_url = await plain.get("/v1/models", params={"token": client.api_key}, headers={"Authorization": ""})
        assert in_url.status == 401
        assert (await client.models.list()).data  # the server is well


async def test_a_prompt_longer_than_the_context_and_a_chat_without_a_form_are_refused():
    async with serve(slow_session_model(FakeSlowModel(has_chat=False, context_size=5), "small")) as (client, _):
        with pytest.raises(openai.BadRequestError, match="exceeds the context of 5 tokens; send less"):
            await client.completions.create(model="small", prompt="Where is the Ring? " * 9)
        with pytest.raises(openai.BadRequestError, match="neither a cast nor a chat template"):
            await client.chat.completions.create(model="small", messages=[QUESTION])


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
