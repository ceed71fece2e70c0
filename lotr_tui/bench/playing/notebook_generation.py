"""Baseline of generation: an `nn.LSTM` that samples one word after the other, as a classroom notebook does it.

`python -m lotr_tui.bench.playing.notebook_generation` prints words per second with one thread.
"""

import torch
from torch import nn

from lotr_tui.bench.measurement import measure_tokens_per_second

VOCABULARY_SIZE, HIDDEN_SIZE, NUM_LAYERS = 879, 512, 2


class BaselineLSTM(nn.Module):
    """Untrained language model: embedding, LSTM and linear layer."""

    def __init__(self) -> None:
        """Initialize random weights."""
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, HIDDEN_SIZE)
        self.lstm = nn.LSTM(HIDDEN_SIZE, HIDDEN_SIZE, NUM_LAYERS, batch_first=True)
        self.output = nn.Linear(HIDDEN_SIZE, VOCABULARY_SIZE)

    @torch.no_grad()
    def sample(self, num_tokens: int, temperature: float = 0.8) -> int:
        """Sample `num_tokens` tokens one by one, and return their number."""
        token, state = torch.tensor([[2]]), None
        for _ in range(num_tokens):
            outputs, state = self.lstm(self.embedding(token), state)
            probs = torch.softmax(self.output(outputs[:, -1]) / temperature, dim=-1)
            token = torch.multinomial(probs, num_samples=1)
        return num_tokens


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = BaselineLSTM()
    print(measure_tokens_per_second(lambda: model.sample(20), 1.0))
