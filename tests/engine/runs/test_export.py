"""Transformer runs for transformers, llama.cpp and our reader of GGUF: the same ids, logits and texts."""

import gguf
import numpy as np
import pytest
import torch

from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.errors import RunError
from engine.models.base import predict_tokens, score_sequence
from engine.runs.export import export_gguf, export_hugging_face
from engine.runs.loading import load_model, load_model_by_name
from tests.support.files import write_run
from tests.support.open_models import LINES, bpe_tokenizer, character_tokenizer, write_transformer_run

transformers = pytest.importorskip("transformers")

WORDS = ("bilbo", "is", "a", "very", "old", "friend", "of", "mine", "and", "i", "think", "he", "knows", "it", "the")
TOKENIZERS = {
    "bpe": bpe_tokenizer(),
    "characters": character_tokenizer(),
    "words": WordTokenizer(("<unk>", "<eos>", *WORDS)),
    "whitespace": WordTokenizer(("<unk>", "<eos>", "Where", "old", "lamp"), "whitespace"),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def exported(request, tmp_path_factory):
    """Return for each tokenizer the decoder of a run, and the model and tokenizer that transformers loads."""
    folder = tmp_path_factory.mktemp("export")
    run = write_transformer_run(folder / "run", TOKENIZERS[request.param])
    export_hugging_face(run, folder / "exported")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "exported", trust_remote_code=False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "exported", trust_remote_code=False)
    return load_model(run).decoder, model, tokenizer


def test_logits_are_those_of_the_run_over_200_tokens(exported):
    decoder, model, _ = exported
    ids = np.random.default_rng(1).integers(0, len(decoder.tokenizer), 200, np.int32)
    expected, _ = predict_tokens(decoder, decoder.start(), [EOS_ID, *ids.tolist()])
    with torch.no_grad():
        logits = model(torch.tensor([[EOS_ID, *ids.tolist()]])).logits[0]
    assert np.abs(torch.log_softmax(logits, dim=-1).numpy() - expected).max() < 1e-4
    assert expected.std() > 0.1  # not a uniform distribution


def test_ids_are_those_of_the_run_after_the_token_that_starts_a_text(exported):
    tokenizer, theirs = exported[0].tokenizer, exported[2]
    assert len(theirs) == len(tokenizer)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.unk_token_id) == (1, 1, tokenizer.unk_id)
    hard_texts = ["", " ", "<eos>", "<unk> FRODO: <eos>old", " is\n\n it's\t\u00ad\0", "☺ K İ Éowyn", "it" * 300]
    for text in [*LINES, *hard_texts, " ".join(hard_texts)]:
        ids = tokenizer.encode(text).tolist()
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids, ascii(text)
        assert theirs(text)["input_ids"] == [EOS_ID, *ids], ascii(text)


def test_generate_of_transformers_continues_a_text_as_the_run_does(exported):
    decoder, model, tokenizer = exported
    batch = tokenizer("He knows it is old", return_tensors="pt")
    generated = model.generate(**batch, do_sample=False, max_new_tokens=20)[0].tolist()
    ids = [EOS_ID, *decoder.tokenizer.encode("He knows it is old").tolist()]
    assert generated[: len(ids)] == ids
    state = decoder.start()
    for index, token in enumerate(generated[:-1]):
        log_probs, state = decoder.advance(state, token)
        if index >= len(ids) - 1:
            if decoder.tokenizer.unk_id is not None:
                log_probs[decoder.tokenizer.unk_id] = -np.inf  # never generated
            assert generated[index + 1] == int(log_probs.argmax())


