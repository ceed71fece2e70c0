"""Trainings of adapters: PEFT's files, frozen weights, exact resume, further training, and bases that do not fit."""

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.data.speakers import display_name
from engine.errors import ConfigError, InvalidInputError
from engine.events import Evaluated, Finished, LinesScored, Sampled, Started, Warned
from engine.models.base import score_sequence
from engine.models.pretrained.folders import read_base
from engine.models.pretrained.names import BASE_FILE
from engine.presets import PRESETS
from engine.runs import directory
from engine.runs.directory import ADAPTER_FILE, INITIAL_FILE, MODEL_FILE, RESUME_FILE
from engine.runs.export import export_gguf, export_hugging_face, export_peft
from engine.runs.loading import load_model, load_model_by_name
from engine.training.job import WHOLE_MODEL_LR, TrainingInput, configure, default_preset, prepare_job, resume_job
from engine.training.trainer import Trainer
from tests.support.pretrained import CONTEXT_SIZE, save_model
from tests.support.random_dialogues import write_distinct_dialogues
from tests.support.training import events_of, weights_equal, weights_of
from tests.tools.compact import write_compact_copy

pytestmark = pytest.mark.usefixtures("one_thread")
pytest.importorskip("transformers")

SHORT = {
    "mode": "dialogue", "min_speaker_lines": 5, "epochs": 2, "batch_size": 4, "bptt": 32, "lora_rank": 4, "lr": 0.01,
    "threads": 1, "device": "cpu", "precision": "fp32", "patience": 0, "keep_epoch_checkpoints": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "tiny"
    save_model(folder, "llama")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_distinct_dialogues(tmp_path_factory.mktemp("corpus") / "dialogues.csv", 80)


def prepare(runs_dir, corpus, init, name="tuned", **values):
    options = SHORT | {"corpus": str(corpus), "init": init} | values
    preset = PRESETS[default_preset(init, "dialogue", runs_dir)]
    return prepare_job(configure(preset, lambda config: config.with_values(**options), runs_dir), name, runs_dir)


def train(runs_dir, corpus, init, name="tuned", **values):
    """Train a run, and return its folder and its events."""
    job = prepare(runs_dir, corpus, init, name, **values)
    return job.run.path, list(job.events(lambda: False))


@pytest.fixture(scope="module")
def trained(base, corpus, tmp_path_factory):
    """Return the folder of a trained run, and its events."""
    return train(tmp_path_factory.mktemp("runs"), corpus, f"hf:{base}")


def test_training_changes_only_the_adapter(base, corpus, tmp_path):
    job, source = prepare(tmp_path, corpus, f"hf:{base}"), read_base(f"hf:{base}")
    job.run.lock.close()
    trainer = Trainer(job.config, TrainingInput(job.dataset, base=source), torch.device("cpu"))
    network = trainer.state.network
    trained, frozen = (
        {name: each.detach().clone() for name, each in pairs}
        for pairs in (network.named_parameters(), network.named_buffers())
    )
    for _ in range(3):
        trainer.train_step()
    assert all("lora" in name and not torch.equal(each, trained[name]) for name, each in network.named_parameters())
    assert all(torch.equal(each, frozen[name]) for name, each in network.named_buffers())
    assert sum(each.numel() for each in frozen.values()) >= sum(map(math.prod, source.shapes.values()))


def test_gradient_checkpointing_changes_no_loss_and_no_weight(base, corpus, tmp_path):
    steps, weights = [], []
    for setting in ("false", "true"):
        values = {"gradient_checkpointing": setting, "hidden_dropout": 0.2, "lora_dropout": 0.3}
        job = prepare(tmp_path, corpus, f"hf:{base}", setting, **values)
        job.run.lock.close()
        source = TrainingInput(job.dataset, base=read_base(f"hf:{base}"))
        trainer = Trainer(job.config, source, torch.device("cpu"))
        steps.append([[float(each) for each in trainer.train_step()[:2]] for _ in range(3)])
        weights.append(trainer.state.network.export_weights())
    assert steps[0] == steps[1]
    assert weights_equal(*weights)


def test_memory_is_stated_and_a_training_that_does_not_fit_is_refused(base, corpus, tmp_path, monkeypatch):
    def has(megabytes):
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=int(1e6 * megabytes)))

    def stated(**values):
        job = prepare(tmp_path / "runs", corpus, f"hf:{base}", bptt=64, batch_size=8, **values)
        line = next(line for event in job.events(lambda: False) if "needs" in (line := getattr(event, "message", "")))
        shutil.rmtree(job.run.path)
        return line

    has(1000)
    assert stated() == "loading the base: needs about 0.0 GB of the 1.0 GB free on cpu"
    has(5)
    assert stated().endswith(" free on cpu, with gradient checkpointing")
    for megabytes, message in (
        (5, "; use --set gradient_checkpointing=auto$"),
        (4, "; use --set batch_size=4 --set gradient_checkpointing=auto$"),
        (1, "0.0 GB free on cpu; choose a smaller model or another device$"),
    ):
        has(megabytes)
        with pytest.raises(ConfigError, match=message):
            stated(gradient_checkpointing="false")
    assert not list((tmp_path / "runs").iterdir())


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "tuned")


