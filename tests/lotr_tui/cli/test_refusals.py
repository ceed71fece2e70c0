"""What commands refuse: one line on stderr with the remedy, exit code 2, no run changed; and odd names of runs."""

import sys
import unicodedata

import pytest

from tests.support.commands import json_output, refusal
from tests.support.files import write_run
from tests.support.open_models import bpe_tokenizer, write_open_run
from tests.support.random_dialogues import write_dialogue_run

OPTIONS = [
    # The parser.
    ("generate the --json=1", "--json takes no value; see `lotr-tui generate --help`"),
    ("eval --basline", "unknown option --basline; did you mean --baselines? See `lotr-tui eval --help`"),
    ("status --run r", "unknown option --run; see `lotr-tui status --help`"),
    ("generate the road", "unexpected argument 'road'; put a prompt of several words in quotes; see `lotr-tui gen"),
    ("Frodo", "unknown command 'Frodo'; the commands are train, finetune, attach, "),
    # Options before a command are options of the command.
    ("--run missing generate the", "run 'missing' is neither in"),
    ("--theme drakula train", "unknown theme 'drakula'"),
    ("--theme shire runs", "unknown option --theme; see `lotr-tui runs --help`"),
    ("--version -- status r", "unknown option --version; see `lotr-tui status --help`"),
    ("--runs-dir none runs show r", "run 'r' is neither in none nor a path"),
    ("runs --json show r", "unknown option --json; see `lotr-tui runs show --help`"),
    # Numbers and choices.
    ("finetune --csv small.csv", "smollm2 has not been fetched; run `lotr-tui fetch smollm2`"),
    ("--pace fast", "--pace fast must be a valid number"),
    *((f"generate the --seed {seed}", "is out of range") for seed in ("9223372036854775807 --count 2", "-1")),
    *((f"generate the --strength {value}", f"'{value}' is ") for value in ("1.6", "-0.1", "nan", "half")),
    ("generate the --run r --strength 1", "--strength needs an adapter, and r has none"),
    ("eval r --strength 1", "--strength needs an adapter, and r has none"),
    ("generate the --adapter r:2", "strength '2' is out of range; use 0 (the model as it came) to 1.5"),
    ("--adapter r:", "'r:' is no adapter; write RUN:X, such as romeo:0.5"),
    ("generate the --run r --adapter r --cache", "adapters are not combined; leave out other runs"),
    ("generate the --run r --adapter r", "run 'r' is no adapter, and has no base for adapters of other runs"),
    ("generate the --top-p 0", "top-p 0.0 is out of range; use a number above 0, at most 1"),
    ("generate the --run missing --top-k -1", "top-k -1 is out of range; use a number from 0 to 1,000,000"),
    ("train --threads -1", "threads=-1 is not a whole number from 0"),
    ("train --set bach_size=3", "unknown setting 'bach_size'; did you mean batch_size?"),
    ("eval r", "has changed since run r was trained"),
    ("eval --split dev", "--split dev is not one of valid, test, train"),
    ("search --set lr=0.01..0.1", "a search needs a budget"),
    ("train --preset defualt", "unknown preset 'defualt'; did you mean default?"),
    ("train --log comet", "--log comet is not one of tensorboard, wandb"),
    *((f"{name} --theme drakula".strip(), "unknown theme 'drakula'; did you mean dracula?") for name in ("", "train")),
    # Options that exclude or need one another.
    *((f"{command} --json --jsonl", "--json and --jsonl") for command in ("generate the", "eval r")),
    ("train --csv a --text a", "--csv and --text"),
    ("train --csv small.csv --test a.txt", "--valid and --test need each other"),
    ("data info small.csv --set scene_line=3", "did you mean scene_lines"),
    ("eval r d --baselines", "--baselines is for one model, but several RUNs are compared"),
    ("eval r --by-speaker --text small.csv", "--by-speaker needs a model that knows speakers, and r does not"),
    ("generate the --run d --as FRODO --to frodo", "--as and --to are both FRODO; name two speakers"),
    ("generate the --run d --to FROD", "Frod is not in the cast; did you mean Frodo? For a speaker outside"),
    ("generate --run d --to FRODO --best-of 4", "--best-of 4 compares answers to a PROMPT; give one"),
    ("generate the --run d --scene --cast FRODO", "--cast has only FRODO, but a scene needs two speakers; add one"),
    ("generate the --run d --scene --as FRODO", "--as belongs to an answer, not to a scene; leave out --as or --scene"),
    ("generate the --run r --as FRODO", "--as needs a model that knows speakers, and r does not; train one: lotr-tui"),
    ("who the --run d --cast FRODO,SAM", "--cast is for models without speakers, and "),
    ("who the --run r --cast A,B --by text", "r has no text model; leave out --by text"),
    ("who the --run r --context small.csv", "--context small.csv names no speakers; write its lines as NAME: text"),
    ("who the --run r --cast Sam,SAM", "the number of speakers of --cast Sam,SAM is 1; name 2 to 64, such as --cast"),
    ("tokenize a --vocabulary-size 500", "--vocabulary-size belongs to --tokenizer bpe"),
    ("search --minutes 1 --init base --set hidden_size=10..20", "hidden_size cannot be searched"),
    ("search --minutes 1 --resume nothing", "there is no search 'nothing'"), ("train --init", "--init needs a value"),
    ("train --resume r --preset tiny", "omit --preset"), ("train --restart", "--restart belongs to --resume RUN"),
    ("runs compare r", "runs compare needs two different runs, and got only r; name another one, see `lotr-tui runs`"),
    ("runs export r", "give one of --csv DIR, --tensorboard DIR, --hf DIR, --peft DIR, --gguf FILE and --log"),
    ("runs export r --csv tables --type f16", "--type belongs to --gguf FILE"),
    ("runs export r --gguf r.gguf", "run 'r' has architecture=lstm, which llama.cpp does not have"),
    ("fetch tales --mirror https://a.org --from .", "use one of the two"), ("runs rm bundled --yes", "bundled model"),
    ("tokenize a --run bundled --tokenizer bpe", "leave out --run or --tokenizer"),
    ("learn perplexty", "there is no chapter 'perplexty'; did you mean perplexity?"),
    ("completion bahs", "SHELL bahs is not one of bash, zsh, fish; did you mean bash?"),
    ("learn", "the class needs a terminal; `lotr-tui learn --list` prints its chapters"),
    ("learn --run r --csv small.csv", "--run, --csv and --text exclude one another"),
    # Runs that are not there.
    *(
        (f"{command} ring", "run 'ring' is neither in")
        for command in ("attach", "status", "stop", "eval", "runs show", "runs rm --yes", "generate the --run")
    ),
    ("status rr", "did you mean r?"), ("train --init wrods", "run 'wrods' is neither in"),
    ("train --csv small.csv --run r", "run 'r' exists"),
    ("train --csv small.csv --set batch_size=5000", "batch_size=5000 is too large: "),
]  # fmt: skip


