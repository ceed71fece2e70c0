"""Figures in the documents that a program can compute, each in the sentence that states it.

All others are measured; the documents name the command that prints them.
"""

import csv
import re
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from safetensors import safe_open

from engine.analysis.memorization import MAX_INDEXED_ITEMS
from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.tales import BOOKS
from engine.models.dialogue import FEATURES
from engine.models.ngram import MAX_KNESER_NEY_TOKENS
from engine.models.pretrained.fetch import SOURCE_BYTES
from engine.models.weights import weight_shapes
from engine.presets import PRESETS
from engine.runs.directory import read_config
from engine.runs.loading import read_config_and_tokenizer
from engine.training import diagnoses
from lotr_tui.cli.generate import MAX_PROMPT_BYTES
from lotr_tui.cli.machine import learn
from lotr_tui.cli.main import COMMANDS
from lotr_tui.cli.text import MAX_TEXT_BYTES
from lotr_tui.learn.chapters import CHAPTERS
from lotr_tui.screens.inspect.comparison import WIDE_TEMPERATURES
from tests.support.files import CHECKOUT

ASSETS, README = CHECKOUT / "assets", "../../README.md"
LINE = "Aragorn: You have my word, Théoden-King!"
NUM_STORY_CHAPTERS = 7
NAMES = """GANDALF FRODO SAM GOLLUM ARAGORN LEGOLAS GIMLI BILBO MERRY PIPPIN BOROMIR GALADRIEL ELROND EOWYN TREEBEARD
SARUMAN"""


