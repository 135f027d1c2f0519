"""Names of variants."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from gradlens.errors import ModelError, UnknownNameError
from gradlens.lab.models import ARRANGEMENTS, MODELS, parse_variant
from gradlens.lab.models.variants import PLAIN, WITHOUT_NORM, block_variant, plain_variant, variant_name
from gradlens.lab.norms import NORMS


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_is_named_after_the_slash_and_one_is_meant_without(arrangement: str, norm: str) -> None:
    assert parse_variant(f"{arrangement}/{norm}") == (arrangement, norm)
    meant = "none" if arrangement in WITHOUT_NORM else "layernorm"
    assert parse_variant(arrangement) == (arrangement, meant)
    assert variant_name(arrangement, norm) == (arrangement if norm == meant else f"{arrangement}/{norm}")


@pytest.mark.parametrize("arrangement", [name for name in ARRANGEMENTS if name != PLAIN])
def test_only_arrangements_that_have_a_norm_in_a_block_take_one(arrangement: str) -> None:
    if ARRANGEMENTS[arrangement].placements:
        assert block_variant(f"{arrangement}/rmsnorm") == (arrangement, "rmsnorm")
    else:
        assert block_variant(arrangement) == (arrangement, "none")
        with pytest.raises(ModelError, match=f"{arrangement!r} has no norm.*; got '{arrangement}/rmsnorm'"):
            block_variant(f"{arrangement}/rmsnorm")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pre-nl", "no arrangement named 'pre-nl'. Did you mean pre-ln"),
        ("post-ln/adnorm", "no norm named 'adnorm'. Did you mean adanorm"),
        ("post-ln/", "no norm named ''. Known: adanorm"),
        ("pre-ln/rmsnorm/2", "no norm named 'rmsnorm/2'. Did you mean rmsnorm"),
        ("", "no arrangement named ''. Known: "),
    ],
)
def test_a_misspelt_variant_is_an_error_that_names_the_wrong_part(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message.replace(".", r"\.")):
        parse_variant(name)


def test_names_and_descriptions_are_known_without_importing_torch() -> None:
    code = (
        "import sys; from gradlens.lab.norms import NORMS;"
        "from gradlens.lab.models import ARRANGEMENTS, MODELS, parse_variant;"
        "parse_variant('post-ln/adanorm'); [r.about(n) for r in (ARRANGEMENTS, MODELS, NORMS) for n in r];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("registry", [ARRANGEMENTS, MODELS, NORMS], ids=lambda registry: registry.what)
def test_every_entry_can_be_imported_and_says_what_it_is(registry: object) -> None:
    for name in registry:  # type: ignore[attr-defined]
        assert callable(registry[name])  # type: ignore[index]
        assert registry.about(name)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["pre-ln", "post-ln/adanorm", "plain/none"])
def test_a_network_takes_the_variants_of_its_kind_and_names_the_other_kinds_near_one(name: str) -> None:
    arrangement, norm = parse_variant(name)
    blocks, plain = (block_variant, plain_variant) if arrangement != PLAIN else (plain_variant, block_variant)
    assert blocks(name) in ((arrangement, norm), norm)
    near = PLAIN if arrangement != PLAIN else "pre-ln"
    with pytest.raises(ModelError, match=f"got '{name}'.* Take '{near if norm == 'layernorm' else f'{near}/{norm}'}'"):
        plain(name)


@pytest.mark.parametrize("read", [block_variant, plain_variant])
def test_a_misspelt_variant_is_misspelt_for_either_kind(read: Callable[[str], object]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean adanorm"):
        read("plain/adnorm")