def test_an_adapter_learns_answers_lines_and_keeps_nothing_of_its_base(trained):
    run, events = trained
    started, (before, *_, after) = events_of(Started, events)[0], events_of(Evaluated, events)
    assert after.valid_perplexity < 0.7 * before.valid_perplexity
    assert 0 < started.bits_per_character(after.valid_perplexity) < started.bits_per_character(before.valid_perplexity)
    assert started.parameters == 2 * 4 * (4 * 32 + 2 * (32 + 16) + 3 * (32 + 64))
    names = {path.name for path in run.iterdir()}
    assert {ADAPTER_FILE, "adapter_config.json", BASE_FILE, "cast.json", "epochs"} <= names
    assert not names & {MODEL_FILE, INITIAL_FILE, "tokenizer.json"}
    sample = events_of(Sampled, events)[-1]
    assert sample.prompt.startswith("Stranger: Where are you going?\n")
    assert sample.prompt.endswith(":")
    assert "\n" not in sample.text
    loaded = load_model(run)
    assert load_model(run, 1).valid_perplexity > loaded.valid_perplexity
    assert loaded.valid_perplexity == pytest.approx(after.valid_perplexity)
    assert loaded.model.cast


def test_the_words_of_held_out_lines_are_scored_before_the_first_step_and_at_each_evaluation(trained):
    run, events = trained
    evaluations, (first, *later) = events_of(Evaluated, events), events_of(LinesScored, events)
    assert [each.step for each in (first, *later)] == [each.step for each in evaluations]
    loaded, best = load_model(run, precision="fp32"), min(evaluations, key=lambda each: each.valid_perplexity)
    assert [speaker for speaker, _ in first.lines[:3]] == [display_name(name) for name in loaded.model.cast[:3]]
    assert not any(each.lines for each in later)
    ids = load_dataset(loaded.config.data, loaded.decoder.tokenizer).valid
    log_probs, scored = score_sequence(loaded.decoder, ids), later[evaluations[1:].index(best)]
    for (speaker, words), values in zip(first.lines, scored.log_probs, strict=True):
        texts = f"{speaker}:", f" {' '.join(words)}".replace(" \n", "\n")
        head, said = (loaded.decoder.tokenizer.encode(text).tolist() for text in texts)
        [start] = [index for index in range(len(ids)) if ids[index : index + len(head + said)].tolist() == head + said]
        expected = log_probs[start + len(head) : start + len(head + said)].sum()
        assert sum(values) == pytest.approx(expected, abs=0.1)  # the adapter is stored in half precision


def test_peft_loads_the_run_with_the_same_log_probabilities(trained, base):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), trained[0])
    check_log_probs(trained[0], model)


def test_peft_refuses_an_adapter_in_8_bits_and_loads_its_export(trained, base, tmp_path):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    compact = tmp_path / "compact"
    write_compact_copy(trained[0], compact)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    with pytest.raises(ValueError, match=r"adapter_config\.json"):
        peft.PeftModel.from_pretrained(model, compact)
    export_peft(compact, tmp_path / "exported")
    check_log_probs(compact, peft.PeftModel.from_pretrained(model, tmp_path / "exported"), tolerance=1e-3)


