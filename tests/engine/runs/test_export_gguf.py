"""Transformer runs as GGUF files: our reader and transformers read the same ids and logits, and what is refused."""

import gguf
import numpy as np
import pytest
import torch

from engine.data.tokenizers import WordTokenizer
from engine.errors import RunError
from engine.models.base import score_sequence
from engine.runs.export import export_gguf
from engine.runs.loading import load_model, load_model_by_name
from tests.support.files import write_run
from tests.support.open_models import LINES, bpe_tokenizer, write_transformer_run

LLAMA3 = {"rope_base": 500.0, "rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 8192}
QWEN2 = {"qkv_bias": True, "rope_scaling": "linear", "rope_factor": 2.0}
TEXTS = [*LINES, "", " It's  12 or 345.\n\n\tI'LL see☺ é日 "]


def check_ids(ours, expected):
    for text in TEXTS:
        np.testing.assert_array_equal(ours.encode(text), expected.encode(text), text)
        assert ours.decode(ours.encode(text)) == text


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
    exact, small = (
        load_model_by_name(f"gguf:{tmp_path / name}.gguf", precision="fp32").decoder for name in ("run", "small")
    )
    expected = load_model(run).decoder
    check_ids(exact.tokenizer, expected.tokenizer)
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
