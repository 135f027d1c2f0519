import torch

from gradlens.lab.training.seeding import fan_out, isolated_rng


def test_every_use_of_a_seed_has_a_seed_of_its_own():
    drawn = [
        value
        for seed in range(50)
        for value in (fan_out(seed).model, fan_out(seed).data, *(fan_out(seed).dropout(s) for s in range(20)))
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= value < 2**63 for value in drawn)


def test_the_same_seed_fans_out_to_the_same_seeds():
    assert fan_out(7) == fan_out(7)
    assert fan_out(7).dropout(3) == fan_out(7).dropout(3)
    # Written down: a recording of today must be repeatable with the program of tomorrow.
    assert fan_out(0).model == 4334430513956379144
    assert fan_out(0).data == 2440950710608614359
    assert fan_out(0).dropout(0) == 4738138084109246537


def test_random_numbers_drawn_inside_do_not_change_those_drawn_outside():
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    with isolated_rng(torch.device("cpu")):
        torch.manual_seed(5)
        torch.rand(100)
    assert torch.equal(torch.rand(4), expected)
