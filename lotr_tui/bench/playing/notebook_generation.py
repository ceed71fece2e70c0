"""The plain way to sample, as a classroom notebook does it: an `nn.LSTM` that is handed one word after the other."""

import torch
from torch import nn

from lotr_tui.bench.figures import words_per_second

WORDS, WIDTH, LAYERS = 879, 512, 2


class PlainModel(nn.Module):
    """Embeddings, an LSTM and a linear layer, never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.memory = nn.LSTM(WIDTH, WIDTH, LAYERS, batch_first=True)
        self.scores = nn.Linear(WIDTH, WORDS)

    @torch.no_grad()
    def sample(self, length: int, temperature: float = 0.8) -> int:
        """Draw so many words, one at a time; how many there were."""
        token, state = torch.tensor([[2]]), None
        for _ in range(length):
            outputs, state = self.memory(self.words(token), state)
            chances = torch.softmax(self.scores(outputs[:, -1]) / temperature, dim=-1)
            token = torch.multinomial(chances, num_samples=1)
        return length


if __name__ == "__main__":
    torch.set_num_threads(1)
    model = PlainModel()
    print(words_per_second(lambda: model.sample(20), 1.0))
