"""A small neural language model in numpy: the next token from the tokens before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Tokens = NDArray[np.integer]


class Adam:
    """Adam with bias correction, in place.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """

    def __init__(self, parameters: list[Floats], rate: float, betas: tuple[float, float] = (0.9, 0.99)) -> None:
        self._parameters = parameters
        self._rate = rate
        self._betas = betas
        self._mean = [np.zeros_like(p) for p in parameters]
        self._square = [np.zeros_like(p) for p in parameters]
        self._step = 0

    def step(self, gradients: list[Floats]) -> None:
        """Move every parameter against its gradient."""
        self._step += 1
        b1, b2 = self._betas
        rate = self._rate * (1 - b2**self._step) ** 0.5 / (1 - b1**self._step)
        for p, g, m, v in zip(self._parameters, gradients, self._mean, self._square, strict=True):
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            p -= rate * m / (np.sqrt(v) + 1e-8)


class LanguageModel:
    """Embedding of a context of tokens, one hidden layer, softmax over the vocabulary.

    Source: Bengio et al., "A Neural Probabilistic Language Model", JMLR 3 (2003).

    Parameters
    ----------
    vocabulary, context, width, hidden : int
        Tokens known, tokens of context, numbers per token, hidden units.
    seed : int
        Seed of the initial weights.
    dtype : dtype
        Type of all weights; float64 lets a test compare with finite differences.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        width: int = 24,
        hidden: int = 192,
        seed: int = 0,
        dtype: type[np.floating] = np.float32,
    ) -> None:
        rng = np.random.default_rng(seed)

        def weights(rows: int, columns: int, scale: float) -> Floats:
            return (rng.standard_normal((rows, columns)) * scale).astype(dtype)

        inputs = context * width
        self.context = context
        self.embedding = weights(vocabulary, width, 0.3)
        self.w1 = weights(inputs, hidden, inputs**-0.5)
        self.b1 = np.zeros(hidden, dtype)
        # Small output weights: the first guess is uniform, so the first loss is log(vocabulary).
        self.w2 = weights(hidden, vocabulary, 0.1 * hidden**-0.5)
        self.b2 = np.zeros(vocabulary, dtype)

    @property
    def parameters(self) -> list[Floats]:
        """The weights, in the order of the gradients."""
        return [self.embedding, self.w1, self.b1, self.w2, self.b2]

    @property
    def size(self) -> int:
        """How many numbers the weights are."""
        return sum(p.size for p in self.parameters)

    def gradients(self, windows: Tokens) -> tuple[float, list[Floats]]:
        """Return the mean loss in nats a token, and its gradients.

        Parameters
        ----------
        windows : ndarray of integers, shape (n, context + 1)
            Each row is a context and the token that follows it.
        """
        context, target = windows[:, : self.context], windows[:, self.context]
        inputs = self.embedding[context].reshape(len(windows), -1)
        hidden = np.tanh(inputs @ self.w1 + self.b1)
        loss, d_logits = _cross_entropy(hidden @ self.w2 + self.b2, target)

        d_hidden = (d_logits @ self.w2.T) * (1 - hidden * hidden)
        d_inputs = d_hidden @ self.w1.T
        d_embedding = _sum_by_token(context, d_inputs, self.embedding)
        return loss, [d_embedding, inputs.T @ d_hidden, d_hidden.sum(0), hidden.T @ d_logits, d_logits.sum(0)]


def _cross_entropy(logits: Floats, target: Tokens) -> tuple[float, Floats]:
    """Return the mean loss, and its gradient by the logits."""
    rows = np.arange(len(target))
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(sums[:, 0]) - logits[rows, target]))
    gradient = exponentials / sums
    gradient[rows, target] -= 1
    return loss, gradient / np.asarray(len(target), gradient.dtype)


def _sum_by_token(context: Tokens, gradient: Floats, like: Floats) -> Floats:
    """Add the gradients of all places where a token stood; sorting beats ``np.add.at`` many times."""
    tokens = context.ravel()
    rows = gradient.reshape(tokens.size, -1)
    order = np.argsort(tokens, kind="stable")
    ordered = tokens[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    total = np.zeros_like(like)
    total[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return total