def bundled_dialogues(_):
    data = {name: load_dataset(DataConfig(tokenizer=name)) for name in ("words", "whitespace", "characters", "bpe")}
    for name, dataset in data.items():
        ids, tokenizer = dataset.tokenizer.encode(LINE), dataset.tokenizer
        unknown = "0" if tokenizer.is_open else f"{100 * np.mean(dataset.train == 0):.1f} %"
        yield "tokenizers.md", f"| `{name}` | {len(tokenizer):,} | {len(dataset.train):,} | {unknown} |"
        shown = " ".join(f"`{tokenizer.tokens[id]}`".replace(" ", "·") for id in ids)
        yield "tokenizers.md", f"| `{name}` | {len(ids)}: {'one per character' if name == 'characters' else shown}"
    ratio = len(data["characters"].train) / len(data["bpe"].train)
    yield "tokenizers.md", f"have {ratio:.1f} times as many tokens as with `bpe`"
    with (ASSETS / "dialogues.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scenes, speakers = Counter(row["movie"] for row in rows), Counter(row["char"] for row in rows)
    story, counts = sum(list(scenes.values())[:NUM_STORY_CHAPTERS]), [speakers[name] for name in NAMES.split()]
    yield README, f"{len(rows):,} lines in the spirit of Middle-earth"
    yield "bundled-model.md", f"our own writing, {len(rows):,} lines of dialogue"
    yield (
        "bundled-model.md",
        f"a story of {story:,} lines, and {len(rows) - story:,} lines in {len(scenes) - NUM_STORY_CHAPTERS} scenes",
    )
    yield "bundled-model.md", f"have {min(counts)} to {max(counts)} lines each"
    yield "bundled-model.md", f"greets, asks and thanks, has {speakers['STRANGER']:,}"


def film_dialogues(request):
    path = request.getfixturevalue("lotr_csv")
    notebook = load_dataset(PRESETS["notebook"].with_values(corpus=str(path)).data)
    num_rows = PRESETS["notebook"].training.batch_size
    yield "notebook.md", f"its {num_rows} rows have 36 words, or {len(notebook.valid) // num_rows} with our split"
    for document in ("perplexity.md", "results.md"):
        yield document, f"A split has about {round(len(notebook.test), -2):,} tokens"
    yield "perplexity.md", f"The training split has {len(notebook.train):,} words"
    dialogue = load_dataset(PRESETS["dialogue"].with_values(corpus=str(path), tokenizer="characters").data)
    counts = Counter(line.speaker for line in dialogue.corpus.lines)
    frequent = [name for name in dialogue.cast if counts[name] >= 20]
    yield "dialogue.md", f"the {len(frequent)} speakers with 20 lines or more that are in the cast"
    text = (path.parent / "scenes" / "test.txt").read_text("utf-8")
    yield "pretraining.md", f"{len(text.splitlines())} held-out lines"
    yield "pretraining.md", f"({len(text):,} characters)"


def models(_):
    for name in ("lstm", "base"):
        config, tokenizer = read_config_and_tokenizer(ASSETS / name)
        size, parameters = len(tokenizer), millions(weight_shapes(config.model, len(tokenizer)).values())
        what = f"{config.model.hidden_size} units and {size:,} byte pairs, {parameters} million parameters"
        megabytes = (ASSETS / name / "model.safetensors").stat().st_size / 1e6
        yield "bundled-model.md", f"Both LSTMs have {what}, in int8 ({megabytes:.1f} MB each)"
        yield "speed.md", f"samples from {size:,} tokens"
        yield "pretraining.md", f"one layer of {what}"
    file, adapter = ASSETS / "model" / "adapter_model.safetensors", read_config(ASSETS / "model").model
    with safe_open(file, "numpy") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118 (no mapping)
    yield (
        "bundled-model.md",
        f"rank {adapter.lora_rank} of all seven matrices of each of SmolLM2's {adapter.num_layers} layers, "
        f"{millions(shape for shape in shapes if min(shape) == adapter.lora_rank)} million numbers in int8 "
        f"({file.stat().st_size / 1e6:.1f} MB)",
    )
    yield (
        "bundled-model.md",
        f"`lora_alpha` is {adapter.lora_alpha} in both configurations instead of {2 * adapter.lora_rank}",
    )
    gpt, tiny, size = PRESETS["gpt"].model, PRESETS["gpt-tiny"].model, PRESETS["gpt"].data.vocabulary_size
    yield (
        "transformers.md",
        f"`gpt` has {gpt.num_layers} layers of {gpt.embedding_size} units with {gpt.num_heads} heads, a context of "
        f"{gpt.context_size} tokens and {size:,} byte pairs: {millions(weight_shapes(gpt, size).values())} million "
        f"parameters. `gpt-tiny` has {tiny.num_layers} layers of {tiny.embedding_size}.",
    )

    for preset in ("ptb", "paper"):  # on the 10,000 words of the Penn Treebank
        shapes = weight_shapes(PRESETS[preset].model, 10_000).values()
        yield "penn-treebank.md", f"{sum(int(np.prod(shape)) for shape in shapes):,}"


def millions(shapes):
    return f"{sum(int(np.prod(shape)) for shape in shapes) / 1e6:.1f}"


def limits(_):
    size = next(item.metadata["meta"] for item in fields(DataConfig) if item.name == "vocabulary_size")
    yield "tokenizers.md", f"up to `vocabulary_size` ({DataConfig().vocabulary_size:,})"
    yield "tokenizers.md", f"A larger `vocabulary_size` ({size.ge:,} to {size.le:,})"
    for document in ("usage.md", "pretraining.md", README):
        yield document, f"{len(BOOKS)} "
    yield README, f"SmolLM2-135M-Instruct, {SOURCE_BYTES / 1e6:.0f} MB, once"
    yield "usage.md", f"SmolLM2 ({SOURCE_BYTES / 1e6:.0f} MB, Apache 2.0)"
    for number, chapter in enumerate(CHAPTERS, start=1):
        yield "usage.md", f"| {number} | `{chapter.name}` |"
    yield (
        "usage.md",
        f"A prompt on stdin has at most {MAX_PROMPT_BYTES:,} bytes, a text for `tokenize` {MAX_TEXT_BYTES:,}",
    )
    yield (
        "usage.md",
        (
            f"Kneser-Ney ({MAX_KNESER_NEY_TOKENS // 10**6} million tokens) or copied passages "
            f"({MAX_INDEXED_ITEMS // 10**6} million words)"
        ),
    )
    *first, last = (f"{temperature:g}" for temperature in WIDE_TEMPERATURES)
    yield "usage.md", f"{', '.join(first)} and {last}"
    for preset in PRESETS:
        yield "usage.md", f"`{preset}`"
    yield "dialogue.md", f"a conditional logit of {len(FEATURES)} features"
    yield "diagnostics.md", f"running median of {2 * diagnoses.NUM_REPORTS} reports"
    yield "diagnostics.md", f"not in the first {diagnoses.NUM_REPORTS} reports"


@pytest.mark.parametrize("figures", [bundled_dialogues, film_dialogues, models, limits])
def test_documents_state_the_figures_that_the_program_computes(figures, request):
    texts = {path.name: " ".join(path.read_text("utf-8").split()) for path in (ASSETS / "docs").glob("*.md")}
    texts[README] = " ".join((CHECKOUT / "README.md").read_text("utf-8").split())
    missing = [(document, sentence) for document, sentence in figures(request) if sentence not in texts[document]]
    assert missing == []


def test_documents_and_help_leave_the_number_of_chapters_to_the_table():
    texts = [(CHECKOUT / path).read_text("utf-8") for path in ("README.md", "assets/docs/usage.md")]
    texts += [COMMANDS["learn"][1], learn.__doc__ or ""]
    assert [text for text in texts if re.search(r"(\d|eight|nine|ten|eleven|twelve)( short)? chapters", text)] == []


def test_links_of_documents_lead_to_files_and_headings():
    documents = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    missing = []
    for document in (*documents, *(ASSETS / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            if not target.startswith("http") and not (path.exists() and (not anchor or anchor in anchors(path))):
                missing.append((document.name, target))
    assert missing == []


def anchors(path):
    """Return the anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