def check_log_probs(run, model, tolerance=2e-3):
    """Check that a model of transformers predicts as the run, whose adapter is stored in half precision."""
    decoder = load_model_by_name(str(run), precision="fp32").decoder
    tokenizer = decoder.tokenizer
    ids = tokenizer.encode("Where is the Ring? It is safe, for tonight.")
    tokens = tokenizer.swapped_ids[np.append(np.int32(tokenizer.start_id), ids)].astype(np.int64)
    with torch.no_grad():
        rows = torch.log_softmax(model.eval()(torch.from_numpy(tokens)[None]).logits[0], -1)
    expected = rows[np.arange(len(ids)), tokens[1:]].numpy()
    np.testing.assert_allclose(score_sequence(decoder, ids), expected, atol=tolerance)


MESSAGES = [
    {"role": "user", "content": "Where\nis it?"},
    {"role": "assistant", "content": "Here. "},
    {"role": "user", "content": "Why?", "name": "Sam"},
]


def test_transformers_loads_the_exported_run_and_its_script(trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    export_hugging_face(trained[0], tmp_path / "exported")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    check_log_probs(trained[0], model)
    assert load_model_by_name(f"hf:{tmp_path / 'exported'}").model.cast == load_model(trained[0]).model.cast
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    name = display_name(load_model(trained[0]).model.cast[0])
    start = "<|endoftext|>Stranger: Where is it?\n"
    written = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    assert written == f"{start}{name}: Here.\nSam: Why?\n{name}:"
    messages = [{"role": "system", "content": "Old Took"}, *MESSAGES]
    written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert written == f"{start}Old Took: Here.\nSam: Why?\nOld Took:"
    ids = tokenizer.apply_chat_template(MESSAGES[:1], add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert ids["input_ids"][0, 0] == 0
    tokens = model.generate(**ids, max_new_tokens=30, do_sample=True)[0, ids["input_ids"].shape[1] :]
    assert "\n" not in tokenizer.decode(tokens[:-1])


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_gguf_file_of_the_run_is_read_with_its_tokens_and_its_script(kind, trained, corpus, tmp_path):
    run = trained[0]
    if kind != "llama":
        save_model(tmp_path / "base", kind)
        run, _ = train(tmp_path, corpus, f"hf:{tmp_path / 'base'}", epochs=1)
    export_gguf(run, tmp_path / "my run.gguf")
    decoder, base = load_model(run, precision="fp32").decoder, read_base(f"gguf:{tmp_path / 'my run.gguf'}")
    assert base.tokenizer == decoder.tokenizer
    assert base.tokenizer.specials == decoder.tokenizer.specials
    ids = decoder.tokenizer.encode("Sam: Where is the Ring?\nMerry: It is safe, for tonight.\n")
    scores = score_sequence(base.decoder(int8=False), ids)
    np.testing.assert_allclose(scores, score_sequence(decoder, ids), atol=2e-2)
    name = display_name(load_model(run).model.cast[0])
    assert base.chat.template(MESSAGES).endswith(f"is it?\n{name}: Here.\nSam: Why?\n{name}:")
    assert load_model_by_name(f"gguf:{tmp_path / 'my run.gguf'}").model.cast == load_model(run).model.cast


@pytest.mark.parametrize("steps_before", [-1, 0, 5])
def test_a_stopped_run_resumes_exactly(trained, base, corpus, tmp_path, steps_before):
    whole, job, first = trained[1], prepare(tmp_path, corpus, f"hf:{base}"), []
    if steps_before < 0:
        job.run.lock.close()
    else:
        first += job.events(lambda: bool(first) and getattr(first[-1], "step", 0) >= steps_before)
    resumed = list(resume_job("tuned", tmp_path).events(lambda: False))
    for kind, times in ((Evaluated, {"seconds": 0.0}), (LinesScored, {}), (Sampled, {})):
        parts = [[replace(each, **times) for each in events_of(kind, part)] for part in (whole, first, resumed)]
        assert parts[0] == parts[1] + parts[2]
    assert resumed[-1].test_perplexity == whole[-1].test_perplexity
    assert weights_equal(*(load_file(path / ADAPTER_FILE) for path in (tmp_path / "tuned", trained[0])))


def test_a_stopped_run_has_what_a_resume_needs_and_a_finished_one_its_adapter_alone(base, corpus, tmp_path):
    """A checkpoint has the weights, two moments in single and the best weights in half precision, an adapter half."""
    job, first = prepare(tmp_path, corpus, f"hf:{base}", lora_rank=32, epochs=1, keep_epoch_checkpoints=False), []
    adapter_bytes = 2 * 32 * 2 * (4 * 32 + 2 * (32 + 16) + 3 * (32 + 64))
    first += job.events(lambda: bool(first) and getattr(first[-1], "step", 0) >= 2)
    files = {path.name: path.stat().st_size for path in job.run.path.rglob("*.safetensors")}
    assert files.keys() == {ADAPTER_FILE, RESUME_FILE}
    assert files[ADAPTER_FILE] < 1.2 * adapter_bytes
    assert files[RESUME_FILE] < (1 + 3 * 2) * adapter_bytes
    assert directory.summarize_run(job.run.path).nothing_learned == f"nothing learned yet: step 0, plain hf:{base}"
    (job.run.path / ADAPTER_FILE).unlink()
    resumed = list(resume_job("tuned", tmp_path).events(lambda: False))
    assert [ADAPTER_FILE in event.message for event in events_of(Warned, resumed)] == [True]
    assert [path.name for path in job.run.path.rglob("*.safetensors")] == [ADAPTER_FILE]
    assert not load_model(job.run.path).nothing_learned


def test_an_adapter_is_trained_further_from_its_weights(run, corpus):
    with pytest.raises(ConfigError, match=r"lora_rank=8 cannot start .* of run 'tuned'; use --set lora_rank=4"):
        prepare(run.parent, corpus, "tuned", "other", lora_rank=8)
    path, events = train(run.parent, corpus, "tuned", "other", epochs=1)
    loaded = load_model(run)
    assert json.loads((path / BASE_FILE).read_text()) == json.loads((run / BASE_FILE).read_text())
    first = events_of(Evaluated, events)[0]
    assert first.valid_perplexity == pytest.approx(loaded.valid_perplexity, rel=2e-3)  # stored in half precision
    assert isinstance(events[-1], Finished)


def test_with_rank_0_all_weights_are_trained(base, corpus, tmp_path):
    config = configure(PRESETS["lora"], lambda config: config.with_values(init=f"hf:{base}", lora_rank=0))
    assert config.training.lr == WHOLE_MODEL_LR
    assert config.model.context_size == config.training.bptt == CONTEXT_SIZE
    path, events = train(tmp_path, corpus, f"hf:{base}", lora_rank=0, epochs=1, lr=1e-3)
    assert not events_of(LinesScored, events)
    before, after = weights_of(events_of(Evaluated, events)[0]), load_model(path).decoder.weights
    assert before.keys() == after.keys()
    assert not any(np.array_equal(before[name], after[name]) for name in before)


def change_tensor(run, change):
    tensors = load_file(run / ADAPTER_FILE)
    name = next(iter(tensors))
    tensors[name] = change(tensors[name].copy())
    save_file(tensors, run / ADAPTER_FILE)


def change_reference(run, **values):
    file = run / BASE_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def change_config(run, **values):
    config = Config.from_json((run / "config.json").read_text(), "")
    (run / "config.json").write_text(config.with_values(**values).to_json())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / BASE_FILE).unlink(), r"base\.json is missing; the run is not complete$"),
        (lambda run: change_reference(run, name="hf:/nowhere"), "^run 'tuned' needs its base: hf:/nowhere: "),
        (lambda run: change_reference(run, name="smollm2"), "'tuned' needs its base: .*`lotr-tui fetch smollm2`"),
        (lambda run: change_reference(run, sha256="0" * 64), "is an adapter of another base, with the SHA-256 "),
        (lambda run: change_reference(run, name=3), r"base\.json is damaged: name: expected str, got int"),
        (lambda run: change_config(run, lora_rank=8), r"adapter_model\.safetensors: .*the run is damaged$"),
        (lambda run: change_config(run, lora_targets="q_proj"), r"adapter_model\.safetensors: .*tensors do not match"),
        (lambda run: change_tensor(run, lambda tensor: tensor * np.nan), r"safetensors: .* not finite .*damaged$"),
        (lambda run: change_tensor(run, lambda tensor: tensor[1:]), r"adapter_model\.safetensors: .*run is damaged$"),
        (lambda run: (run / ADAPTER_FILE).unlink(), "is missing; the run has not saved a model yet$"),
    ],
    ids=range(10),
)
def test_bases_and_adapters_that_do_not_fit_are_refused_in_one_line(run, monkeypatch, tmp_path, damage, message):
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "home"))
    damage(run)
    with pytest.raises(InvalidInputError, match=message):
        load_model(run)


