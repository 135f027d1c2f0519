"""Recurrent networks with layer normalization: Ba et al. 2016 (1607.06450), Eq. 4 and 20 to 28 of their supplement.

With the norm "none" they are the usual ones. N is the norm under study, each with a gain and bias of its own.

    RNN   h' = tanh(N(W_h h + W_x x))
    LSTM  f, i, o, g = N(W_h h) + N(W_x x) + b;  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) tanh(N(c'))
    GRU   z, r = N(W_h h) + N(W_x x);  ĥ = tanh(N(W x) + σ(r) N(U h));  h' = (1 − σ(z)) h + σ(z) ĥ

Shapes: B sequences, T tokens, D width.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.models.plain import Plain
from gradlens.lab.norms import NORMS

#: Cell to the gates that it makes of each of W_h h and W_x x in one norm, in units of the width.
CELLS = {"rnn": 1, "lstm": 4, "gru": 2}


class Recurrent(Plain):
    """Tokens in, logits of the next one out; one cell, started from zeros.

    Args:
        variant: ``plain`` or ``plain/NORM``.
        vocab: tokens.
        cell: a name in ``CELLS``.
        width: D.
        blocks: not used; there is one layer.
        heads: not used.
        dropout: probability, on what the classifier reads.
        eps: of the norms; the paper has none.

    Raises:
        UnknownNameError: no arrangement, norm or cell has this name.
        ModelError: the variant has residual blocks, or a size is impossible.
    """

    family = "recurrent"

    def __init__(
        self,
        variant: str,
        *,
        vocab: int,
        cell: str = "lstm",
        width: int = 128,
        blocks: int = 1,
        heads: int | None = None,
        dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(variant)
        if cell not in CELLS:
            raise UnknownNameError("cell", cell, CELLS)
        if width < 1 or not 0 <= dropout < 1:
            raise ModelError(f"width must be at least 1, dropout in [0, 1); got {width}, {dropout}.")
        self.cell, self.width, gates = cell, width, CELLS[cell]
        self.embedding = nn.Embedding(vocab, width)
        self.hidden, self.input = (nn.Linear(width, gates * width, bias=False) for _ in range(2))
        norm = partial(NORMS[self.norm], eps=eps)
        self.norm_hidden = norm(gates * width)
        if cell != "rnn":
            self.norm_input = norm(gates * width)
        self.bias = nn.Parameter(torch.zeros(gates * width))
        if cell == "lstm":
            self.norm_cell = norm(width)
        if cell == "gru":
            self.candidate_hidden, self.candidate_input = (nn.Linear(width, width, bias=False) for _ in range(2))
            self.norm_candidate_hidden, self.norm_candidate_input = norm(width), norm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocab)

    @property
    def recurrent(self) -> list[nn.Linear]:
        """The maps of the state and of the input."""
        return [module for name, module in self.named_children() if isinstance(module, nn.Linear) and name != "head"]

    def start(self, x: Tensor) -> Tensor:
        """Return the state before the first token, of zeros: h [B, D], of an LSTM h and c [B, 2D]."""
        return x.new_zeros(len(x), self.width * (2 if self.cell == "lstm" else 1))

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Return the state behind one more input.

        Args:
            x: [B, D].
            state: as ``start`` has it.
        """
        if self.cell == "rnn":
            return torch.tanh(self.norm_hidden(self.hidden(state) + self.input(x)) + self.bias)
        h = state[:, : self.width]
        gates = self.norm_hidden(self.hidden(h)) + self.norm_input(self.input(x)) + self.bias
        if self.cell == "gru":
            update, reset = torch.sigmoid(gates).chunk(2, dim=1)
            of_state = self.norm_candidate_hidden(self.candidate_hidden(h))
            candidate = torch.tanh(self.norm_candidate_input(self.candidate_input(x)) + reset * of_state)
            return (1 - update) * h + update * candidate
        forget, add, out, new = gates.chunk(4, dim=1)
        c = torch.sigmoid(forget) * state[:, self.width :] + torch.sigmoid(add) * torch.tanh(new)
        return torch.cat([torch.sigmoid(out) * torch.tanh(self.norm_cell(c)), c], dim=1)

    def states(self, tokens: Tensor) -> list[Tensor]:
        """Return the state behind each of the tokens [B, T]."""
        inputs = self.embedding(tokens)
        found = [self.step(inputs[:, 0], self.start(inputs[:, 0]))]
        for at in range(1, tokens.shape[1]):
            found.append(self.step(inputs[:, at], found[-1]))
        return found

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, T, vocab] for tokens [B, T]."""
        h = torch.stack([state[:, : self.width] for state in self.states(tokens)], dim=1)
        logits: Tensor = self.head(self.dropout(h))
        return logits

    def describe(self) -> dict[str, Any]:
        """Return the sizes, the variant and the number of parameters as plain values."""
        return super().describe() | {"cell": self.cell, "width": self.width, "dropout": self.dropout.p}
