"""`generate --to`, `generate --scene`, `who` and `eval --by-speaker`: dialogue models, compared with the engine."""

import json
import re

import pytest

from engine.analysis.speakers import SpeakerPosterior
from engine.data.scripts import Turn, encode_speaker, encode_turns, turn_text
from engine.generation.generate import Done, TextInProgress, generate
from engine.generation.settings import SamplerSettings
from engine.generation.turns import TurnStart, answerer_probs, begin_turn, generate_scene, read_turns
from engine.runs.loading import load_model
from tests.support.commands import json_output, run_here
from tests.support.files import KNOWN_WORDS
from tests.support.random_dialogues import WORDS, write_dialogue_run, write_distinct_dialogues
from tests.support.sampling import said_text_of, script_of

ANSWER = ("generate", "the road", "--to", "FRODO", "--as", "SAM")
SCENE = ("generate", "--scene", "--cast", "frodo,King of the Dead", "--turns", "6", "--seed", "4")
TRAIN = (
    "train --preset tiny --threads 1 --csv dialogues.csv --mode dialogue --split scenes --run distinct --epochs 20 "
    "--set lr=0.02 --set bptt=20 --set batch_size=8 --set embedding_size=24 --set hidden_size=24"
)


@pytest.fixture
def run(tmp_path):
    return write_dialogue_run(tmp_path / "scenes")


@pytest.fixture
def model(run):
    return load_model(run).model


@pytest.fixture
def talk(lotr, run):
    """Return a function that runs a command with the run of random weights, and returns its JSON."""
    return lambda *arguments, **options: json_output(lotr(*arguments, "--run", run, "--json", **options))


