"""Transformer runs as folders for the library transformers: the same ids, logits and texts."""

import numpy as np
import pytest
import torch

from engine.data.tokenizers import EOS_ID, WordTokenizer
from engine.errors import RunError
from engine.models.base import predict_tokens
from engine.runs.export import export_hugging_face
from engine.runs.loading import load_model
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
def run_and_folder(request, tmp_path_factory):
    """Return a run directory and its export, for each tokenizer."""
    folder = tmp_path_factory.mktemp("export")
    run = write_transformer_run(folder / "run", TOKENIZERS[request.param])
    export_hugging_face(run, folder / "exported")
    return run, folder / "exported"


def load_exported(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    return model, transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def exported_log_probs(model, ids):
    """Return the log-probabilities `[time + 1, vocabulary]` after `<eos>` and after each of `ids`."""
    with torch.no_grad():
        logits = model(torch.tensor([[EOS_ID, *ids]])).logits[0]
    return torch.log_softmax(logits, dim=-1).numpy()


def test_logits_are_those_of_the_run_over_200_tokens(run_and_folder):
    run, folder = run_and_folder
    decoder = load_model(run).decoder
    ids = np.random.default_rng(1).integers(0, len(decoder.tokenizer), 200, np.int32)
    expected, _ = predict_tokens(decoder, decoder.start(), [EOS_ID, *ids[:-1].tolist()])
    model, _ = load_exported(folder)
    difference = np.abs(exported_log_probs(model, ids.tolist())[:-1] - expected)
    assert difference.max() < 1e-4
    assert expected.std() > 0.1  # not a uniform distribution


def test_ids_are_those_of_the_run_after_the_token_that_starts_a_text(run_and_folder):
    run, folder = run_and_folder
    tokenizer = load_model(run).decoder.tokenizer
    _, exported = load_exported(folder)
    assert len(exported) == len(tokenizer)
    assert (exported.bos_token_id, exported.eos_token_id, exported.unk_token_id) == (1, 1, tokenizer.unk_id)
    hard_texts = ["", " ", "<eos>", "<unk> FRODO: <eos>old", " is\n\n it's\t\u00ad\0", "☺ K İ Éowyn", "it" * 300]
    for text in [*LINES, *hard_texts, " ".join(hard_texts)]:
        ids = tokenizer.encode(text).tolist()
        assert exported(text, add_special_tokens=False)["input_ids"] == ids, ascii(text)
        assert exported(text)["input_ids"] == [EOS_ID, *ids], ascii(text)


def test_generate_of_transformers_continues_a_text_as_the_run_does(run_and_folder):
    run, folder = run_and_folder
    decoder = load_model(run).decoder
    model, exported = load_exported(folder)
    batch = exported("He knows it is old", return_tensors="pt")
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
