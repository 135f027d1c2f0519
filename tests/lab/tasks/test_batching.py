import numpy as np
import pytest
import torch

from gradlens.lab.tasks.batching import Epochs, padded

LENGTHS = np.random.default_rng(0).integers(1, 30, size=200)


@pytest.mark.parametrize("epochs", [Epochs(LENGTHS, 16), Epochs(LENGTHS, 200, tokens=64), Epochs(LENGTHS, 1000)])
def test_every_example_comes_once_an_epoch(epochs):
    for epoch in range(3):
        batches = [epochs.batch(epoch * len(epochs) + k, seed=(0, 1)) for k in range(len(epochs))]
        assert sorted(np.concatenate(batches)) == list(range(200))


def test_a_batch_holds_neighbours_in_length_within_its_limits():
    epochs = Epochs(LENGTHS, 12, tokens=100)
    for k in range(len(epochs)):
        lengths = LENGTHS[epochs.batch(k, seed=(0,))]
        assert len(lengths) <= 12
        assert len(lengths) * lengths.max() <= 100
        assert np.ptp(lengths) <= 3


def test_only_seed_and_index_decide_the_order():
    batches = [[Epochs(LENGTHS, 16).batch(k, seed=(0, s)).tolist() for k in range(5)] for s in (1, 1, 2)]
    assert batches[0] == batches[1] != batches[2]


def test_an_example_longer_than_a_batch_is_one_of_its_own():
    epochs = Epochs(np.array([3, 50, 3]), 8, tokens=6)
    assert sorted(sorted(epochs.batch(k, seed=(0,)).tolist()) for k in range(2)) == [[0, 2], [1]]


def test_padding_comes_last():
    assert torch.equal(padded([[5, 6], [7]], 0), torch.tensor([[5, 6], [7, 0]]))