@pytest.fixture
def runs(home, small_csv):
    """Write the runs `r` of words and `d` of dialogues."""
    write_run(home / "runs" / "r")
    write_dialogue_run(home / "runs" / "d")


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(("command_line", "message"), OPTIONS, ids=[f"lotr-tui {line}" for line, _ in OPTIONS])
def test_wrong_use_is_one_line_with_the_remedy(refused, command_line, message):
    assert message in refused(*command_line.split())


def test_a_text_is_taken_for_a_prompt(refused):
    assert refused("hello world").endswith("to continue a text, use: lotr-tui generate 'hello world'")


def test_the_themes_that_are_listed_are_those_of_the_app(refused, make_app):
    listed = refused("--theme", "x").partition("The themes: ")[2].split(", ")
    assert sorted(listed) == sorted(make_app().available_themes)


def test_a_missing_optuna_is_one_line_with_the_remedy(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    line = refused("search", "--minutes", "1", "--set", "lr=0.01..0.1")
    assert line == "lotr-tui: search needs optuna; pip install optuna"


@pytest.mark.parametrize("arguments", [("train", "--csv"), ("train", "--text"), ("data", "info")])
def test_a_path_without_a_file_is_named(refused, tmp_path, arguments):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("none.csv", "~nobody-there/x"):
        assert f"{name} does not exist; check the path" in refused(*arguments, name)
    assert "is a folder" in refused(*arguments, tmp_path)
    for name in ("loop", "x" * 300):
        assert f"{name} cannot be read" in refused(*arguments, name)


@pytest.mark.parametrize("command", ["", "runs", "status", "train --csv small.csv", "tokenize the"])
def test_a_file_in_place_of_the_runs_folder_is_refused_and_kept(refused, small_csv, command):
    before = small_csv.read_bytes()
    assert "--runs-dir small.csv is a file; name a folder" in refused(*command.split(), "--runs-dir", "small.csv")
    assert "cannot be written" in refused("train", "--csv", small_csv, LOTR_TUI_HOME=str(small_csv))
    assert small_csv.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["generate", "-"], b"The old \0 wizard", "standard input contains NUL bytes, so it is not text"),
        (["generate", "-"], b"a" * 10_000_000, "standard input has over 100,000 bytes; use a part of it"),
        (["generate", "-", "--run", "r"], b"qz" * 40_000, f"none of the prompt's words: {'qz' * 20}…; use other words"),
        (["generate", "\x1b[2J", "--run", "r"], b"", "none of the prompt's words: 2j"),
        (["generate", "SAM:", "--to", "FRODO", "--run", "d"], b"", "the line of SAM is empty; write a text after SAM:"),
        (["tokenize", "-"], b"a" * 10_000_000, "standard input has over 1,000,000 bytes; use a part of it"),
        (["tokenize", "", "--tokenizer", "bpe"], b"", "the text is empty"),
        (["eval", "--text", "-"], b"a" * 10_000_000, "a line of over 1,000,000 characters; put one utterance on a"),
        (["eval", "r", "d", "--text", "-"], b"... --- ...\n", "the text has no words to score; use a longer text"),
        (["who", "-", "--run", "d"], b" \n", "the text is empty"),
        (["who", "the " * 5_000, "--run", "d"], b"", "the text has 20,000 bytes; use at most 10,000 of it"),
        (["generate", "-", "--run", "open"], b"The \xff wizard", "character 5 is a lone surrogate (U+DCFF); remove it"),
    ],
    ids=range(12),
)
@pytest.mark.usefixtures("runs")
def test_what_is_no_text_or_too_long_is_refused(refused, home, arguments, stdin, message):
    write_open_run(home / "runs" / "open", bpe_tokenizer())
    line = refused(*arguments, stdin=stdin)
    assert message in line
    assert line.isprintable()


