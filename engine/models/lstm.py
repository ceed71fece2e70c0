"""The LSTM language model in PyTorch. The notebook's and the paper's are two configurations of it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import count
from engine.data.punctuation import PAUSES
from engine.data.vocabulary import EOS_ID, Ids, Vocabulary
from engine.models.base import Trace
from engine.models.bf16_lstm import WORTH_IT_FROM, lstm_bf16
from engine.models.linear import linear
from engine.models.numpy_lstm import Decoder
from engine.models.punctuation_softmax import PauseSoftmax
from engine.models.subword_embeddings import Spelling
from engine.runtime.distributed import ALONE, World

States = Sequence[tuple[Tensor, Tensor]]
"""Hidden and cell state of every layer, each `[1, batch, hidden]`."""

SCORING_CHUNK = 1024
"""Words of a text that are scored at once."""
SCORING_LOGITS = 2**23
"""Numbers that this may make at most."""


class Network(nn.Module):
    """Embedding, LSTM layers, output layer over the vocabulary (arXiv 1708.02182, sections 2 and 4).

    Dropout of every kind happens when, and only when, `forward` is given a generator to draw masks from;
    `train()` and `eval()` make no difference.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        generator: torch.Generator,
        spelling: Spelling | None = None,
    ) -> None:
        """Make the layers and draw their weights.

        With a `spelling`, a word's embedding is the sum of one of its own and those of its groups of letters;
        `weights` gives that sum, so that whoever plays the model need not know.
        """
        super().__init__()
        self.config = config
        self.letters: nn.Parameter | None = None
        self.spelling: Tensor
        if spelling is not None:
            self.letters = nn.Parameter(torch.empty(spelling.number_of_groups, config.embedding_size))
            indices = torch.from_numpy(np.stack([spelling.words, spelling.groups]))
            values = torch.from_numpy(spelling.values)
            size = (vocabulary_size, spelling.number_of_groups)
            matrix = torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
            self.register_buffer("spelling", matrix.coalesce())
        sizes = config.layer_sizes()
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(nn.LSTM(inputs, hidden) for inputs, hidden in sizes)
        self.output = nn.Linear(sizes[-1][1], vocabulary_size)
        if config.tied:
            self.output.weight = self.embedding.weight
        self.pauses = PauseSoftmax(sizes[-1][1], vocabulary_size) if config.pauses else None
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        notebook = self.config.initialisation == "notebook"
        # Letters last, so that all other weights are the same without them.
        for name, parameter in sorted(self.named_parameters(), key=lambda item: item[0] == "letters"):
            if name.startswith("pauses."):
                continue  # made of zeros already
            if "bias" in name and (notebook or name == "output.bias"):
                nn.init.zeros_(parameter)
            elif name in ("embedding.weight", "letters"):
                if notebook:
                    nn.init.normal_(parameter, generator=generator)
                else:
                    nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
            elif notebook and "weight_ih" in name:
                nn.init.xavier_uniform_(parameter, generator=generator)
            elif notebook and "weight_hh" in name:
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                fan = parameter.shape[1] if name == "output.weight" else parameter.shape[0] // 4
                nn.init.uniform_(parameter, -(fan**-0.5), fan**-0.5, generator=generator)

    @torch.no_grad()
    def start_from_unigram(self, ids: Ids) -> None:
        """Set the output bias to the log frequencies of `ids`, each word counted once more than seen."""
        counts = count(ids, self.output.out_features) + 1.0
        self.output.bias.copy_(torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32)))

    def start(self, batch: int) -> States:
        """States of zeros for `batch` columns."""
        like = self.output.bias
        return [
            (like.new_zeros(1, batch, hidden), like.new_zeros(1, batch, hidden))
            for _, hidden in self.config.layer_sizes()
        ]

    def forward(
        self,
        ids: Tensor,
        states: States,
        masks: torch.Generator | None = None,
        words: Tensor | None = None,
        pauses: Tensor | None = None,
        world: World = ALONE,
    ) -> tuple[Tensor, States, Tensor, Tensor]:
        """Read a window of words.

        Args:
            ids: `[time, batch]`.
            states: those after the window before; detach them to cut back-propagation there.
            masks: where dropout masks are drawn from; None for no dropout.
            words: ids of the words to compute logits of, in their order; None for all.
            pauses: what stands after each word `[time, batch]`, for a model that learns of pauses; None for a text
                that does not say: then the logits are log-probabilities, summed over what it may be.
            world: those who read the other columns of the batch, each of whom draws the masks of all of it.

        Returns:
            Logits `[time, batch, vocabulary or words]`, new states, and the last layer's output `[time, batch, hidden]`
            before and after dropout (what TAR and AR penalise, section 4.6).
        """
        config = self.config
        embeddings = self._embeddings()
        vectors = self._embed(embeddings, ids, masks)
        vectors = self._drop(vectors, config.dropout_input, masks, world)
        new_states = []
        raw = vectors
        for i, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            assert isinstance(layer, nn.LSTM)
            if i:
                vectors = self._drop(raw, config.dropout_between, masks, world)
            raw, hidden, cell = self._run(layer, vectors, state, masks)
            new_states.append((hidden, cell))
        dropped = self._drop(raw, config.dropout_output, masks, world)
        weight: Tensor = embeddings if config.tied else self.output.weight
        bias: Tensor = self.output.bias
        if words is not None:
            weight, bias = weight[words], bias[words]
        if self.pauses is None:
            logits = linear(dropped, weight, bias)
        elif pauses is None:
            logits = self.pauses.log_probs(dropped, weight, bias)
        else:
            logits = self.pauses.given(dropped, pauses, weight, bias, words)
        return logits, new_states, raw, dropped

    def _embeddings(self) -> Tensor:
        """`[vocabulary, embedding]`, what words share by their spelling added."""
        weight: Tensor = self.embedding.weight
        if self.letters is None:
            return weight
        with torch.autocast(weight.device.type, enabled=False):  # sparse products know no bf16
            shared: Tensor = torch.sparse.mm(self.spelling, self.letters)
            return weight + shared

    def _embed(self, weight: Tensor, ids: Tensor, masks: torch.Generator | None) -> Tensor:
        if masks is not None and self.config.dropout_words:
            weight = weight * _mask(weight, (weight.shape[0], 1), self.config.dropout_words, masks)
        return nn.functional.embedding(ids, weight)

    def _drop(self, vectors: Tensor, share: float, masks: torch.Generator | None, world: World) -> Tensor:
        if masks is None or not share:
            return vectors
        time, batch, size = vectors.shape
        shape = (1 if self.config.locked else time, batch * world.place.size, size)
        return vectors * world.columns(_mask(vectors, shape, share, masks))

    def _run(
        self, layer: nn.LSTM, vectors: Tensor, state: tuple[Tensor, Tensor], masks: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One LSTM layer, its recurrent weights dropped with one mask for the whole window."""
        weights: list[Tensor] = list(layer.parameters())  # input, recurrent, and the two biases
        if masks is not None and self.config.weight_drop:
            weights[1] = weights[1] * _mask(weights[1], tuple(weights[1].shape), self.config.weight_drop, masks)
        in_bf16 = vectors.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if in_bf16 and masks is not None and layer.hidden_size >= WORTH_IT_FROM:
            return lstm_bf16(vectors, state, weights)
        # Not layer(...): nn.LSTM can only run on the weights it owns, and these may be masked ones.
        return torch.lstm(vectors, state, weights, True, 1, 0.0, masks is not None, False, False)

    def trace(self, ids: Ids) -> Trace:
        """Read a whole text, a chunk at a time."""
        chunks = list(self._read(ids))
        hidden = torch.cat([vectors for _, vectors in chunks])
        return Trace(np.concatenate([scores for scores, _ in chunks]), hidden.cpu().numpy())

    def score(self, ids: Ids) -> npt.NDArray[np.float64]:
        """The scores of `trace` alone; a long text has more hidden vectors than memory."""
        return np.concatenate([scores for scores, _ in self._read(ids)])

    @torch.no_grad()
    def _read(self, ids: Ids) -> Iterator[tuple[npt.NDArray[np.float64], Tensor]]:
        """Scores and hidden vectors of chunk after chunk: of fewer words where there are many to compare each with."""
        device, states, before = self.output.bias.device, self.start(1), EOS_ID
        compared = self.output.out_features * (len(PAUSES) if self.pauses is not None else 1)
        chunk = min(SCORING_CHUNK, max(1, SCORING_LOGITS // compared))
        for begin in range(0, len(ids), chunk):
            targets = torch.from_numpy(ids[begin : begin + chunk].astype(np.int64))
            inputs = torch.cat([torch.tensor([before]), targets[:-1]])
            before = int(targets[-1])
            targets = targets.to(device)
            logits, states, raw, _ = self(inputs.to(device)[:, None], states)
            log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
            scores = log_probs.gather(-1, targets[:, None, None]).flatten()
            yield scores.double().cpu().numpy(), raw[:, 0].float()

    @torch.no_grad()
    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of all tensors by name, as `Decoder` and `model.safetensors` have them."""
        values: dict[str, Tensor] = {name: value for name, value in self.named_parameters() if name != "letters"}
        values["embedding.weight"] = self._embeddings()
        return {name: value.detach().float().cpu().numpy().copy() for name, value in values.items()}

    @torch.no_grad()
    def load(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Take over what `weights` gave."""
        for name, parameter in self.named_parameters():
            if name == "letters":
                parameter.zero_()  # what they add is in the embeddings already
            else:
                parameter.copy_(torch.from_numpy(weights[name]))

    def decoder(self, vocabulary: Vocabulary) -> Decoder:
        """The model as it stands, for playing; later training does not change it."""
        return Decoder(self.config, vocabulary, self.weights())


def _mask(like: Tensor, shape: tuple[int, ...], share: float, generator: torch.Generator) -> Tensor:
    """Zeros with probability `share`, else 1/(1-share), so that the mean stays as it was.

    On the CPU four of them are cut out of each 64 bits drawn, a tenth of the work of `bernoulli_`; so the share is
    kept to 1 in 65,536 there.
    """
    keep = 1.0 - share
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    if like.device.type != "cpu":  # pragma: no cover - the tests have no GPU
        return mask.bernoulli_(keep, generator=generator).div_(keep)
    drawn = torch.empty(-(-mask.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    numbers = drawn.view(torch.int16)[: mask.numel()].view(shape)
    kept = round(keep * 2**16)
    return torch.lt(numbers, kept - 2**15, out=mask).mul_(2**16 / kept)
