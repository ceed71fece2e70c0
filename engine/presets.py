"""Named configurations: LSTMs from `default` to `ptb`, the Transformers `gpt-tiny` and `gpt`, the adapter `lora`."""

from dataclasses import replace
from typing import NoReturn

from engine.config import BASE, Config, DataConfig, ModelConfig, TrainingConfig
from engine.errors import ConfigError, suggest_nearest
from engine.models.pretrained.names import SMOLLM2

_NO_DROPOUT = ModelConfig(embedding_dropout=0.0, input_dropout=0.0, hidden_dropout=0.0, output_dropout=0.0,
                          weight_drop=0.0, variational_dropout=False, subword_embeddings=False,
                          unigram_bias=False)  # fmt: skip
_TRANSFORMER = replace(_NO_DROPOUT, architecture="transformer")
_FINE_TUNED = ModelConfig(punctuation=True, embedding_dropout=0.0, input_dropout=0.3, output_dropout=0.4,
                          weight_drop=0.0)  # fmt: skip
_BOOKS = DataConfig(tokenizer="bpe", split="scenes", held_out=0.003, min_characters=1)


class Presets(dict[str, Config]):
    """Presets by name; an unknown name raises a ConfigError."""

    def __missing__(self, name: str) -> NoReturn:
        raise ConfigError(f"unknown preset {name!r}{suggest_nearest(name, self)} The presets: {', '.join(self)}")