def test_a_lstm_and_an_existing_folder_are_refused(tmp_path):
    lstm, folder = write_run(tmp_path / "lstm"), tmp_path / "exported"
    with pytest.raises(RunError, match="'lstm' has architecture=lstm, which transformers does not have"):
        export_hugging_face(lstm, folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / "file").touch()
    with pytest.raises(RunError, match="exists, and nothing is overwritten"):  # before anything is loaded
        export_hugging_face(tmp_path / "no run", folder)
    run = write_transformer_run(tmp_path / "run", TOKENIZERS["words"])
    with pytest.raises(RunError, match=r"cannot write .*config\.json/exported: Not a directory"):
        export_hugging_face(run, run / "config.json" / "exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "lstm", "run"]


LLAMA3 = {"rope_base": 500.0, "rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 8192}
QWEN2 = {"qkv_bias": True, "rope_scaling": "linear", "rope_factor": 2.0}
TEXTS = [*LINES, "", " It's  12 or 345.\n\n\tI'LL see☺ é日 "]


@pytest.mark.parametrize(
    ("tokenizer", "values"),
    [
        (bpe_tokenizer(), {}),
        (bpe_tokenizer(), {"num_kv_heads": 2, "head_size": 16, "tie_weights": False, **LLAMA3}),
        (bpe_tokenizer(), {"num_kv_heads": 1, "feed_forward_size": 40, "norm_eps": 1e-3, **QWEN2}),
    ],
    ids=["llama", "llama3", "qwen2"],
)
def test_our_reader_finds_the_ids_and_logits_of_the_run(tokenizer, values, tmp_path):
    run = write_transformer_run(tmp_path / "run", tokenizer, **values)
    export_gguf(run, tmp_path / "run.gguf")
    export_gguf(run, tmp_path / "small.gguf", "q8_0")
    files = (f"gguf:{tmp_path / name}.gguf" for name in ("run", "small"))
    exact, small = (load_model_by_name(file, precision="fp32").decoder for file in files)
    expected = load_model(run).decoder
    for text in TEXTS:
        np.testing.assert_array_equal(exact.tokenizer.encode(text), expected.tokenizer.encode(text), text)
        assert exact.tokenizer.decode(exact.tokenizer.encode(text)) == text
    ids = np.random.default_rng(1).integers(0, len(tokenizer), 100, np.int32)
    np.testing.assert_allclose(score_sequence(exact, ids), score_sequence(expected, ids), atol=1e-4)
    np.testing.assert_allclose(score_sequence(small, ids).mean(), score_sequence(expected, ids).mean(), atol=0.02)
    assert (tmp_path / "small.gguf").stat().st_size < (tmp_path / "run.gguf").stat().st_size


@pytest.mark.parametrize("values", [{"num_kv_heads": 2}, {"qkv_bias": True, "tie_weights": False}])
def test_transformers_computes_the_logits_of_the_run(values, tmp_path):
    transformers = pytest.importorskip("transformers")
    run = write_transformer_run(tmp_path / "run", bpe_tokenizer(), **values)
    export_gguf(run, tmp_path / "run.gguf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="run.gguf", dtype=torch.float32)
    ids = np.random.default_rng(1).integers(2, 340, 100, np.int64)
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([[1, *ids[:-1]]])).logits[0], -1)
    expected = score_sequence(load_model(run).decoder, ids.astype(np.int32))
    np.testing.assert_allclose(rows[np.arange(100), ids].numpy(), expected, atol=1e-4)


def test_what_llama_cpp_does_not_have_and_existing_files_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "run.gguf"
    words = write_transformer_run(tmp_path / "words", WordTokenizer(("<unk>", "<eos>", "old", "lamp")))
    with pytest.raises(RunError, match=r"words has a tokenizer for which llama\.cpp has no name; export it"):
        export_gguf(words, file)
    with pytest.raises(RunError, match=r"architecture=lstm, which llama\.cpp does not have; --gguf exports runs"):
        export_gguf(write_run(tmp_path / "lstm"), file)
    run = write_transformer_run(tmp_path / "run", bpe_tokenizer())
    with pytest.raises(RunError, match=r"cannot write .*No such file or directory"):
        export_gguf(run, tmp_path / "missing" / "run.gguf")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(gguf.quants, "quantize", fail)
        with pytest.raises(RunError, match=r"cannot write .*run.gguf: No space left on device; free some space or"):
            export_gguf(run, file)
    file.write_text("precious")
    with pytest.raises(RunError, match=r"run\.gguf exists, and nothing is overwritten; choose a new file"):
        export_gguf(run, file)
    file.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lstm", "run", "words"]