def test_only_runs_of_the_runs_folder_are_removed(refused, home, untrained_run):
    assert "only runs of that folder can be deleted" in refused("runs", "rm", untrained_run, "--yes")
    (home / "runs").mkdir(parents=True)
    (home / "runs" / "link").symlink_to(untrained_run)
    (home / "runs" / "precious").mkdir()
    for name in ("link", "precious", "link/../../untrained"):
        refused("runs", "rm", name, "--yes")
    assert (untrained_run / "model.safetensors").is_file()
    assert (home / "runs" / "precious").is_dir()


def test_an_included_model_is_not_resumed_and_has_its_own_name(refused):
    line = refused("train", "--resume", "lstm", "--no-tui")
    assert line == "lotr-tui: lstm is part of lotr-tui and cannot be resumed; start from it with --init lstm"


NAMES = ["my run", unicodedata.normalize("NFD", "café"), ".hidden", "x@4", "-dash", "bad\udcff\x1b[31m"]
INVALID_NAMES = [
    *("", "..", "../outside", "r/../../outside", "-rf", "a\nb", "x" * 300, "\x1b[31mred\x1b]0;title\x07"),
    *("\udcff\udcfe", "~nobody-of-that-name/x", "r@1", "[red]r[/red]\u202e"),
]
COMMANDS_WITH_NAMES = [
    ["attach", "--", "NAME"], ["status", "--", "NAME"], ["stop", "--", "NAME"], ["runs", "show", "--", "NAME"],
    ["runs", "compare", "--", "r", "NAME"], ["runs", "rm", "--yes", "--", "NAME"],
    ["runs", "rename", "--", "NAME", "new"], ["runs", "rename", "--", "r", "NAME"],
    ["runs", "export", "--csv", "out", "--", "NAME"],
    ["generate", "--run=NAME", "the"], ["train", "--no-tui", "--resume=NAME"],
    ["train", "--no-tui", "--csv=small.csv", "--run=NAME"], ["eval", "--", "NAME"],
]  # fmt: skip


def folder_state(folder):
    """Return mode, modification time and content of every path below a folder."""
    state = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        state[path] = (status.st_mode, status.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return state


@pytest.mark.parametrize("name", NAMES)
def test_every_listed_run_is_found_by_its_name(lotr, home, name):
    run = write_run(home / "runs" / name)
    shown = lotr("runs").stdout.splitlines()[1].partition("  ")[0]
    assert shown.isprintable()
    for given in {name, shown}:
        assert json_output(lotr("runs", "show", "--", given))["saved_epochs"] == []
    assert lotr("generate", "the road", f"--run={shown}").returncode == 0
    assert lotr("eval", "--text", "-", "--", shown, stdin=b"the road\n").returncode == 0
    assert "is not being trained" in lotr("stop", "--", shown).stderr
    assert "attach needs a terminal" in lotr("attach", "--", shown).stderr
    assert "resume" in lotr("status", "--", shown).stdout
    assert "has changed since the run was started" in lotr("train", f"--resume={shown}").stderr
    assert lotr("runs", "export", "--csv", "out", "--", shown).returncode == 0
    done = lotr("runs", "rm", "--yes", "--", shown)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"deleted run {shown}: ")
    assert not run.exists()


@pytest.mark.parametrize("arguments", COMMANDS_WITH_NAMES, ids=" ".join)
@pytest.mark.usefixtures("small_csv")
def test_an_invalid_name_is_refused_in_one_line_and_no_file_is_changed(lotr, home, tmp_path, arguments):
    write_run(home / "runs" / "r")
    write_run(home / "outside")
    before = folder_state(tmp_path)
    for name in INVALID_NAMES:
        line = refusal(lotr(*(argument.replace("NAME", name) for argument in arguments)))
        assert line.isprintable(), name
        assert "LOTR_TUI_DEBUG" not in line, (name, line)
        assert folder_state(tmp_path) == before, name
