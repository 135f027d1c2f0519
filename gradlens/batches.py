"""A batch is what a model's ``forward`` takes: a tensor, a tuple of positional or a mapping of keyword arguments."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradlens.errors import GradlensError, ModelError, one_line


def to_device(batch: Any, device: torch.device | str) -> Any:
    """Return the batch with every tensor in it on ``device``."""
    return torch.utils._pytree.tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, batch)


def run_model(model: nn.Module, batch: Any) -> Any:
    """Call the model with the batch: a tuple as positional, a mapping as keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple) else model(batch)


def token_facts(batch: Any, pad: int | None = None) -> list[dict[str, float]]:
    """Count the tokens of a batch, for each tensor of whole numbers [B, T] in it.

    Args:
        batch: what a model's ``forward`` takes.
        pad: the token that only fills up; it is not counted.

    Returns:
        For each tensor in order ``sequences``; ``length``, mean number of tokens in one; ``same_within`` and
        ``same_across``, the probability that two tokens of one sequence, or of two, are the same; and the same of
        all tokens but the first of each sequence, which are labels where the next token is to be predicted:
        ``next_same_within``, ``next_same_across``.
    """
    tensors = [x for x in torch.utils._pytree.tree_leaves(batch) if isinstance(x, Tensor)]
    return [
        {
            "sequences": len(tokens),
            "length": float((tokens != pad).sum() if pad is not None else tokens.numel()) / len(tokens),
            **_coincidence(tokens, pad, ""),
            **_coincidence(tokens[:, 1:], pad, "next_"),
        }
        for tokens in tensors
        if tokens.dim() == 2 and not tokens.is_floating_point()
    ]


def _coincidence(tokens: Tensor, pad: int | None, prefix: str) -> dict[str, float]:
    """Return the probabilities that two tokens are the same; 0 where there are no two."""
    kinds, numbered = torch.unique(tokens, return_inverse=True)
    counts = torch.zeros(len(tokens), len(kinds), dtype=torch.float64, device=tokens.device)
    counts.scatter_add_(1, numbered, torch.ones_like(numbered, dtype=torch.float64))
    if pad is not None:
        counts[:, kinds == pad] = 0
    lengths, everywhere = counts.sum(1), counts.sum(0)
    within = float((counts * (counts - 1)).sum()), float((lengths * (lengths - 1)).sum())
    across = float((everywhere**2 - counts.square().sum(0)).sum()), float(lengths.sum() ** 2 - lengths.square().sum())
    named = {"same_within": within, "same_across": across}
    return {f"{prefix}{name}": same / pairs if pairs else 0.0 for name, (same, pairs) in named.items()}


#: What a batch is not: everybody has met loaders that yield inputs and labels.
_LABELS = (
    " A tuple is forward's positional arguments, a dict its keywords: what only the loss needs, such as labels, goes "
    "there too, as an argument that forward need not use; loss_fn(output, batch) finds it in the batch."
)


@contextmanager
def blaming(model: nn.Module, batch: Any) -> Iterator[None]:
    """Run a user's model inside: whatever it raises is told of it and its batch.

    Raises:
        ModelError: names the model, what it raised and where, and the batch.
    """
    try:
        yield
    except GradlensError:
        raise
    except Exception as error:
        # Python says so of any call whose arguments do not fit.
        mismatched = isinstance(error, TypeError) and "argument" in str(error)
        raise ModelError(
            f"The model must take the batch; {type(model).__name__} raised {one_line(error)}. Its batch is "
            f"{describe(batch)}.{'' if isinstance(batch, Tensor) or not mismatched else _LABELS}"
        ) from error


def describe(batch: Any) -> str:
    """Describe a batch for a message: ``a float32 tensor [3, 4]``."""
    if isinstance(batch, Tensor):
        dtype = str(batch.dtype).removeprefix("torch.")
        return f"{'an' if dtype.startswith('int') else 'a'} {dtype} tensor {list(batch.shape)}"
    if isinstance(batch, Mapping):
        return "a dict of " + ", ".join(f"{key}: {describe(value)}" for key, value in batch.items())
    if isinstance(batch, tuple):
        return "a tuple of " + ", ".join(map(describe, batch))
    return f"a {type(batch).__name__}"