def test_the_adapter_of_another_base_is_refused(run, tmp_path, corpus):
    save_model(tmp_path / "base", "llama", initializer_range=0.2)
    other, _ = train(tmp_path, corpus, f"hf:{tmp_path / 'base'}", "other", epochs=1)
    with pytest.raises(InvalidInputError, match=r"^run 'other' is an adapter of hf:.*/base, and not of hf:.*/tiny$"):
        load_model_by_name(str(run), adapters=[str(other)])
    shutil.copy(other / ADAPTER_FILE, run)
    with pytest.raises(InvalidInputError, match=r"adapter_model\.safetensors is an adapter of another base, with the"):
        load_model(run)
    save_model(tmp_path / "base", "llama", initializer_range=0.3)
    with pytest.raises(InvalidInputError, match="base has changed since run 'other' was trained: its SHA-256 was"):
        load_model(other)


def test_three_adapters_of_one_base_are_loaded_together_each_once(run):
    names = [str(shutil.copytree(run, run.with_name(name))) for name in ("second", "third", "fourth")]
    model = load_model_by_name(str(run), adapters=names[:2]).model
    assert model.strengths == {"tuned": 1, "second": 1, "third": 1}
    ids = np.array(model.tokenizer.encode("Is it safe?"), np.int32)
    thirds = model.with_strengths(dict.fromkeys(model.strengths, 1 / 3))  # which are copies
    np.testing.assert_allclose(score_sequence(thirds, ids), score_sequence(load_model(run).model, ids), atol=0.05)
    with pytest.raises(InvalidInputError, match=r"^adapter 'second' is named twice; name each adapter once$"):
        load_model_by_name(str(run), adapters=[names[0], names[0]])
    with pytest.raises(InvalidInputError, match=r"^4 adapters are too many for one model; use at most 3$"):
        load_model_by_name(str(run), adapters=names)


