"""The LSTM language model in PyTorch, and its dynamic evaluation, which keeps training on the text that is read.

The notebook's and the paper's models are two configurations of it.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import Config, ModelConfig
from engine.data.arrays import Float32Array, chunked_bincount
from engine.data.dataset import Dataset, batchify
from engine.data.tokenizers import EOS_ID, Punctuation, TokenIds, Tokenizer
from engine.errors import InvalidInputError, RunError
from engine.models import torch_ops as ops
from engine.models.base import SequenceOutput, score_sequence
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext

SCORING_CHUNK = 1024  # maximum number of tokens that are scored at once
MAX_SCORING_LOGITS = 2**23  # maximum number of logits in memory at once while a text is scored
SUBWORD_LENGTHS = range(2, 6)
LR_GRID = (3e-5, 6e-5, 1.2e-4, 2.4e-4)
SEGMENT_LENGTH = 3  # tokens that dynamic evaluation reads between two gradient steps
BATCH_SIZE, BPTT = 20, 20  # of the windows in which the gradients on the training text are measured
MIN_GRADIENT_FRACTION = 0.1  # of the mean RMS gradient is added to each, so that weights of rare tokens do not jump


class Mogrifier(nn.Module):
    """Weights of the gates of one layer (Melis et al. 2019, arXiv 1909.01792), each a product of two thin matrices."""

    def __init__(self, input_size: int, hidden_size: int, rounds: int, rank: int) -> None:
        super().__init__()
        sizes = [(hidden_size, input_size) if index % 2 == 0 else (input_size, hidden_size) for index in range(rounds)]
        self.down = nn.ParameterList(nn.Parameter(torch.empty(rank, source)) for source, _ in sizes)
        self.up = nn.ParameterList(nn.Parameter(torch.empty(target, rank)) for _, target in sizes)


class _WeightOfSteps(torch.autograd.Function):
    # Returns `start` `[time, batch, outputs]`, to which each step adds the product of its input and `weight`. The
    # gradient of the weight is one product over all inputs: added up step by step, a training of `default` takes 1.13
    # times as long.
    @staticmethod
    def forward(ctx: Any, weight: Tensor, start: Tensor, inputs: list[Tensor]) -> Tensor:
        ctx.inputs = inputs
        return start.view_as(start)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        return gradient.flatten(0, 1).t() @ torch.stack(ctx.inputs).flatten(0, 1), gradient, None


def _step_linear(weight: Tensor, start: Tensor) -> Callable[[Tensor], Tensor]:
    # A linear layer with the bias `start` `[time, batch, outputs]` that is called once per time step.
    inputs: list[Tensor] = []
    window: Tensor = _WeightOfSteps.apply(weight, start, inputs)  # type: ignore[no-untyped-call]
    is_trained, starts, transposed = window.requires_grad, iter(window.unbind()), weight.detach().t()

    def step(vectors: Tensor) -> Tensor:
        if is_trained:
            inputs.append(vectors.detach())
        return torch.addmm(next(starts), vectors, transposed)

    return step


def run_mogrifier(
    vectors: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Tensor], mogrifier: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM layer with a mogrifier; other arguments and results are as in `torch.lstm`."""
    (hidden,), (cell,) = state
    device, dtype = vectors.device.type, vectors.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    wide = torch.promote_types(dtype, torch.float32)
    assert isinstance(mogrifier, Mogrifier)
    with torch.autocast(device, enabled=False):
        bias = (weights[2] + weights[3]).to(dtype)
        vectors, hidden, weight_ih, weight_hh = (each.to(dtype) for each in (vectors, hidden, *weights[:2]))
        # A round multiplies by 2 sigmoid(x). The weights that read the product contain the 2.
        num_rounds = len(mogrifier.down)
        joined = torch.cat([weight_ih * 2 ** ((num_rounds + 1) // 2), weight_hh * 2 ** (num_rounds // 2)], dim=1)
        gates_of = _step_linear(joined, bias.expand(*vectors.shape[:2], -1))
        zero, rounds = vectors.new_zeros(()), []
        for index, (down, up) in enumerate(zip(mogrifier.down, mogrifier.up, strict=True)):
            matrices = (down.to(dtype) * 2 ** ((index + 1) // 2), up.to(dtype))
            rounds.append([_step_linear(each, zero.expand(*vectors.shape[:2], len(each))) for each in matrices])
        outputs = []
        for inputs in vectors.unbind():
            for index, (down, up) in enumerate(rounds):
                if index % 2 == 0:
                    inputs = torch.sigmoid(up(down(hidden))) * inputs
                else:
                    hidden = torch.sigmoid(up(down(inputs))) * hidden
            gates = gates_of(torch.cat([inputs, hidden], dim=1)).to(wide)
            input_, forget, candidate, output = gates.chunk(4, dim=1)
            cell = torch.addcmul(torch.sigmoid(forget) * cell, torch.sigmoid(input_), torch.tanh(candidate))
            hidden = (torch.sigmoid(output) * torch.tanh(cell)).to(dtype)
            outputs.append(hidden)
        return torch.stack(outputs), hidden[None], cell[None]


def build_subword_matrix(tokenizer: Tokenizer) -> Tensor:
    """Return the sparse matrix `[vocabulary, subwords]` of the subwords of each word (Bojanowski et al. 2017).

    These are 2 to 5 characters of two words or more, `^` for the start and `$` for the end of a word. Each entry is
    1 / sqrt(subwords of the word). `<unk>` and `<eos>` have none.
    """
    words_with: defaultdict[str, list[int]] = defaultdict(list)
    for token_id, word in enumerate(tokenizer.tokens):
        if token_id not in (tokenizer.unk_id, EOS_ID):
            marked = f"^{word}$"
            starts = ((length, start) for length in SUBWORD_LENGTHS for start in range(len(marked) - length + 1))
            for subword in sorted({marked[start : start + length] for length, start in starts}):
                words_with[subword].append(token_id)
    shared = [token_ids for token_ids in words_with.values() if len(token_ids) > 1]
    rows = np.array([token_id for token_ids in shared for token_id in token_ids], np.int64)
    columns = np.repeat(np.arange(len(shared)), [len(token_ids) for token_ids in shared])
    values = (1 / np.sqrt(np.bincount(rows, minlength=len(tokenizer))[rows])).astype(np.float32)
    indices, size = torch.from_numpy(np.stack([rows, columns])), (len(tokenizer), len(shared))
    return torch.sparse_coo_tensor(indices, torch.from_numpy(values), size, check_invariants=True).coalesce()


class PunctuationSoftmax(nn.Module):
    """Mixture of softmaxes (Yang et al. 2018, section 2.3) with one component for each punctuation class.

    In training, the punctuation before each word selects the component; in a text without, all are summed.
    """

    def __init__(self, hidden_size: int, vocabulary_size: int) -> None:
        super().__init__()
        num_classes = len(Punctuation)  # with zeros, all are equally likely and predict the same words
        self.gate_weight = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.gate_bias = nn.Parameter(torch.zeros(num_classes))
        # The scale minus one, so that weight decay pulls the scale to one.
        self.scale = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.shift = nn.Parameter(torch.zeros(num_classes, hidden_size))
        self.bias = nn.Parameter(torch.zeros(num_classes, vocabulary_size))

    def gate_log_probs(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities `[..., classes]` of the punctuation that follows the words read."""
        hidden = hidden.to(self.gate_weight.dtype)  # bfloat16 after a forward pass with autocast
        return ops.linear(hidden, self.gate_weight, self.gate_bias).log_softmax(-1)

    def conditional_logits(
        self, hidden: Tensor, punctuation: Tensor | int, weight: Tensor, bias: Tensor, class_ids: Tensor | None = None
    ) -> Tensor:
        """Return the logits `[time, batch, words]` of the words `class_ids`, given the punctuation before them."""
        hidden = hidden * (1 + self.scale[punctuation]) + self.shift[punctuation]
        component_bias = self.bias if class_ids is None else self.bias[:, class_ids]
        return ops.linear(hidden, weight, bias) + component_bias[punctuation]

    def marginal_log_probs(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the log-probabilities `[..., vocabulary]` of the next words, summed over the punctuation classes."""
        gates = self.gate_log_probs(hidden)
        components = [
            self.conditional_logits(hidden, index, weight, bias).log_softmax(-1) + gates[..., index, None]
            for index in range(len(Punctuation))
        ]
        return torch.logsumexp(torch.stack(components), dim=0)


class LSTMModel(nn.Module):
    """Embedding, LSTM layers, and an output layer over the vocabulary (arXiv 1708.02182, sections 2 and 4)."""

    subword_matrix: Tensor
    base = None  # of an adapter

    def __init__(
        self, config: ModelConfig, vocabulary_size: int, generator: torch.Generator, subwords: Tensor | None = None
    ) -> None:
        """With `subwords`, an embedding is the sum of the vectors of a word and of its subwords."""
        super().__init__()
        self.config = config
        self.subword_embedding: nn.Parameter | None = None
        if subwords is not None:
            self.subword_embedding = nn.Parameter(torch.empty(subwords.shape[1], config.embedding_size))
            self.register_buffer("subword_matrix", subwords)
        sizes = config.layer_sizes()
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(nn.LSTM(input_size, hidden_size) for input_size, hidden_size in sizes)
        rounds, rank = config.mogrifier_rounds, config.mogrifier_rank
        self.mogrifiers = nn.ModuleList(Mogrifier(*size, rounds, rank) for size in sizes if rounds)
        self.output = nn.Linear(sizes[-1][1], vocabulary_size)
        if config.tie_weights:
            self.output.weight = self.embedding.weight
        self.punctuation_softmax = PunctuationSoftmax(sizes[-1][1], vocabulary_size) if config.punctuation else None
        notebook = config.initialization == "notebook"
        # Subword embeddings draw last, so that the other weights do not depend on whether they exist.
        for name, parameter in sorted(self.named_parameters(), key=lambda item: item[0] == "subword_embedding"):
            if name.startswith("punctuation_softmax."):
                continue  # initialized with zeros
            if "bias" in name and (notebook or name == "output.bias"):
                nn.init.zeros_(parameter)
            elif name in ("embedding.weight", "subword_embedding"):
                if notebook:
                    nn.init.normal_(parameter, generator=generator)
                else:
                    nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
            elif notebook and "weight_ih" in name:
                nn.init.xavier_uniform_(parameter, generator=generator)
            elif notebook and "weight_hh" in name:
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                is_gate = not (name == "output.weight" or name.startswith("mogrifiers."))
                fan = parameter.shape[0] // 4 if is_gate else parameter.shape[1]
                nn.init.uniform_(parameter, -(fan**-0.5), fan**-0.5, generator=generator)

    @classmethod
    def build(cls, config: Config, dataset: Dataset, weights: ops.Weights | None = None, *base: Any) -> Self:
        """Build the configured network with `weights` or random ones; an LSTM has no `base`."""
        generator, tokenizer = torch.Generator().manual_seed(config.training.seed), dataset.tokenizer
        subwords = build_subword_matrix(tokenizer) if config.model.subword_embeddings else None
        network = cls(config.model, len(tokenizer), generator, subwords)
        if weights is not None:
            network.load_weights(weights)
        elif config.model.unigram_bias:
            counts = chunked_bincount(dataset.train, len(tokenizer)) + 1.0  # add-one smoothing
            network.output.bias.data.copy_(torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32)))
        return network

    def initial_state(self, batch_size: int) -> ops.RecurrentState:
        sizes = [(1, batch_size, hidden_size) for _, hidden_size in self.config.layer_sizes()]
        return [(self.output.bias.new_zeros(size), self.output.bias.new_zeros(size)) for size in sizes]

    def forward(
        self,
        ids: Tensor,
        state: ops.RecurrentState,
        generator: torch.Generator | None = None,
        class_ids: Tensor | None = None,
        punctuation: Tensor | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> ops.NetworkOutput:
        """Read token ids `[time, batch]` and predict the token after each: all tokens, or only `class_ids`.

        Dropout needs a generator. `punctuation` `[time, batch]` after each token is given in training; without it, a
        model with a punctuation softmax returns log-probabilities summed over the classes. Each process of a
        `distributed` training draws the masks of the whole batch and uses its own columns.
        """
        config = self.config
        drop = partial(
            ops.dropout, generator=generator, distributed=distributed, variational=config.variational_dropout
        )
        embeddings = kept = self._embedding_weight()
        if generator is not None and config.embedding_dropout:  # of random tokens in the whole window (section 4.3)
            kept = kept * ops.dropout_mask(kept, (len(kept), 1), config.embedding_dropout, generator)
        vectors = raw = drop(nn.functional.embedding(ids, kept), config.input_dropout)
        new_states = []
        for i, (layer, layer_state) in enumerate(zip(self.layers, state, strict=True)):
            if i:
                vectors = drop(raw, config.hidden_dropout)
            weights: list[Tensor] = list(layer.parameters())  # input, recurrent, and the two biases
            if generator is not None and config.weight_drop:  # one mask for the whole window
                weights[1] = weights[1] * ops.dropout_mask(weights[1], weights[1].shape, config.weight_drop, generator)
            if self.mogrifiers:
                raw, hidden, cell = run_mogrifier(vectors, layer_state, weights, self.mogrifiers[i])
            else:
                # Not layer(...), because nn.LSTM runs on its own weights only. The arguments after `weights` are:
                # has_biases, num_layers, dropout, train, bidirectional, batch_first.
                is_training = generator is not None
                raw, hidden, cell = torch.lstm(vectors, layer_state, weights, True, 1, 0.0, is_training, False, False)
            new_states.append((hidden, cell))
        dropped = drop(raw, config.output_dropout)
        weight: Tensor = embeddings if config.tie_weights else self.output.weight
        bias: Tensor = self.output.bias
        if class_ids is not None:
            weight, bias = weight[class_ids], bias[class_ids]
        if self.punctuation_softmax is None:
            logits = ops.linear(dropped, weight, bias)
        elif punctuation is None:
            logits = self.punctuation_softmax.marginal_log_probs(dropped, weight, bias)
        else:
            logits = self.punctuation_softmax.conditional_logits(dropped, punctuation, weight, bias, class_ids)
        return ops.NetworkOutput(logits, new_states, raw, dropped)

    def _embedding_weight(self) -> Tensor:
        weight: Tensor = self.embedding.weight
        if self.subword_embedding is None:
            return weight
        with torch.autocast(weight.device.type, enabled=False):  # sparse products do not support bfloat16
            subword_vectors: Tensor = torch.sparse.mm(self.subword_matrix, self.subword_embedding)
            return weight + subword_vectors

    @torch.no_grad()
    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        states, previous = self.initial_state(1), EOS_ID
        num_softmaxes = len(Punctuation) if self.punctuation_softmax is not None else 1
        chunk_size = min(SCORING_CHUNK, max(1, MAX_SCORING_LOGITS // (self.output.out_features * num_softmaxes)))
        for start in range(0, len(ids), chunk_size):
            chunk = np.append(previous, ids[start : start + chunk_size])
            previous, tokens = chunk[-1], torch.from_numpy(chunk.astype(np.int64)).to(self.output.bias.device)[:, None]
            logits, states, raw, _ = self(tokens[:-1], states)
            scores = logits.log_softmax(-1).gather(-1, tokens[1:, :, None]).flatten()
            yield SequenceOutput(scores.double().cpu().numpy(), raw[:, 0].float().cpu().numpy())

    @torch.no_grad()
    def export_weights(self) -> dict[str, Float32Array]:
        """Return copies of all trained tensors by name, as `weight_shapes` lists them."""
        tensors: dict[str, Tensor] = {**dict(self.named_parameters()), "embedding.weight": self._embedding_weight()}
        tensors.pop("subword_embedding", None)
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_weights(self, weights: ops.Weights) -> None:
        for name, parameter in self.named_parameters():
            if name == "subword_embedding":
                parameter.zero_()  # exported embeddings already include the subword vectors
            else:
                parameter.copy_(torch.from_numpy(weights[name]))

    def to_decoder(self, tokenizer: Tokenizer, weights: ops.Weights | None = None) -> NumpyLSTM:
        return NumpyLSTM(self.config, tokenizer, self.export_weights() if weights is None else weights)


class DynamicEvaluation:
    """An LSTM that takes a step of gradient descent after each segment (Krause et al. 2017, arXiv 1709.07432).

    It scores whole texts only. The step of each weight is divided by the root mean square of its gradients on the
    training text.
    """

    def __init__(self, base_model: NumpyLSTM, training_ids: TokenIds, lr: float = 6e-5) -> None:
        """Measure the gradients of `base_model` on its training text; a too short one raises an InvalidInputError."""
        if len(training_ids) < 2 * BATCH_SIZE:
            raise InvalidInputError(
                f"the training text has {len(training_ids)} tokens; dynamic evaluation needs at least {2 * BATCH_SIZE}"
            )
        self.tokenizer, self.lr = base_model.tokenizer, lr
        self._model = LSTMModel(base_model.config, len(base_model.tokenizer), torch.Generator())
        self._model.load_weights(base_model.weights)
        columns = torch.from_numpy(batchify(training_ids, BATCH_SIZE)).long()
        parameters = list(self._model.parameters())
        squares = [torch.zeros_like(parameter) for parameter in parameters]
        states, starts = self._model.initial_state(BATCH_SIZE), range(0, len(columns) - 1, BPTT)
        for start in starts:
            window = columns[start : start + BPTT + 1]
            logits, states, _, _ = self._model(window[:-1], _detach(states))
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), window[1:].flatten())
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for square, gradient in zip(squares, gradients, strict=True):
                square.add_(gradient**2)
        all_rms = [(square / len(starts)).sqrt() for square in squares]
        mean = sum(float(rms.sum()) for rms in all_rms) / sum(rms.numel() for rms in all_rms)
        self._gradient_rms = [rms + MIN_GRADIENT_FRACTION * mean for rms in all_rms]

    def score_chunks(self, ids: TokenIds) -> Iterator[SequenceOutput]:
        model = deepcopy(self._model)
        inputs = torch.tensor([EOS_ID, *ids[:-1].tolist()])[:, None]
        targets = torch.tensor(ids.tolist())[:, None]
        states, parameters = model.initial_state(1), list(model.parameters())
        for start in range(0, len(ids), SEGMENT_LENGTH):
            segment = slice(start, start + SEGMENT_LENGTH)
            logits, states, raw, _ = model(inputs[segment], _detach(states))
            log_probs = torch.log_softmax(logits, dim=-1).gather(-1, targets[segment, :, None]).flatten()
            gradients = torch.autograd.grad(-log_probs.mean(), parameters)
            with torch.no_grad():
                for parameter, gradient, rms in zip(parameters, gradients, self._gradient_rms, strict=True):
                    parameter.addcdiv_(gradient, rms, value=-self.lr)
            yield SequenceOutput(log_probs.detach().double().numpy(), raw.detach()[:, 0].numpy())

    def tune_lr(self, ids: TokenIds, lr_grid: Sequence[float] = LR_GRID) -> None:
        """Set the learning rate that makes `ids` `[time]` likeliest; a RunError if the model diverges at each."""
        likelihoods = dict[float, float]()
        for lr in lr_grid:
            self.lr = lr
            likelihoods[lr] = float(score_sequence(self, ids).sum())
        finite = {lr: likelihood for lr, likelihood in likelihoods.items() if math.isfinite(likelihood)}
        if not finite:
            raise RunError("dynamic evaluation diverges at all learning rates; leave out --dynamic, or use another run")
        self.lr = max(finite, key=finite.__getitem__)


def _detach(states: ops.RecurrentState) -> ops.RecurrentState:
    return [(hidden.detach(), cell.detach()) for hidden, cell in states]