PRESETS = Presets({config.preset: config for config in (
    # A mogrifier learns faster than a plain LSTM, and memorizes faster: fewer epochs, and more dropout.
    Config(
        "default",
        model=ModelConfig(embedding_size=400, hidden_size=400, mogrifier_rounds=4, punctuation=True, input_dropout=0.65,
                          output_dropout=0.65, weight_drop=0.6),
        training=TrainingConfig(epochs=50),
    ),
    # Seven epochs are enough to beat Kneser-Ney, and too few to need strong dropout or averaging.
    Config(
        "tiny",
        model=ModelConfig(embedding_size=200, hidden_size=200, punctuation=True, embedding_dropout=0.0,
                          input_dropout=0.4, output_dropout=0.4, weight_drop=0.2),
        training=TrainingConfig(epochs=7, bptt=35, lr=0.012, weight_decay=0.01, label_smoothing=0.05, averaging="none"),
    ),
    # Learns from teachers (`--teacher RUN`), mostly from text that they write, of which there is no end: less dropout.
    Config(
        "student",
        model=ModelConfig(embedding_size=400, hidden_size=400, mogrifier_rounds=4, punctuation=True,
                          embedding_dropout=0.1, input_dropout=0.4, output_dropout=0.4, weight_drop=0.3),
        training=TrainingConfig(epochs=40, teacher_weight=0.7, teacher_columns=40, ema_decay=0.995),
    ),
    # Pre-training on books: contiguous text, little dropout, and nearly all of the text for training.
    Config(
        "base", _BOOKS,
        ModelConfig(embedding_size=768, hidden_size=768, subword_embeddings=False, embedding_dropout=0.0,
                    input_dropout=0.1, output_dropout=0.1, weight_drop=0.0),
        TrainingConfig(epochs=12, batch_size=64, bptt=64, shuffle_lines=False, lr=0.003, warmup_fraction=0.05,
                       weight_decay=0.01, ema_decay=0.998, eval_every_steps=400, checkpoint_seconds=120.0,
                       keep_epoch_checkpoints=False, sample_prompt="The old king"),
    ),
    # From the bundled pre-trained model, or from the run of `--init`; the initial model determines the sizes.
    Config(
        "finetune",
        model=_FINE_TUNED,
        training=TrainingConfig(init=BASE, epochs=16, shuffle_lines=False, lr=0.001, weight_decay=0.05, patience=4),
    ),
    # As `finetune`, with speakers, and windows that reach back to the lines before.
    Config(
        "dialogue", DataConfig(mode="dialogue", split="scenes", min_characters=-1),
        _FINE_TUNED,
        TrainingConfig(init=BASE, epochs=10, bptt=40, lr=0.001, weight_decay=0.05, ema_decay=0.99, patience=4),
    ),
    # Low-rank changes of SmolLM2, or of the pre-trained model of `--init`, which determines sizes and tokenizer.
    Config(
        "lora", DataConfig(tokenizer="pretrained", mode="stream", split="scenes", min_characters=-1),
        replace(_TRANSFORMER, variational_dropout=True, lora_rank=32, lora_alpha=64.0, lora_dropout=0.1),
        TrainingConfig(init=SMOLLM2, epochs=3, batch_size=8, bptt=256, shuffle_lines=False, lr=8e-4,
                       schedule="slanted_triangular", warmup_fraction=0.1, weight_decay=0.01, beta2=0.95,
                       averaging="none", name_weight=0.0, checkpoint_seconds=60.0, keep_epoch_checkpoints=False),
    ),
    # A Transformer that learns the dialogues in a minute or two; much weight decay makes up for little text.
    Config(
        "gpt-tiny",
        model=replace(_TRANSFORMER, embedding_size=128, num_layers=4, num_heads=4, context_size=64, input_dropout=0.3,
                      hidden_dropout=0.3, output_dropout=0.4),
        training=TrainingConfig(epochs=45, batch_size=16, bptt=64, lr=0.003, weight_decay=1.0, label_smoothing=0.05,
                                ema_decay=0.99),
    ),
    # A Transformer of 8 million parameters for books, such as the tales; `--init` fine-tunes it on less text.
    Config(
        "gpt", _BOOKS,
        replace(_TRANSFORMER, embedding_size=320, num_layers=6, num_heads=5, context_size=128),
        TrainingConfig(epochs=4, batch_size=32, bptt=128, shuffle_lines=False, lr=0.002, warmup_fraction=0.05,
                       weight_decay=0.1, beta2=0.95, ema_decay=0.998, eval_every_steps=400, checkpoint_seconds=120.0,
                       keep_epoch_checkpoints=False, sample_prompt="The old king"),
    ),
    # The notebook, with its evaluation bug; `--set validation_metric=perplexity` trains the same model without it.
    Config(
        "notebook", DataConfig(mode="stream"),
        replace(_NO_DROPOUT, embedding_size=512, hidden_size=512, num_layers=2, tie_weights=False,
                initialization="notebook", input_dropout=0.65, hidden_dropout=0.65, output_dropout=0.65),
        TrainingConfig(epochs=50, batch_size=64, bptt=50, shuffle_lines=False, seed=1234, precision="fp32",
                       optimizer="adam", lr=0.001, schedule="plateau", beta2=0.999, weight_decay=0.0, clip=0.25,
                       averaging="none", validation_metric="notebook"),
    ),
    # The paper's model for Penn Treebank (section 5): 10,000 tokens, 24,221,600 parameters.
    Config(
        "paper",
        model=ModelConfig(embedding_size=400, hidden_size=1150, num_layers=3, subword_embeddings=False,
                          unigram_bias=False, embedding_dropout=0.1, input_dropout=0.4, hidden_dropout=0.3,
                          output_dropout=0.4),
        training=TrainingConfig(
            epochs=750, fine_tune_epochs=750, batch_size=40, bptt=70, variable_bptt=True, shuffle_lines=False,
            optimizer="sgd", lr=30.0, schedule="constant", weight_decay=1.2e-6, clip=0.25, ar=2.0, tar=1.0,
            averaging="nt_asgd", keep_epoch_checkpoints=False,  # each has 97 MB
        ),
    ),
    # Penn Treebank within an hour on two CPU cores: a small model and a sampled softmax.
    Config(
        "ptb",
        model=ModelConfig(embedding_size=512, hidden_size=512, mogrifier_rounds=4, mogrifier_rank=64,
                          subword_embeddings=False, embedding_dropout=0.1, input_dropout=0.5, output_dropout=0.5,
                          weight_drop=0.5),
        training=TrainingConfig(epochs=32, batch_size=40, bptt=35, shuffle_lines=False, softmax_samples=2000, lr=0.005,
                                warmup_fraction=0.2, weight_decay=0.02, clip=0.5, ema_decay=0.999, eval_every_epochs=2),
    ),
)})  # fmt: skip
