"""Beam search against the enumeration of all sequences, and against itself."""

import itertools
import math

import pytest
import torch

from gradlens.errors import GradlensError
from gradlens.lab.models import ARRANGEMENTS
from gradlens.lab.models.transformer import Transformer
from gradlens.lab.models.variants import PLAIN
from gradlens.lab.tasks.beam_search import Search, beam_search
from gradlens.lab.tasks.incremental_decoder import IncrementalDecoder

PAD, BEGIN, END, WORDS = 0, 1, 2, (3, 4)
SOURCES = torch.tensor([[3, 4, 4, 2], [4, 2, 0, 0], [3, 3, 2, 0]])


def tiny(variant: str = "pre-ln", seed: int = 0, blocks: int = 2) -> Transformer:
    torch.manual_seed(seed)
    size = {"vocab": 5, "width": 8, "blocks": blocks, "heads": 2, "max_length": 12}
    model = Transformer(variant, kind="encoder-decoder", pad=PAD, **size)
    with torch.no_grad():
        model.head.weight.mul_(3)  # decided, so that beams differ
    return model.double().eval()


def search(**settings) -> Search:
    return Search(begin=BEGIN, end=END, banned=(PAD,), **settings)


def log_probability(model: Transformer, source: torch.Tensor, tokens: tuple[int, ...]) -> float:
    """Of tokens and the end after them, among the tokens that can be produced; from the whole prefix at once."""
    prefix = torch.tensor([[BEGIN, *tokens]])
    logits = model(source[None], prefix)[0].clone()
    logits[:, [PAD, BEGIN]] = float("-inf")
    chosen = torch.tensor([*tokens, END])
    return float(logits.log_softmax(-1)[torch.arange(len(chosen)), chosen].sum())


def exhaustive(model: Transformer, source: torch.Tensor, most: int, penalty: float) -> tuple[list[int], float]:
    sequences = (s for n in range(most) for s in itertools.product(WORDS, repeat=n))
    scored = [(log_probability(model, source, s) / (len(s) + 1) ** penalty, list(s)) for s in sequences]
    score, best = max(scored)
    return best, score


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_sequence_there_is(seed, penalty):
    model, most = tiny(seed=seed), [5, 4, 6]
    with torch.no_grad():
        found = beam_search(IncrementalDecoder(model, SOURCES), search(beam=64, penalty=penalty), most, "cpu")
        expected = [exhaustive(model, source, n, penalty) for source, n in zip(SOURCES, most, strict=True)]
    for (tokens, score), (best, best_score) in zip(found, expected, strict=True):
        assert tokens == best
        assert score == pytest.approx(best_score, abs=1e-12)


def test_the_enumeration_has_something_to_tell_apart():
    model = tiny()
    with torch.no_grad():
        best = {penalty: exhaustive(model, SOURCES[0], 5, penalty)[0] for penalty in (0.0, 1.0, 2.0)}
        lengths = {len(exhaustive(tiny(seed=seed), s, 5, 1.0)[0]) for seed in range(3) for s in SOURCES}
    assert len(best[0.0]) <= len(best[1.0]) <= len(best[2.0])
    assert len(lengths) > 1


@pytest.mark.parametrize("beam", [1, 2, 3])
def test_the_score_is_that_of_the_sequence_and_never_above_the_best(beam):
    model, most = tiny(), [6, 6, 6]
    with torch.no_grad():
        for source, (tokens, score) in zip(
            SOURCES, beam_search(IncrementalDecoder(model, SOURCES), search(beam=beam), most, "cpu"), strict=True
        ):
            assert score == pytest.approx(log_probability(model, source, tuple(tokens)) / (len(tokens) + 1), abs=1e-12)
            assert score <= exhaustive(model, source, 6, 1.0)[1] + 1e-12


def test_a_sentence_gets_the_same_alone_and_among_others():
    model, most = tiny("post-ln"), [6, 3, 5]
    together = beam_search(IncrementalDecoder(model, SOURCES), search(beam=3), most, "cpu")
    for source, n, expected in zip(SOURCES, most, together, strict=True):
        alone = source[source != PAD][None]
        ((tokens, score),) = beam_search(IncrementalDecoder(model, alone), search(beam=3), [n], "cpu")
        assert (tokens, pytest.approx(score, abs=1e-12)) == expected


def test_a_beam_of_one_follows_the_likeliest_token_until_ending_is_better():
    table = {BEGIN: [0.0, 0.0, 0.1, 0.6, 0.3], 3: [0.0, 0.0, 0.2, 0.1, 0.7], 4: [0.0, 0.0, 0.9, 0.05, 0.05]}

    def next_logits(prefixes, sentence, parents):
        return torch.tensor([table[int(row[-1])] for row in prefixes]).log()

    ((tokens, score),) = beam_search(next_logits, search(beam=1), [8], "cpu")
    assert tokens == [3, 4]
    assert score == pytest.approx(math.log(0.6 * 0.7 * 0.9) / 3, rel=1e-6)


def test_no_sequence_is_longer_than_its_limit():
    def never_ends(prefixes, sentence, parents):
        return torch.tensor([[0.0, 0.0, -50.0, 1.0, 0.0]]).expand(len(prefixes), 5)

    found = beam_search(never_ends, search(beam=4), [1, 5], "cpu")
    assert [len(tokens) + 1 for tokens, _ in found] == [1, 5]


@pytest.mark.parametrize(
    "variant", [*(name for name in ARRANGEMENTS if name != PLAIN), "pre-ln/adanorm", "post-ln/none"]
)
def test_reading_token_by_token_gives_the_logits_of_the_whole_prefix(variant):
    model = tiny(variant, blocks=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # gains and scales at no value that hides a mistake
    generator = torch.Generator().manual_seed(0)
    sentence = torch.tensor([0, 0, 1, 2])
    prefixes = torch.randint(1, 5, (4, 1), generator=generator)
    parents, decoder = torch.arange(4), IncrementalDecoder(model, SOURCES)
    for _ in range(6):
        with torch.no_grad():
            whole = model.decode(prefixes, model.encode(SOURCES)[sentence], model.mask(SOURCES)[sentence])
            torch.testing.assert_close(decoder(prefixes, sentence, parents), whole[:, -1], rtol=1e-9, atol=1e-9)
        parents = torch.tensor([1, 0, 2, 3])  # the first two have the same source
        prefixes = torch.cat([prefixes[parents], torch.randint(1, 5, (4, 1), generator=generator)], 1)


@pytest.mark.parametrize("settings", [{"beam": 0}, {"penalty": -1.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(GradlensError, match="beam of at least 1"):
        search(**settings)
