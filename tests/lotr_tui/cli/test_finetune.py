"""`finetune`: an adapter of a model by others, and the label that all of its figures have."""

import json
import re

from tests.support.commands import json_output
from tests.support.pretrained import CONTEXT_SIZE, save_llama
from tests.support.random_dialogues import write_distinct_dialogues

LABEL = "pre-trained on other text"


def test_an_adapter_is_trained_in_script_form_and_every_figure_says_pre_trained(lotr, tmp_path):
    save_llama(tmp_path / "tiny")
    corpus = write_distinct_dialogues(tmp_path / "dialogues.csv", 80)
    settings = {
        "epochs": 1, "batch_size": 4, "bptt": CONTEXT_SIZE, "lora_rank": 2, "min_speaker_lines": 5, "threads": 1,
    }  # fmt: skip
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    done = lotr("finetune", "--init", "hf:tiny", "--csv", corpus, "--run", "film", "--no-tui", *options)
    assert done.returncode == 0, done.stderr
    assert "for a model that converses" not in done.stdout
    assert f"baselines (validation bits/character, {LABEL}): unigram " in done.stdout
    assert re.search(rf"\ndone after .*: valid bits/character \d+\.\d{{3}}, test \d+\.\d{{3}}, {LABEL}\n", done.stdout)

    config = json_output(lotr("runs", "show", "film"))["config"]
    assert (config["preset"], config["data"]["mode"], config["model"]["lora_rank"]) == ("lora", "dialogue", 2)
    listed = lotr("runs").stdout
    assert re.search(r"film .* \d+\.\d\* +\d+\.\d\* ", listed)
    assert listed.endswith(f"\n* {LABEL}\n")
    assert re.search(f"figures +bits/character, {LABEL}", lotr("status").stdout)
    for arguments in (("film",), ("film", "--by-speaker"), ("film", "lstm", "--text", "line.txt")):
        (tmp_path / "line.txt").write_text("Frodo: the oak and the elm\n")
        assert LABEL in lotr("eval", *arguments).stdout, arguments
    assert json_output(lotr("eval", "film", "--json"))["pretrained_on_other_text"]
    models = json_output(lotr("eval", "film", "lstm", "--text", "line.txt", "--json"))["texts"][0]["models"]
    assert {model["run"]: model["pretrained_on_other_text"] for model in models} == {"film": True, "lstm": False}
    assert (
        "Pre-trained on other text: film."
        in json.loads(lotr("runs", "compare", "film", "lstm", "--json").stdout)["notes"]
    )
