"""The chapters of the class: texts, tasks, and links to the code."""

from dataclasses import dataclass

from engine.errors import InvalidInputError, suggest_nearest
from lotr_tui.learn.source_code import SourceLink


@dataclass(frozen=True)
class Chapter:
    """A chapter: a few sentences beside a live figure, and one task."""

    name: str
    """Name on the command line and in the progress file."""
    title: str
    text: str
    """Three to six sentences."""
    task: tuple[str, ...]
    """Parts of the task, one sentence each; the figure recognizes when a part is done."""
    hint: str
    """How to do the task."""
    conclusion: str
    """Lesson of the task, in one or two sentences."""
    source: SourceLink
    """Code that implements what the chapter is about."""


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        "tokens",
        "Text becomes numbers",
        "A language model reads numbers. A tokenizer cuts a text into tokens; each has an id, its place in the "
        "vocabulary. Words lose capitals and punctuation, and one outside the vocabulary becomes <unk>: the model "
        "cannot tell one <unk> from another. Characters and byte pairs (BPE) can write any text, but need more "
        "tokens. The cut-off is how often a word must occur in the training text to be known.",
        (
            "Type a line that has an <unk>.",
            "Find the lowest cut-off at which more than 10 % of the words of the held-out text are unknown.",
        ),
        "Type a name that nobody in these dialogues has. Press tab to reach the cut-off, and → to raise it until the "
        "percentage below it passes 10.0 %.",
        "A higher cut-off makes a smaller vocabulary and an easier task: a model that may say <unk> looks better than "
        "it is.",
        SourceLink("engine/data/tokenizers/words.py", "WordTokenizer"),
    ),
    Chapter(
        "counting",
        "Counting already works",
        "The simplest language model counts. A unigram model knows how often each word occurs; a 5-gram model looks "
        "at four words before. Long contexts are rare. So Kneser-Ney smoothing gives their words a little less than "
        "was counted (own), and the rest to the row below: it backs off. A row adds own × the rests above.",
        (
            "Find a word that order 5 gives more than 50 %.",
            "See what order 1 gives it.",
            "Find a word after two words that order 5 has never seen together.",
        ),
        "Move through the words with ctrl+← and ctrl+→, or click one; ↑ and ↓ change the order. A set phrase "
        'has one likely next word. For two words of your own that nobody says together, their row has "never".',
        "Counts are a strong baseline: a network has to beat them to be worth its training.",
        SourceLink("engine/models/ngram.py", "KneserNey.advance"),
    ),
    Chapter(
        "perplexity",
        "Perplexity",
        "A good model is rarely surprised. The surprisal of a word is -log2 of its probability, in bits. Its mean "
        "over a text is the cross-entropy, and 2 to that power the perplexity: the text is as hard as a guess among "
        "that many words. The classroom notebook that this program grew out of printed 1.000: it scores only whole "
        "windows of 50 words, and its rows have 36.",
        (
            "Find a word with less than 1 bit of surprisal.",
            "Find the largest window with which the notebook scores any word.",
        ),
        "Move through the words with ← and →. Press tab to reach the notebook's window, and shrink it with ←: a row "
        "has 36 words, and the first one is only read.",
        "A perplexity says nothing before you know what was scored. Even then, the notebook divides by one too many.",
        SourceLink("engine/analysis/evaluation.py", "summarize_log_probs"),
    ),
    Chapter(
        "memory",
        "A network with memory",
        "An LSTM keeps a cell for each unit. The forget gate says how much of it stays, the input gate how much of "
        "the candidate is added, the output gate how much the next layer sees (hidden). Reset before the last word, "
        "the LSTM knows that word alone, as in the classroom notebook that this program grew out of.",
        (
            "Reset the state before the last word.",
            "Find a text after which the two predictions disagree about the most likely next word.",
        ),
        'Press f8 to reset the state, and type the beginning of a question, such as "What did you".',
        "What the network knows of the words before is in its state, and nowhere else.",
        SourceLink("engine/models/numpy_lstm.py", "NumpyLSTM.advance_state"),
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
        SourceLink("engine/training/trainer.py", "Trainer.train_step"),
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
        SourceLink("engine/models/torch_ops.py", "dropout"),
    ),
    Chapter(
        "sampling",
        "Sampling",
        "A model gives probabilities; a sampler picks a word. The temperature divides the log-probabilities. Top-k "
        "keeps the k likeliest words, top-p the smallest set with probability p, and min-p the words with at least "
        "that fraction of the likeliest one's. A comment in the notebook that this program grew out of says that a "
        "high temperature makes the model more confident.",
        (
            "Test it: make the likeliest word twice as likely as at temperature 1.",
            "Make it half as likely.",
            "At temperature 1, keep fewer than ten words.",
        ),
        "Press tab to reach the sliders, and move them with ← and →. At temperature 1, lower top-k or top-p, or raise "
        "min-p.",
        "The comment has the direction wrong: a low temperature makes the model more confident, a high one less.",
        SourceLink("engine/generation/sampling.py", "apply_temperature"),
    ),
    Chapter(
        "attention",
        "Attention, and what ChatGPT is",
        "A Transformer has no state. In each head, a word compares its query with the keys of itself and the words "
        "before it, and a softmax makes weights of the scores. ChatGPT is such a network, much larger: pre-trained on "
        "much of the web, then trained on conversations. The models show what pre-training changes: with old tales "
        "first, an LSTM needs fewer bits per character.",
        (
            "Type a line of your own, and find a head that looks more than half at one earlier word.",
            "Select the model that needs the fewest bits per character.",
        ),
        "Type a line, press tab, and move with ↑ ↓ through the heads and with ← → through the words: the number on the "
        "right must pass 50 %. f8 leads to the models (tab, where both are visible); wait until they "
        "have numbers.",
        "Predict the next token, with attention in place of a state, a larger network and much more text to read "
        "first: this is the whole idea. At this size attention does not beat the LSTM; with more text and weights, it "
        "does.",
        SourceLink("engine/models/transformer.py", "_Attention"),
    ),
)
"""All chapters, in their order."""


def find_chapter(name: str) -> int:
    """Return the index of a chapter, given its name or its number from 1.

    Raises:
        InvalidInputError: If there is no such chapter.
    """
    names = [chapter.name for chapter in CHAPTERS]
    if name in names:
        return names.index(name)
    numbers = [str(number) for number in range(1, len(CHAPTERS) + 1)]
    if name in numbers:
        return numbers.index(name)
    raise InvalidInputError(
        f"there is no chapter {name!r}{suggest_nearest(name, names)} The chapters are 1 to {len(CHAPTERS)}, or "
        f"{', '.join(names)}"
    )


def first_open_chapter(done: tuple[str, ...]) -> int:
    """Return the index of the first chapter whose task is not done, or 0 if all are done."""
    return next((index for index, chapter in enumerate(CHAPTERS) if chapter.name not in done), 0)
