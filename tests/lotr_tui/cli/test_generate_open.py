"""`generate` with models of open vocabularies: text as it is written, whole characters, and JSON with the pieces."""

import json
from collections.abc import Sequence

import pytest

from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.generation.prompt import encode_prompt
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.cli.generate_console import generate_on_console
from lotr_tui.session.session_model import SessionModel
from tests.support.open_models import RecitingModel, bpe_tokenizer, character_tokenizer, open_model

TOKENIZERS = pytest.mark.parametrize("tokenizer", [bpe_tokenizer(), character_tokenizer()], ids=["bpe", "characters"])
LINE = "The wizard’s staff is old; Éowyn smiled — “Where is the Ring?” 日本…"


def run(
    model: LanguageModel, prompt: str, seeds: Sequence[int] = (3,), *, predicts_eos: bool = True, **options: bool
) -> None:
    session_model = SessionModel("open", "", model, predicts_eos=predicts_eos)
    flags = {"reply": False, "as_json": False, "jsonl": False, **options}
    encoded = encode_prompt(prompt, model.tokenizer)
    generate_on_console(session_model, encoded, SamplerSettings(max_tokens=90), seeds, **flags)


@TOKENIZERS
@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
def test_text_on_stdout_continues_the_prompt_exactly(
    tokenizer: Tokenizer, seeds: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run(RecitingModel(tokenizer, LINE), "The wiz", seeds)
    out, err = capsys.readouterr()
    assert out == f"{LINE.removeprefix('The wiz')}\n" * len(seeds)
    assert "tokens/s · end of line" in err
    assert "vocabulary" not in err


@TOKENIZERS
def test_json_has_the_exact_text_and_the_pieces(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    run(RecitingModel(tokenizer, LINE), "The", as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["prompt"] + result["text"] == LINE
    assert result["text"].startswith(" wizard’s")
    assert "".join(token["piece"] for token in result["tokens"]) == result["text"]
    assert result["unknown"] == []
    run(RecitingModel(tokenizer, LINE), "The", jsonl=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["piece"] for row in rows[:-1]] == [token["piece"] for token in result["tokens"]]


def test_each_write_is_of_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *texts, **_: written.extend(texts))
    run(RecitingModel(character_tokenizer(), "The 日本"), "The")
    assert written[:7] == ["", "", "", "日", "", "", "本"]


class _Recorder(RecitingModel):
    """A model that records which tokens it reads."""

    def __init__(self, tokenizer: Tokenizer, line: str) -> None:
        super().__init__(tokenizer, line)
        self.read: list[int] = []

    def advance(self, state, token):  # type: ignore[no-untyped-def]
        self.read.append(token)
        return super().advance(state, token)


@pytest.mark.parametrize(
    ("prompt", "predicts_eos", "reply", "expected"),
    [
        ("a b", True, False, "^a b"),
        ("a\nb\n", True, False, "^a^b"),  # a line feed is <eos> where each line ends in <eos>
        ("a\r\nb\r\n", True, True, "^a^b^"),
        ("a\nb\n", False, False, "^a\nb"),
        ("a\n\nb", False, True, "^a\n\nb^"),
    ],
)
def test_line_feeds_of_a_prompt_are_read_as_in_training(
    prompt: str, predicts_eos: bool, reply: bool, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _Recorder(character_tokenizer(), "")
    run(model, prompt, predicts_eos=predicts_eos, reply=reply)
    read = "".join("^" if id == EOS_ID else model.tokenizer.tokens[id] for id in model.read)
    assert read.replace("<0x0A>", "\n").startswith(expected)


def test_terminal_gets_no_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = RecitingModel(character_tokenizer(), "a\x1b[2Jb")
    run(model, "a")
    assert capsys.readouterr().out == "\x1b[2Jb\n"  # a file gets the text as it is
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    run(model, "a")
    assert capsys.readouterr().out == "�[2Jb\n"


def test_random_model_is_printed_completely(capsys: pytest.CaptureFixture[str]) -> None:
    run(open_model(bpe_tokenizer()), "Where is", range(5), as_json=True)
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["seed"] for result in results] == list(range(5))
    assert len({result["text"] for result in results}) == 5