def test_a_base_with_nan_is_refused_before_a_run_is_created(base, corpus, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    tensors = load_file(tmp_path / "base" / MODEL_FILE)
    tensors["model.norm.weight"][3] = np.nan
    save_file(tensors, tmp_path / "base" / MODEL_FILE)
    with pytest.raises(InvalidInputError, match=r"base is damaged \(model\.norm\.weight holds .*\); fetch it again$"):
        prepare(tmp_path, corpus, f"hf:{tmp_path / 'base'}")
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("init", "values", "message"),
    [
        ("", {}, "lora_rank=4 changes a pre-trained model, and no --init is none; add --init smollm2"),
        ("", {"lora_rank": 0, "tokenizer": "pretrained"}, "tokenizer=pretrained is that of a pre-trained model"),
        ("hf", {"lora_targets": "q_proj,wrong"}, "lora_targets names 'wrong'"),
        ("hf", {"num_layers": 3, "context_size": 128}, "num_layers=3, context_size=128 cannot start from the weights"),
        ("hf", {"tokenizer": "bpe"}, "tokenizer=bpe cannot start from the weights of hf:"),
    ],
)
def test_impossible_settings_are_refused_before_a_run_is_created(base, corpus, tmp_path, init, values, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tmp_path, corpus, f"hf:{base}" if init else "", **values)
    assert not (tmp_path / "tuned").exists()
