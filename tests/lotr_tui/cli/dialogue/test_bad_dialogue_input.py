"""Wrong names, numbers, models and texts for the commands about dialogues: one line, exit code 2."""

import pytest

from lotr_tui.cli.dialogue.options import MAX_BEST_OF
from tests.support.files import write_run

LONG_NAME = "x" * 10_000
UNKNOWN = "is not in the cast of this model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Golum", "speaker 'Golum' is not in the cast of this model; did you mean GOLLUM?"),
        ("Xyzzy", "speaker 'Xyzzy' is not in the cast of this model; use one of FRODO, SAM, GOLLUM, KING OF THE DEAD"),
        ("", "'' is not a name; use one of FRODO, SAM"),
        ("  ", "is not a name"),
        ("\x1b[31m", "is not a name"),
        ("[bold]Golum[/bold]", "did you mean GOLLUM?"),
        ("Golum\x1b[2J\u202e", "did you mean GOLLUM?"),
        ("☺", "is not a name"),
        (LONG_NAME, "is not a name"),
        ("FRODO,SAM", UNKNOWN),
    ],
)
@pytest.mark.parametrize("option", ["--as", "--to"])
def test_a_name_outside_the_cast_is_refused(refused, run, option, name, message):
    line = refused("generate", "the road", f"{option}={name}", "--run", run)
    assert message in line
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize(
    "name", ["gollum", " Gollum ", "GOLLUM (V.O.)", "[bold]Gollum[/bold]", "\x1b[31mGollum\x1b[0m"]
)
def test_a_name_may_have_any_case_and_marks(command, run, name):
    done = command("generate", "the road", f"--as={name}", "--run", run)
    assert done.returncode == 0
    assert done.stderr.startswith("GOLLUM · seed ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as", "FRODO", "--to", "frodo"], "--as and --to are both FRODO; name two speakers"),
        (["--as", "FRODO", "--best-of", "0"], "--best-of 0 is not a whole number from 1 to 64"),
        (["--as", "FRODO", "--best-of", "10000"], "--best-of 10000 is not a whole number from 1 to 64"),
        (["--as", "FRODO", "--best-of", "few"], "--best-of few is not a whole number"),
        (["--scene", "--turns", "0"], "--turns 0 is not a whole number from 1 to 10,000"),
        (["--scene", "--turns", "-3"], "--turns -3 is not a whole number from 1 to 10,000"),
        (["--scene", "--turns", "1000000"], "--turns 1000000 is not a whole number"),
        (["--scene", "--cast", "FRODO"], "--cast has only FRODO, but a scene needs two speakers; add one, such as"),
        (["--scene", "--cast", "FRODO,Sam,frodo"], "--cast names FRODO twice; name every speaker once"),
        (["--scene", "--cast", "FRODO,Golum"], "did you mean GOLLUM?"),
        (["--scene", "--cast", "FRODO,,SAM"], "'' is not a name"),
        (["--scene", "--cast", ""], "'' is not a name"),
        (["--scene", "--cast", ",".join(["FRODO"] * 5_000)], "--cast names FRODO twice"),
        (["--scene", "--as", "FRODO"], "--as belongs to an answer, not to a scene; leave out --as or --scene"),
        (["--scene", "--to", "FRODO"], "--to belongs to an answer"),
        (["--scene", "--best-of", "3"], "--best-of belongs to an answer"),
        (["--scene", "--reply"], "--reply belongs to an answer"),
        (["--cast", "FRODO,SAM"], "--cast has no effect without --scene; give both"),
        (["--turns", "3"], "--turns has no effect without --scene; give both"),
    ],
)
def test_wrong_use_is_refused(refused, run, arguments, message):
    assert message in refused("generate", "the road", *arguments, "--run", run)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the prompt is empty"),
        (" \n ", "the prompt is empty"),
        ("SAM:", "the line of SAM is empty; write a text after SAM:"),
        ("SAM: \nFRODO: the road", "the line of SAM is empty"),
        ("...", "has no word"),
        ("xyzzy", "the model knows none of the prompt's words: xyzzy"),
    ],
)
@pytest.mark.parametrize("option", [["--as", "FRODO"], ["--scene"], ["--reply"]])
def test_a_prompt_without_words_is_refused(refused, run, option, prompt, message):
    assert message in refused("generate", prompt, *option, "--run", run)


