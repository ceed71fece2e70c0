"""The chapters of the class: texts, tasks, and links to the code."""

import ast
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InvalidInputError, suggest_nearest

ROOT = Path(__file__).resolve().parents[2]  # contains the packages `engine` and `lotr_tui`


@dataclass(frozen=True)
class Chapter:
    """A chapter: a few sentences beside a live figure, and one task."""

    name: str
    title: str
    text: str
    task: tuple[str, ...]  # one sentence for each part; the figure recognizes when a part is done
    hint: str
    conclusion: str
    source: str  # file below `ROOT`, and qualified name of the function or class in it


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        "tokens",
        "Text becomes numbers",
        "A language model reads numbers. A tokenizer cuts a text into tokens; each has an id, its place in the "
        "vocabulary. A word outside it becomes <unk>: the model cannot tell one <unk> from another. Byte pairs (BPE) "
        "can write any text: again and again, the two neighbours that occur together most often are merged into one "
        "token. The cut-off is how often a word must occur to be known.",
        (
            "Type a word that becomes <unk>.",
            "Find the lowest cut-off at which more than 10 % of the words of the held-out text are unknown.",
        ),
        "e leads to the line: type a name that nobody in these dialogues has. tab leads to the cut-off, and → raises "
        "it until the percentage below it passes 10.0 %.",
        "A higher cut-off makes a smaller vocabulary and an easier task: a model that may say <unk> looks better than "
        "it is.",
        "engine/data/tokenizers.py · WordTokenizer",
    ),
    Chapter(
        "counting",
        "Counting already works",
        "The simplest language model counts. A unigram model knows how often each word occurs; a 5-gram model looks "
        "at four words before. Long contexts are rare. So Kneser-Ney smoothing gives their words a little less than "
        "was counted (own), and the rest to the row below: it backs off. A row adds own × the rests above.",
        (
            "Find a word that order 5 gives more than 50 %.",
            "See what order 1 gives that word.",
            "Find a word after two words that order 5 has never seen together.",
        ),
        "e leads to the line: go to a word with ctrl+← and ctrl+→, or click it, and stay there; ↑ and ↓ change the "
        'order. A set phrase has one likely next word. For two words that nobody says together, their row has "never".',
        "Counts are a strong baseline: a network has to beat them to be worth its training.",
        "engine/models/ngram.py · KneserNey.advance",
    ),
    Chapter(
        "perplexity",
        "Perplexity",
        "A good model is rarely surprised. The surprisal of a word is -log2 of its probability, in bits. Its mean "
        "over a text is the cross-entropy, and 2 to that power the perplexity: the text is as hard as a guess among "
        "that many words. Models are compared on the same held-out text. The classroom notebook that this program "
        "grew out of printed 1.000, because it scored no word (assets/docs/notebook.md).",
        (
            "Find a word with less than 1 bit of surprisal.",
            "Write a line of five words or more that counting finds easier than the network does.",
        ),
        "e leads to the line: move through its words with ctrl+← and ctrl+→, or click one. ← and → change the model "
        "of the bits. Counting knows by heart what somebody says in the dialogues.",
        "One line proves nothing: a model is good if it is rarely surprised by a long text that it has not read.",
        "engine/analysis/evaluation.py · summarize_log_probs",
    ),
    Chapter(
        "memory",
        "A network with memory",
        "A network reads a word as its embedding: numbers that are alike for words that are used alike. An LSTM keeps "
        "a cell for each unit: the forget gate says how much of it stays, the input gate how much of the candidate "
        "comes in, the output gate how much goes on (hidden). A reset forgets the words before.",
        (
            "Reset the state before the last word.",
            "Find a text after which the two predictions disagree about the most likely next word.",
        ),
        'x resets the state. e leads to the line: type the beginning of a question, such as "What did you".',
        "What the network knows of the words before is in its state, and nowhere else.",
        "engine/models/numpy_lstm.py · NumpyLSTM.advance_state",
    ),
    Chapter(
        "training",
        "Training",
        "Each step reads a window of text and moves the weights against the gradient of its loss. The state goes on "
        "into the next window, gradients do not: truncated backpropagation through time. The learning rate is how far "
        "a step goes: too low, and 20 seconds are too short; too high, and the loss jumps.",
        (
            "Train too slowly: stay above the unigram model.",
            "Train too fast: make the loss jump.",
            "Train until the held-out curve passes the 5-gram model.",
        ),
        "Move the learning rate with ← and →, and press enter to train. Try both ends of the slider first: 0.000001 "
        "and 1. A good rate lies between them, and every step of the slider multiplies it by three.",
        "A good learning rate is a few steps of the slider wide, so it is the first thing to tune.",
        "engine/training/trainer.py · Trainer.train_step",
    ),
    Chapter(
        "overfitting",
        "Overfitting and dropout",
        "A network that only minimizes its training loss learns the text by heart: its perplexity on training text "
        "goes on falling, while the one on held-out text rises again. Dropout hides random units at each step, weight "
        "drop random recurrent weights, and tying makes one matrix serve the first and the last layer. The run "
        "without any of them is prepared.",
        ("Train with a setting whose best held-out perplexity is below the best one of the run without.",),
        "Raise dropout with →, and press enter to train. More is not always better: at 0.8 the network learns too "
        "little in this time.",
        "The gap between the two curves is what the network has learned by heart; dropout makes it smaller.",
        "engine/models/torch_ops.py · dropout",
    ),
    Chapter(
        "sampling",
        "Sampling",
        "A model gives probabilities; a sampler picks a word. The temperature divides the log-probabilities: below 1, "
        "likely words become likelier, above 1 they lose. Top-k keeps the k likeliest words, top-p the smallest set "
        "with probability p, and min-p the words with at least that fraction of the likeliest one's.",
        (
            "Make the likeliest word twice as likely as at temperature 1.",
            "Make it half as likely.",
            "At temperature 1, keep fewer than ten words.",
        ),
        "Move the sliders with ← and →; tab leads to the next one. At temperature 1, lower top-k or top-p, or raise "
        "min-p. r draws other texts.",
        "A low temperature makes the model more confident, a high one less; the cuts remove what should never be said.",
        "engine/generation/generate.py · apply_chain",
    ),
    Chapter(
        "attention",
        "Attention, and what ChatGPT is",
        "A Transformer has no state. In each head, a word compares its query with the keys of itself and the words "
        "before it, and a softmax makes weights of the scores. ChatGPT is such a network, much larger: pre-trained on "
        "much of the web, then fine-tuned on conversations, which moves its weights a little. The models show what "
        "each step changes, in bits per character.",
        (
            "Type a line of your own, and find a head that looks more than half at one earlier word.",
            "Select the model that needs the fewest bits per character.",
        ),
        "e leads to the line; ↑ and ↓ change the head, ctrl+← and ctrl+→ the word that looks: the number on the right "
        "must pass 50 %. tab leads to the models; wait until they have numbers.",
        "Predict the next token, with attention, a large network and much text: this is the whole idea.",
        "engine/models/transformer.py · _Layer",
    ),
    Chapter(
        "fine-tuning",
        "Fine-tuning",
        "SmolLM2 has read the web. An adapter (LoRA) leaves its weights as they are and trains small matrices beside "
        "them, here on 60 lines of Gollum's. Afterwards they count with any strength: 0 is SmolLM2 as it came, 1 is as "
        "trained. Two numbers judge eight answers (few: they jump by chance): how likely Gollum says them, by a model "
        "of words, and the bits that SmolLM2 as it came needs for them, which rise where the language breaks.",
        ("Find a training and a strength with 50 % Gollum or more, and at most 40 % more bits than at strength 0.",),
        "Press enter to train; then tab leads to the strength, and ← → move it. Two epochs with a learning rate of "
        "0.001 are a good start. Lines of Gollum's that no training has read have 59 % and 1.9 bits per character.",
        "More training and more strength give more character, and from some point less language. Next: p keeps the "
        "model and talks to it; lotr-tui finetune --text FILE trains one on a text of yours.",
        "engine/models/adapters.py · AdaptedMatrix",
    ),
)


def find_chapter(name: str) -> int:
    """Return the index of a chapter, given its name or its number from 1."""
    names = [chapter.name for chapter in CHAPTERS]
    for index, known in enumerate(names):
        if name in (known, str(index + 1)):
            return index
    raise InvalidInputError(
        f"there is no chapter {name!r}{suggest_nearest(name, names)} The chapters are 1 to {len(CHAPTERS)}, or "
        f"{', '.join(names)}"
    )


def read_source(chapter: Chapter) -> tuple[str, int]:
    """Return the code of a chapter and the number of its first line; the file is parsed and not run."""
    file, symbol = chapter.source.split(" · ")
    text = (ROOT / file).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for name in symbol.split("."):
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", "") == name)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno]), first
