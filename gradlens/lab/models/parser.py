"""The transition classifier of Chen & Manning 2014, "A Fast and Accurate Dependency Parser using Neural Networks".

Xu et al. 2019 (1911.07013) parse with an MLP of this kind; of its settings we know only that their table calls it 3
layers. Of Chen & Manning are: embeddings of words, tags and relations put end to end, one hidden layer of the cubes of
its units, a softmax over transitions; 50 numbers an embedding for 200 hidden units. Ours are: the norm between the
linear map and the nonlinearity, where Ba et al. 2016 put it; embeddings N(0, 1), matrices Xavier normal and a head
N(0, 1/width), as in the zoo's other models, and no pre-trained embeddings; more than one hidden layer on demand, then
with ReLU, because cubes of cubes leave the range of float32 where there is no norm.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.models.plain import Plain
from gradlens.lab.models.sublayers import xavier_linear

NONLINEARITIES: Mapping[str, Callable[[Tensor], Tensor]] = {"cube": lambda x: x**3, "relu": torch.relu}


class Parser(Plain):
    """Scores of transitions for states of a parser, each a row of symbols: words, tags and relations.

    Args:
        variant: ``plain`` or ``plain/NORM``, such as ``plain/adanorm``.
        symbols: how many words, tags and relations there are.
        places: how many of each a row holds, in this order.
        transitions: how many there are.
        width: units in a hidden layer.
        blocks: hidden layers.
        embedding: length of an embedding. Default: a quarter of the width, as in Chen & Manning.
        activation: ``cube`` or ``relu``. Default: ``cube`` for one hidden layer, ``relu`` for more.
        dropout: probability, after each hidden layer.

    Raises:
        UnknownNameError: no arrangement, norm or activation has this name.
        ModelError: the arrangement is one of residual blocks, or a size is impossible.
    """

    family = "parser"

    def __init__(
        self,
        variant: str,
        *,
        symbols: tuple[int, int, int],
        places: tuple[int, int, int],
        transitions: int,
        width: int = 200,
        blocks: int = 1,
        embedding: int | None = None,
        activation: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(variant)
        embedding = max(1, width // 4) if embedding is None else embedding
        self._sizes = {"width": width, "blocks": blocks, "embedding": embedding}
        for name, size in self._sizes.items():
            if size < 1:
                raise ModelError(f"{name} must be at least 1, got {size}.")
        if not 0 <= dropout < 1:
            raise ModelError(f"dropout must be at least 0 and below 1, got {dropout}.")
        self.activation = ("cube" if blocks == 1 else "relu") if activation is None else activation
        if self.activation not in NONLINEARITIES:
            raise UnknownNameError("activation", self.activation, NONLINEARITIES)
        self._places = list(places)
        self.words, self.tags, self.relations = (nn.Embedding(count, embedding) for count in symbols)
        for i in range(blocks):
            # Not in a list: a list of equal parts would look like a stack of residual blocks.
            self.add_module(f"linear{i}", xavier_linear(width if i else sum(places) * embedding, width, bias=True))
            self.add_module(f"norm{i}", self.new_norm(width))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, transitions, bias=False)
        nn.init.normal_(self.head.weight, std=width**-0.5)

    def forward(self, states: Tensor, transitions: Tensor | None = None) -> Tensor:
        """Return a score of each transition [N, transitions].

        Args:
            states: symbols [N, places]: words, then tags, then relations, each kind with numbers of its own.
            transitions: not used; a batch holds the right ones for the loss.

        Raises:
            ModelError: the states have another number of places.
        """
        if states.dim() != 2 or states.shape[1] != sum(self._places):
            raise ModelError(
                f"The parser takes states of shape [N, {sum(self._places)}], got {list(states.shape)}. Pass such "
                f"states, or build it with other places."
            )
        words, tags, relations = torch.split(states, self._places, dim=1)
        embedded = self.words(words), self.tags(tags), self.relations(relations)
        x = torch.cat([part.flatten(1) for part in embedded], dim=1)
        nonlinearity = NONLINEARITIES[self.activation]
        for i in range(self._sizes["blocks"]):
            x = self._modules[f"linear{i}"](x)  # type: ignore[misc]
            x = self.dropout(nonlinearity(self._modules[f"norm{i}"](x)))  # type: ignore[misc]
        scores: Tensor = self.head(x)
        return scores

    def describe(self) -> dict[str, Any]:
        """Return the sizes, the variant and the number of parameters as plain values."""
        return super().describe() | self._sizes | {"activation": self.activation, "dropout": self.dropout.p}
