"""The LSTM language model in PyTorch; the notebook's and the paper's models are two configurations of it."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import ModelConfig
from engine.data.arrays import Float32Array, Float64Array, chunked_bincount
from engine.data.punctuation import PUNCTUATION_CLASSES
from engine.data.tokenizers.base import EOS_ID, TokenIds, Tokenizer
from engine.models.bf16_lstm import MIN_HIDDEN_SIZE, lstm_bf16
from engine.models.dropout import drop_tokens, dropout, dropout_mask
from engine.models.linear import linear
from engine.models.mogrifier import Mogrifier
from engine.models.mogrifier_lstm import mogrifier_lstm
from engine.models.network import LayerGroup, Network, NetworkOutput, RecurrentState
from engine.models.numpy_lstm import NumpyLSTM
from engine.models.punctuation_softmax import PunctuationSoftmax
from engine.models.subword_embeddings import SubwordMatrix
from engine.runtime.distributed import SINGLE_PROCESS, DistributedContext

SCORING_CHUNK = 1024
"""Maximum number of tokens that are scored at once."""
MAX_SCORING_LOGITS = 2**23
"""Maximum number of logits in memory at once while a text is scored."""


class LSTMModel(Network):
    """Embedding, LSTM layers, and an output layer over the vocabulary (arXiv 1708.02182, sections 2 and 4)."""

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        generator: torch.Generator,
        subwords: SubwordMatrix | None = None,
    ) -> None:
        """Create the layers and initialize their weights from `generator`.

        With `subwords`, the embedding of a word is its vector plus the vectors of its subwords. `export_weights`
        returns these sums, so that inference does not depend on subwords.
        """
        super().__init__()
        self.config = config
        self.subword_embedding: nn.Parameter | None = None
        self.subword_matrix: Tensor
        if subwords is not None:
            self.subword_embedding = nn.Parameter(torch.empty(subwords.num_subwords, config.embedding_size))
            indices = torch.from_numpy(np.stack([subwords.token_ids, subwords.subword_ids]))
            values = torch.from_numpy(subwords.values)
            size = (vocabulary_size, subwords.num_subwords)
            matrix = torch.sparse_coo_tensor(indices, values, size, check_invariants=True)
            self.register_buffer("subword_matrix", matrix.coalesce())
        sizes = config.layer_sizes()
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_size)
        self.layers = nn.ModuleList(nn.LSTM(input_size, hidden_size) for input_size, hidden_size in sizes)
        rounds, rank = config.mogrifier_rounds, config.mogrifier_rank
        self.mogrifiers = nn.ModuleList(Mogrifier(*size, rounds, rank) for size in sizes if rounds)
        self.output = nn.Linear(sizes[-1][1], vocabulary_size)
        if config.tie_weights:
            self.output.weight = self.embedding.weight
        self.punctuation_softmax = PunctuationSoftmax(sizes[-1][1], vocabulary_size) if config.punctuation else None
        self._init_weights(generator)

    @torch.no_grad()
    def _init_weights(self, generator: torch.Generator) -> None:
        notebook = self.config.initialization == "notebook"
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

    @torch.no_grad()
    def init_output_bias(self, ids: TokenIds) -> None:
        """Set the output bias to the log frequencies of the tokens in `ids` `[time]`, with add-one smoothing."""
        counts = chunked_bincount(ids, self.output.out_features) + 1.0
        self.output.bias.copy_(torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32)))

    def initial_state(self, batch_size: int) -> RecurrentState:
        """Return hidden and cell states of zeros for `batch_size` columns."""
        like = self.output.bias
        return [
            (like.new_zeros(1, batch_size, hidden_size), like.new_zeros(1, batch_size, hidden_size))
            for _, hidden_size in self.config.layer_sizes()
        ]

    def forward(
        self,
        ids: Tensor,
        state: RecurrentState,
        dropout_generator: torch.Generator | None = None,
        class_ids: Tensor | None = None,
        punctuation: Tensor | None = None,
        distributed: DistributedContext = SINGLE_PROCESS,
    ) -> NetworkOutput:
        """Read a BPTT window of tokens and predict the token after each of them: see the base class."""
        config = self.config
        embeddings = self._embedding_weight()
        vectors = nn.functional.embedding(ids, drop_tokens(embeddings, config.embedding_dropout, dropout_generator))
        vectors = self._dropout(vectors, config.input_dropout, dropout_generator, distributed)
        new_states = []
        raw = vectors
        for i, (layer, layer_state) in enumerate(zip(self.layers, state, strict=True)):
            assert isinstance(layer, nn.LSTM)
            if i:
                vectors = self._dropout(raw, config.hidden_dropout, dropout_generator, distributed)
            mogrifier = self.mogrifiers[i] if self.config.mogrifier_rounds else None
            raw, hidden, cell = self._run_layer(layer, mogrifier, vectors, layer_state, dropout_generator)
            new_states.append((hidden, cell))
        dropped = self._dropout(raw, config.output_dropout, dropout_generator, distributed)
        weight: Tensor = embeddings if config.tie_weights else self.output.weight
        bias: Tensor = self.output.bias
        if class_ids is not None:
            weight, bias = weight[class_ids], bias[class_ids]
        if self.punctuation_softmax is None:
            logits = linear(dropped, weight, bias)
        elif punctuation is None:
            logits = self.punctuation_softmax.marginal_log_probs(dropped, weight, bias)
        else:
            logits = self.punctuation_softmax.conditional_logits(dropped, punctuation, weight, bias, class_ids)
        return NetworkOutput(logits, new_states, raw, dropped)

    def _embedding_weight(self) -> Tensor:
        """Return the embeddings `[vocabulary, embedding]`, subword vectors included."""
        weight: Tensor = self.embedding.weight
        if self.subword_embedding is None:
            return weight
        with torch.autocast(weight.device.type, enabled=False):  # sparse products do not support bfloat16
            subword_vectors: Tensor = torch.sparse.mm(self.subword_matrix, self.subword_embedding)
            return weight + subword_vectors

    def _dropout(
        self, vectors: Tensor, p: float, dropout_generator: torch.Generator | None, distributed: DistributedContext
    ) -> Tensor:
        return dropout(vectors, p, dropout_generator, distributed, variational=self.config.variational_dropout)

    def _run_layer(
        self,
        layer: nn.LSTM,
        mogrifier: nn.Module | None,
        vectors: Tensor,
        state: tuple[Tensor, Tensor],
        dropout_generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one LSTM layer; weight drop masks its recurrent weights once for the whole window."""
        weights: list[Tensor] = list(layer.parameters())  # input, recurrent, and the two biases
        training = dropout_generator is not None
        if dropout_generator is not None and self.config.weight_drop:
            shape = tuple(weights[1].shape)
            weights[1] = weights[1] * dropout_mask(weights[1], shape, self.config.weight_drop, dropout_generator)
        if isinstance(mogrifier, Mogrifier):
            return mogrifier_lstm(mogrifier, vectors, state, weights)
        in_bf16 = vectors.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if in_bf16 and training and layer.hidden_size >= MIN_HIDDEN_SIZE:
            return lstm_bf16(vectors, state, weights)
        # Not layer(...), because nn.LSTM runs on its own weights only. The arguments after `weights` are:
        # has_biases, num_layers, dropout, train, bidirectional, batch_first.
        return torch.lstm(vectors, state, weights, True, 1, 0.0, training, False, False)

    @torch.no_grad()
    def _iter_scored_chunks(self, ids: TokenIds) -> Iterator[tuple[Float64Array, Tensor]]:
        """Yield log-probabilities `[time]` and hidden vectors `[time, hidden]`, chunk by chunk."""
        device, states, previous = self.output.bias.device, self.initial_state(1), EOS_ID
        num_softmaxes = len(PUNCTUATION_CLASSES) if self.punctuation_softmax is not None else 1
        logits_per_token = self.output.out_features * num_softmaxes
        chunk_size = min(SCORING_CHUNK, max(1, MAX_SCORING_LOGITS // logits_per_token))
        for start in range(0, len(ids), chunk_size):
            targets = torch.from_numpy(ids[start : start + chunk_size].astype(np.int64))
            inputs = torch.cat([torch.tensor([previous]), targets[:-1]])
            previous = int(targets[-1])
            targets = targets.to(device)
            logits, states, raw, _ = self(inputs.to(device)[:, None], states)
            log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
            target_log_probs = log_probs.gather(-1, targets[:, None, None]).flatten()
            yield target_log_probs.double().cpu().numpy(), raw[:, 0]

    def layer_groups(self) -> list[LayerGroup]:
        """Return the layer groups from top to bottom: see the base class."""
        num_layers = len(self.layers)
        groups: list[LayerGroup] = [{} for _ in range(num_layers + 2)]
        for name, parameter in self.named_parameters():
            if name.startswith(("layers.", "mogrifiers.")):
                groups[num_layers - int(name.split(".")[1])][name] = parameter
            elif "embedding" in name and not self.config.tie_weights:
                groups[-1][name] = parameter
            else:
                groups[0][name] = parameter
        return [group for group in groups if group]

    @torch.no_grad()
    def export_weights(self) -> dict[str, Float32Array]:
        """Return copies of all tensors by name, as `NumpyLSTM` and `model.safetensors` store them."""
        tensors: dict[str, Tensor] = {**dict(self.named_parameters()), "embedding.weight": self._embedding_weight()}
        tensors.pop("subword_embedding", None)
        return {name: tensor.detach().float().cpu().numpy().copy() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Float32Array]) -> None:
        """Copy the tensors that `export_weights` returned into this model."""
        for name, parameter in self.named_parameters():
            if name == "subword_embedding":
                parameter.zero_()  # exported embeddings already include the subword vectors
            else:
                parameter.copy_(torch.from_numpy(weights[name]))

    def to_decoder(self, tokenizer: Tokenizer, weights: Mapping[str, Float32Array] | None = None) -> NumpyLSTM:
        """Return the model with `weights` (see the base class) for inference in numpy."""
        return NumpyLSTM(self.config, tokenizer, self.export_weights() if weights is None else weights)
