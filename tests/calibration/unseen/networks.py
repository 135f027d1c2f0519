"""The networks with the data, loss and optimizer that they learn well with."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tests.calibration import batches
from tests.calibration.batches import Batches
from tests.calibration.networks import Network, squared_error
from tests.calibration.unseen import data, images, sequences, tables


def elbo(output: Any, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Cross-entropy of the pixels and divergence of the code, summed over an image, mean over the batch."""
    logits, mu, logvar = output
    rows = 1 if reduction == "sum" else len(mu)
    pixels = F.binary_cross_entropy_with_logits(logits, target.flatten(1), reduction="sum")
    return (pixels - 0.5 * beta * (1 + logvar - mu**2 - logvar.exp()).sum()) / rows


def symmetric(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """InfoNCE both ways."""
    return 0.5 * (
        F.cross_entropy(logits, target, reduction=reduction) + F.cross_entropy(logits.T, target, reduction=reduction)
    )


def bellman(output: Any, target: Any, gamma: float = 0.8) -> Tensor:
    (q, following), (action, reward, ended) = output, target
    goal = reward + gamma * (1 - ended) * following.max(1).values
    return F.smooth_l1_loss(q.gather(1, action[:, None])[:, 0], goal)


def physics(output: Any, target: Any) -> Tensor:
    residual, boundary = output
    return residual.float().pow(2).mean() + 10 * boundary.float().pow(2).mean()


def binary(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return F.binary_cross_entropy_with_logits(output, target, reduction=reduction)


def wasserstein(output: Any, target: Any) -> Tensor:
    real, fake, slope = output
    return fake.mean() - real.mean() + 10 * (slope - 1).pow(2).mean()


def _few_digits(seed: int) -> Batches:
    return batches.digits(seed, 16)


_GAN = (("betas", (0.0, 0.9)),)
UNSEEN = {
    network.name: network
    for network in (
        Network("denoiser", images.Denoiser, data.diffused, "AdamW", 2e-3, loss=squared_error),
        Network("wavenet", sequences.WaveNet, batches.text, "Adam", 2e-3),
        Network("seq2seq", sequences.Seq2Seq, data.reversed_words, "Adam", 4e-3),
        Network("convnext", images.ConvNext, _few_digits, "AdamW", 2e-3, (("weight_decay", 0.05),), warm_up=10),
        Network("graph", tables.GraphNet, data.graphs, "Adam", 2e-3),
        Network("vae", images.VAE, data.pixels, "Adam", 1e-3, loss=elbo),
        Network("siamese", images.Siamese, data.views, "SGD", 0.1, (("momentum", 0.9),), loss=symmetric),
        Network("dqn", tables.DQN, data.moves, "Adam", 1e-3, loss=bellman),
        Network("pinn", tables.PINN, data.places, "Adam", 2e-3, loss=physics),
        Network("conformer", sequences.Conformer, _few_digits, "AdamW", 2e-3, warm_up=20),
        Network("tied", sequences.TiedGPT, batches.text, "AdamW", 3e-3, (("weight_decay", 0.1),), warm_up=20),
        Network("tab", tables.TabTransformer, data.table, "Adam", 1e-3, warm_up=10, loss=binary),
        Network("critic", images.Critic, data.real_and_fake, "Adam", 5e-4, _GAN, loss=wasserstein),
    )
}
