"""Independent implementation of Kneser-Ney, for tests."""

from collections import Counter, defaultdict

from engine.data.tokenizers.base import EOS_ID


class ReferenceKneserNey:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999) with dictionaries and recursion only."""

    def __init__(self, ids, size, order):
        self.size, self.order = size, order
        text = [EOS_ID, *ids]
        ngrams = {n: Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for n in range(1, order + 1)}
        self.counts = {order: dict(ngrams[order])}
        for n in range(1, order):
            tokens_before = defaultdict(set)
            for ngram in ngrams[n + 1]:
                tokens_before[ngram[1:]].add(ngram[0])
            self.counts[n] = {ngram: len(tokens) for ngram, tokens in tokens_before.items()}
        self.discounts = {n: self._discounts(counts) for n, counts in self.counts.items()}

    @staticmethod
    def _discounts(counts):
        count_of_counts = Counter(counts.values())
        n1, n2, n3, n4 = (count_of_counts[k] for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return 0.5, 1.0, 1.5
        y = n1 / (n1 + 2 * n2)
        estimates = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        return estimates if min(estimates) > 0 else (0.5, 1.0, 1.5)

    def prob(self, token, context):
        lower = self.prob(token, context[1:]) if context else 1 / self.size
        n = len(context) + 1
        following = {ngram[-1]: c for ngram, c in self.counts[n].items() if ngram[:-1] == context}
        total = sum(following.values())
        if not total:
            return lower
        discounted = sum(self._discount(n, c) for c in following.values())
        count = following.get(token, 0)
        return (count - self._discount(n, count)) / total + discounted / total * lower

    def _discount(self, n, count):
        return self.discounts[n][min(count, 3) - 1] if count else 0.0

    def distribution(self, history):
        context = tuple(history[len(history) - min(len(history), self.order - 1) :])
        return [self.prob(token, context) for token in range(self.size)]
