"""The networks under study, by name; a variant is ``arrangement[/norm]``, such as ``post-ln/adanorm``."""

from gradlens.lab.models.variants import ARRANGEMENTS, parse_variant
from gradlens.registry import Registry

MODELS = Registry(
    "model",
    {
        "transformer": (
            "gradlens.lab.models.transformer:Transformer",
            "decoder-only, encoder-only or encoder-decoder Transformer of Xiong et al. 2020",
        ),
        "parser": ("gradlens.lab.models.parser:Parser", "MLP over the state of a parser, after Chen & Manning 2014"),
        "cnn": ("gradlens.lab.models.cnn:CNN", "convolutional network for images, after that of Xu et al. 2019"),
    },
)

__all__ = ["ARRANGEMENTS", "MODELS", "parse_variant"]