def test_the_best_of_several_needs_something_to_compare(refused, run):
    line = refused("generate", "--as", "FRODO", "--best-of", "4", "--run", run)
    assert "--best-of 4 compares answers to a PROMPT, or with --to NAME first lines to somebody" in line


@pytest.mark.parametrize(
    ("arguments", "use"),
    [
        (["generate", "the road", "--as", "FRODO"], "--as"),
        (["generate", "the road", "--to", "FRODO"], "--to"),
        (["generate", "the road", "--best-of", "3"], "--best-of"),
        (["generate", "--scene"], "--scene"),
        (["who", "the road"], "`lotr-tui who`"),
    ],
)
def test_a_run_without_speakers_says_how_to_train_one(refused, home, arguments, use):
    write_run(home / "runs" / "lines")
    line = refused(*arguments, "--run", "lines")
    assert f"{use} needs a model that knows speakers, and lines does not" in line
    assert "train one: lotr-tui train --mode dialogue" in line


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ([""], b"", "the text is empty; give at least one word"),
        (["-"], b" \n", "the text is empty"),
        (["..."], b"", "has no word"),
        (["the " * 5_000], b"", "the text has 20,000 bytes; use at most 10,000 of it"),
        (["-"], b"the " * 5_000, "standard input has over 10,000 bytes"),
        (["-"], b"the\0road", "standard input contains NUL bytes"),
        (["the", "--run", "missing"], b"", "missing"),
        (["the", "--context", "missing.txt"], b"", "missing.txt does not exist; check the path"),
        (["the", "--context", "."], b"", ". is a folder; name a text file in it"),
        (["the", "--context", "long.txt"], b"", "--context long.txt has 120,000 bytes; use at most 100,000"),
        (["the", "--context", "latin.txt"], b"", "latin.txt is not UTF-8 (byte 0)"),
        (["the", "--context", "nameless.txt"], b"", "the line of SAM is empty"),
    ],
)
def test_unusable_texts_are_refused(refused, run, tmp_path, arguments, stdin, message):
    (tmp_path / "long.txt").write_text("FRODO: road\n" * 10_000)
    (tmp_path / "latin.txt").write_bytes(b"\xe9owyn: the road\n")
    (tmp_path / "nameless.txt").write_text("SAM:\n")
    assert message in refused("who", *(arguments if "--run" in arguments else [*arguments, "--run", run]), stdin=stdin)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cast", "FRODO"], "the number of speakers of --cast FRODO is 1; name 2 to 64"),
        (["--cast", ",".join(f"S{number}" for number in range(65))], "is 65; name 2 to 64"),
        (["--cast", "FRODO,,SAM"], "--cast: '' is not a name"),
        (["--cast", "FRODO,SAM,frodo"], "--cast names frodo twice; name every speaker once"),
        (["--context", "prose.txt"], "--context prose.txt names no speakers; write its lines as NAME: text"),
        (["--context", "alone.txt"], "the number of speakers of --context alone.txt is 1"),
    ],
)
def test_speakers_of_a_model_that_knows_none_must_be_named(refused, home, tmp_path, arguments, message):
    write_run(home / "runs" / "lines")
    (tmp_path / "prose.txt").write_text("The road goes on.\n")
    (tmp_path / "alone.txt").write_text("SAM: the road\n")
    assert message in refused("who", "the road", "--run", "lines", *arguments)


def test_a_model_that_knows_speakers_needs_no_names(refused, run):
    assert "--cast is for models without speakers, and " in refused(
        "who", "the road", "--run", run, "--cast", "FRODO,SAM"
    )


def test_the_largest_number_of_answers_is_the_engines():
    from engine.generation.best_of import MAX_ANSWERS

    assert MAX_BEST_OF == MAX_ANSWERS


def test_a_damaged_cast_is_refused(refused, run):
    (run / "cast.json").write_text('{"version": 1, "cast": ["FRODO", "FRODO"]}')
    assert "lists a speaker twice" in refused("generate", "--scene", "--run", run)