@pytest.fixture(scope="module")
def trained_home(tmp_path_factory):
    """Train the run `distinct`, whose speakers have words of their own; return its home."""
    folder = tmp_path_factory.mktemp("distinct")
    corpus = write_distinct_dialogues(folder / "dialogues.csv")
    done = run_here(TRAIN.replace("dialogues.csv", str(corpus)).split(), LOTR_TUI_HOME=str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def distinct(trained_home, lotr):
    """Return a function that runs a command in the home of the run `distinct`."""
    return lambda *arguments, **options: lotr(*arguments, LOTR_TUI_HOME=str(trained_home), **options)


def answer(model, turns, speaker, seed):
    history = encode_turns(model.tokenizer, turns)
    line = begin_turn(model, read_turns(model, turns), speaker, SamplerSettings(), seed, history)
    return said_text_of(generate(line)).strip()


def scene_of(model, given=(), seed=4, cast=("FRODO", "KING OF THE DEAD"), num_turns=6):
    """Return the events of a scene that begins with the turns `given`."""
    state, history = read_turns(model, given), encode_turns(model.tokenizer, given)
    return list(generate_scene(model, cast, num_turns, SamplerSettings(), seed, state, history=history))


def lines_of(model, **options):
    return [turn_text(turn).rstrip("\n") for turn in script_of(scene_of(model, **options))]


class TestAnswers:
    def test_only_the_answer_is_on_stdout(self, lotr, run):
        done = lotr("generate", "the road", "--to", "Frodo", "--as", "sam", "--run", run, "--seed", "3")
        assert done.returncode == 0
        assert set(done.stdout.split()) <= set(KNOWN_WORDS)
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr.startswith("FRODO · best of 8, score ")

    @pytest.mark.parametrize(
        ("prompt", "arguments", "turns"),
        [
            ("the road", ["--as", "SAM"], [Turn("SAM", "the road")]),
            ("the   road\nand a friend\n", [], [Turn("STRANGER", "the road and a friend")]),
            ("gollum: the road\n\nSam: a friend", [], [Turn("GOLLUM", "the road"), Turn("SAM", "a friend")]),
            ("GOLLUM: the road", ["--as", "SAM"], [Turn("GOLLUM", "the road")]),
            ("king of the dead (V.O.): the road", [], [Turn("KING OF THE DEAD", "the road")]),
        ],
    )
    def test_the_speaker_answers_the_lines_of_the_prompt(self, talk, model, prompt, arguments, turns):
        arguments = ["--to", "FRODO", *arguments, "--seed", "5", "--best-of", "1"]
        record = talk("generate", prompt, *arguments)
        assert record["text"] == answer(model, turns, "FRODO", 5)
        assert (record["prompt"], record["speaker"]) == (prompt, "FRODO")
        assert (record["score"], record["candidates"]) == (None, [])
        piped = talk("generate", "-", *arguments, stdin=prompt.encode())
        assert piped["text"] == record["text"]

    def test_any_name_says_the_prompt_and_answers(self, lotr, talk, run, model):
        names = ("--as", "Barliman", "--to", "!tom bombadil", "--seed", "5", "--best-of", "1")
        record = talk("generate", "the road", *names)
        assert record["text"] == answer(model, [Turn("BARLIMAN", "the road")], "TOM BOMBADIL", 5)
        assert (record["speaking_as"], record["speaker"]) == ("BARLIMAN", "TOM BOMBADIL")
        assert record["probability"] is None
        assert "note: Tom Bombadil is not in the cast" in lotr("generate", "the road", *names, "--run", run).stderr

    def test_the_last_line_of_a_script_is_continued_without_these_options(self, talk, model):
        record = talk("generate", "Sam: a friend\nFRODO: the road", "--seed", "5")
        ids = [*encode_turns(model.tokenizer, [Turn("SAM", "a friend")]), *encode_speaker(model.tokenizer, "FRODO")]
        ids += model.tokenizer.encode(" the road").tolist()
        assert record["text"] == said_text_of(generate(TextInProgress(model, ids, SamplerSettings(), 5)))

    def test_a_prompt_that_ends_in_a_name_is_continued_by_that_speaker(self, talk, model):
        record = talk("generate", "SAM: a friend\nFRODO:", "--seed", "5")
        ids = [*encode_turns(model.tokenizer, [Turn("SAM", "a friend")]), *encode_speaker(model.tokenizer, "FRODO")]
        assert record["text"] == said_text_of(generate(TextInProgress(model, ids, SamplerSettings(), 5)))

    def test_without_a_prompt_the_speaker_opens_and_standard_input_is_not_read(self, talk, model):
        record = talk("generate", "--to", "GOLLUM", "--seed", "5", stdin=b"the road")
        assert record["text"] == answer(model, [], "GOLLUM", 5)
        assert (record["prompt"], record["speaking_as"]) == ("", None)

    def test_the_likeliest_speaker_answers_where_nobody_is_named(self, lotr, talk, run, model):
        state = read_turns(model, [Turn("SAM", "the road")])
        likeliest = answerer_probs(model, state, ("FRODO", "GOLLUM", "KING OF THE DEAD"))[0]
        expected = likeliest.name
        for option in (["--as", "SAM"], ["--as", "SAM", "--reply"], ["--as", "SAM", "--best-of", "2"]):
            record = talk("generate", "the road", *option)
            assert record["speaker"] == expected
            assert record["probability"] == pytest.approx(likeliest.prob)
        done = lotr("generate", "SAM: the road", "--reply", "--run", run)
        assert done.stderr.startswith(f"{expected} answers, the likeliest speaker (")

    def test_the_best_of_several_answers_is_the_one_with_the_highest_score(self, talk, model):
        record = talk(*ANSWER, "--seed", "7", "--best-of", "5")
        candidates = record["candidates"]
        assert sorted(candidate["seed"] for candidate in candidates) == [7, 8, 9, 10, 11]
        best = max(candidates, key=lambda candidate: candidate["score"])
        assert best["text"] == answer(model, [Turn("SAM", "the road")], "FRODO", best["seed"])
        assert (record["text"], record["score"], record["seed"]) == (best["text"], best["score"], best["seed"])


class TestScenes:
    def test_a_scene_is_a_script_on_stdout(self, lotr, run, model):
        done = lotr(*SCENE, "--run", run)
        assert done.returncode == 0
        assert done.stdout.splitlines() == lines_of(model)
        assert re.fullmatch(r"seed 4 · temperature 0\.80 · [\d,]+ tokens/s · 6 turns\n", done.stderr)
        everybody = lotr("generate", "--scene", "--seed", "4", "--run", run)
        assert everybody.stdout.splitlines() == lines_of(model, cast=None, num_turns=8)

    def test_json_describes_every_turn(self, lotr, run, talk, model):
        record = talk(*SCENE, "SAM: the road")
        events = scene_of(model, given=[Turn("SAM", "the road")])
        starts = [event for event in events if isinstance(event, TurnStart)]
        ends = [event.reason for event in events if isinstance(event, Done)]
        assert record["given"] == [{"speaker": "SAM", "text": "the road"}]
        assert (record["seed"], record["run"], record["reason"]) == (4, "scenes", "length")
        assert [(turn["speaker"], turn["text"], turn["reason"]) for turn in record["turns"]] == [
            (turn.speaker, turn.text, reason) for turn, reason in zip(script_of(events), ends, strict=True)
        ]
        for turn, start in zip(record["turns"], starts, strict=True):
            assert (turn["probability"], turn["seed"]) == (pytest.approx(start.prob, abs=1e-6), start.seed)
            assert turn["speakers"][turn["speaker"]] == turn["probability"]
        lines = lotr(*SCENE, "SAM: the road", "--run", run, "--jsonl").stdout.splitlines()
        assert [json.loads(line) for line in lines] == [{"scene": 0, **turn} for turn in record["turns"]]

    def test_the_prompt_of_a_scene_reaches_a_file_without_control_characters_unless_raw(self, lotr, run):
        prompt = "Sam: the\x1b[2J road\u202e"
        shown = lotr(*SCENE, "--run", run, prompt).stdout
        assert shown.startswith("Sam: the�[2J road�\n")
        assert lotr(*SCENE, "--run", run, prompt, "--raw").stdout.startswith(f"{prompt}\n")

    def test_several_scenes_have_consecutive_seeds(self, lotr, run, model):
        arguments = ("generate", "--scene", "--turns", "2", "--seed", "4", "--count", "2", "--run", run)
        expected = [lines_of(model, seed=seed, cast=None, num_turns=2) for seed in (4, 5)]
        assert lotr(*arguments).stdout.splitlines() == [*expected[0], "", *expected[1]]


class TestWho:
    def test_the_speaker_of_a_word_is_found_and_the_word_named(self, distinct):
        done = distinct("who", "the nasty one", "--run", "distinct")
        assert done.returncode == 0
        assert done.stdout.splitlines()[1].startswith("GOLLUM ")
        assert '"nasty" gave GOLLUM away: odds × ' in done.stdout
        record = json_output(distinct("who", "now supper here", "--run", "distinct", "--json"))
        assert record["speaker"] == "SAM"
        assert max(record["words"], key=lambda word: word["log_odds_gain"])["word"] == "supper"

    @pytest.mark.parametrize("options", [(), ("--by", "lm")])
    def test_json_is_the_posterior_after_the_context(self, talk, run, model, options):
        (run.parent / "scene.txt").write_text("frodo: the road\nSam: a friend of\n\nmine\n")
        record = talk("who", "The road  is", "--context", "scene.txt", *options)
        turns = [Turn("FRODO", "the road"), Turn("SAM", "a friend of mine")]
        assert record["context"] == [{"speaker": turn.speaker, "text": turn.text} for turn in turns]
        context = read_turns(model, turns)
        posterior = SpeakerPosterior(model, context, by_language_model=bool(options))
        guess = posterior.update("The road is", is_complete=True)
        assert record["by"] == ("lm" if options else "text")
        assert [item["speaker"] for item in record["speakers"]] == [item.name for item in guess.ranking()]
        assert [word["word"] for word in record["words"]] == ["The", "road", "is"]
        gains = [word["log_odds_gain"] for word in record["words"]]
        assert gains == pytest.approx([word.gain for word in guess.words], abs=1e-4)

    def test_the_report_fits_80_columns_without_control_characters(self, lotr, run):
        (run.parent / "scene.txt").write_text("FRODO: [bold]the\x1b[2J road[/bold] \u202e" + 20 * " the road" + "\n")
        text = "[red]the[/red] \x1b[2Jroad " * 30 + "antidisestablishmentarianism" * 3
        done = lotr("who", text, "--run", run, "--context", "scene.txt")
        assert done.returncode == 0
        assert all(len(line) <= 80 for line in done.stdout.splitlines())
        assert "[red]the[/red]" in done.stdout
        assert "[bold]the" in done.stdout
        assert not set("\x1b\u202e") & set(done.stdout + done.stderr)
        assert "24 of 61 words: those with the strongest evidence" in done.stdout


class TestBySpeaker:
    def test_a_split_is_scored_by_speaker(self, distinct):
        record = json_output(distinct("eval", "distinct", "--by-speaker", "--json"))
        assert (record["run"], record["split"], record["mode"]) == ("distinct", "valid", "dialogue")
        speakers = {scores["speaker"]: scores for scores in record["speakers"]}
        assert set(speakers) == set(WORDS)
        assert sum(scores["lines"] for scores in speakers.values()) == record["next_speaker"]["turns"] == 40
        assert record["next_speaker"]["accuracy"] > 0.9  # speakers alternate in a fixed order
        shown = distinct("eval", "distinct", "--by-speaker").stdout
        lines = shown.splitlines()
        assert lines[0].split() == ["speaker", "perplexity", "bits/char", "tokens", "lines"]
        assert [line.split()[0] for line in lines[1:4]] == list(speakers)
        assert re.search(r"\nwho speaks next: \d\.\d\d bits per turn, top-1 accuracy \d+ % of 40 turns\n", shown)
