"""The plain way to sample, as a classroom notebook does it: an `nn.LSTM` that is handed one word after the other."""

import torch
from torch import nn


class PlainModel(nn.Module):
    """Embeddings, an LSTM and a linear layer, never trained."""

    def __init__(self, words: int, width: int, layers: int, threads: int = 1) -> None:
        super().__init__()
        torch.set_num_threads(threads)
        self.words = nn.Embedding(words, width)
        self.memory = nn.LSTM(width, width, layers, batch_first=True)
        self.scores = nn.Linear(width, words)

    @torch.no_grad()
    def sample(self, length: int, temperature: float = 0.8) -> int:
        """Draw so many words, one at a time; how many there were."""
        token, state = torch.tensor([[2]]), None
        for _ in range(length):
            outputs, state = self.memory(self.words(token), state)
            chances = torch.softmax(self.scores(outputs[:, -1]) / temperature, dim=-1)
            token = torch.multinomial(chances, num_samples=1)
        return length
