"""Models of Hugging Face transformers, built from what is on this machine: nothing is ever downloaded.

A source is a folder with a ``config.json`` (and weights, or not), such a file, or the name of a model type. The package
is an extra; it is imported only when one of the functions here is called.
"""

import copy
import difflib
import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradlens.errors import GradlensError, ModelError, UnknownNameError

#: Where each family's class with a head, and so with a loss, is looked up, in this order: an encoder-decoder can also
#: be a masked language model, and that one also a causal one, which it is not usually trained as.
_HEADS = ("Seq2SeqLM", "SpeechSeq2Seq", "MaskedLM", "CausalLM", "CTC", "ImageClassification")
#: Names of weight files, or what they end in where they are in parts.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
#: Settings that hide parts of a network at random: a block dropped in a pass would look like one that never runs, and
#: SpecAugment draws from numpy's generator, which no seed of torch repeats. ``-m`` sets them back.
_ALL_OF_IT = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "apply_spec_augment": False}


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        text: what the user wrote after ``hf:``.
        model_type: of transformers, such as ``"bert"``.
        config_file: what was read; None for a model type, which gets its default sizes.
        weights: the folder, where it holds trained weights.
    """

    text: str
    model_type: str
    config_file: Path | None = None
    weights: Path | None = None

    @classmethod
    def find(cls, text: str) -> "Source":
        """Tell a model type, a folder and a configuration file apart; a type goes before a folder of that name.

        Raises:
            GradlensError: it is none of them, or transformers is missing.
        """
        known = _mapping()
        if text in known:
            return cls(text, text)
        path = Path(text)
        file = path / "config.json" if path.is_dir() else path
        if not text or not file.is_file():
            raise GradlensError(_not_found(text, path, list(known)))
        model_type = _read(file).get("model_type")
        if not isinstance(model_type, str):
            raise GradlensError(f'{file} must name its model_type, such as "bert"; it has none. Add it.')
        if model_type not in known:
            raise UnknownNameError(f"model type (in {file}) of transformers {_version()}", model_type, known)
        trained = path.is_dir() and any((path / name).is_file() for name in _WEIGHTS)
        return cls(text, model_type, file, path if trained else None)

    def settings(self) -> dict[str, Any]:
        """Return the names and values that can be set, those that other families use for the same included."""
        config = self.configure({})
        own = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "_name_or_path")}
        return own | {alias: getattr(config, name, None) for alias, name in type(config).attribute_map.items()}

    def configure(self, settings: Mapping[str, Any]) -> Any:
        """Return the configuration.

        Raises:
            ModelError: the values do not make one.
        """
        cls = _mapping()[self.model_type]
        given = {cls.attribute_map.get(name, name): value for name, value in settings.items()}
        with _reported(self.text, "make a configuration"):
            config = cls(**given) if self.config_file is None else cls.from_dict({**_read(self.config_file), **given})
            hidden = {name: value for name, value in _ALL_OF_IT.items() if hasattr(config, name) and name not in given}
            for name, value in hidden.items():
                setattr(config, name, value)
            config.use_cache = False  # keys and values of past tokens are of no use without generation
        return config

    def model_class(self, config: Any) -> type[nn.Module]:
        """Return the class that the configuration names, else the one with a head, else the one without."""
        transformers = _transformers()
        for name in config.architectures or ():
            if hasattr(transformers, name):
                return getattr(transformers, name)  # type: ignore[no-any-return]
        heads = [] if self.weights else [getattr(transformers, f"AutoModelFor{head}") for head in _HEADS]
        with _reported(self.text, "name a class"):
            for auto in (*heads, transformers.AutoModel):
                if type(config) in auto._model_mapping:
                    found = auto._model_mapping[type(config)]
                    return found[0] if isinstance(found, tuple | list) else found  # type: ignore[no-any-return]
        raise ModelError(
            f"hf:{self.text} must be of a type with a model of its own; transformers {_version()} has none for "
            f"{self.model_type!r}, which may be a part of another. Name the whole."
        )

    def build(self, cls: type[nn.Module], config: Any) -> nn.Module:
        """Build the model in float32, ready for training: with the folder's weights, or random ones.

        Raises:
            ModelError: it cannot be built, or the weights are not all there or not of its sizes.
        """
        config = copy.deepcopy(config)  # a model may note things in it
        with _reported(self.text, f"build a {cls.__name__}"):
            if self.weights is None:
                return cls(config).float().train()
            load = cls.from_pretrained  # type: ignore[attr-defined]
            model, info = load(self.weights, config=config, local_files_only=True, output_loading_info=True)
            missing = sorted(info["missing_keys"])
            if missing:
                raise ModelError(
                    f"The weights in {self.weights} must be those of a {cls.__name__}, which its configuration names; "
                    f"{len(missing)} are missing, such as {missing[0]}. Name the class that was saved in "
                    '"architectures" of config.json.'
                )
            return model.float().train()  # type: ignore[no-any-return]

    def parameters(self, cls: type[nn.Module], config: Any) -> int | None:
        """Return how many numbers the model holds, without building it; None where that cannot be told."""
        try:
            with torch.device("meta"):
                return sum(parameter.numel() for parameter in cls(copy.deepcopy(config)).parameters())
        except Exception:  # a constructor that looks at values: it has to be built to know
            return None

    def facts(self) -> dict[str, Any]:
        """Return what the model is made from: the state of its files, and the version that knows the rest."""
        weights = (
            sorted(f for end in ("safetensors", "bin") for f in self.weights.glob(f"*.{end}")) if self.weights else []
        )
        return {
            "transformers": _version(),
            "config_sha256": _sha256([self.config_file]) if self.config_file else None,
            "weights_sha256": _sha256(weights) if weights else None,
        }


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _transformers() -> Any:
    """Import transformers, with the network off and its remarks silenced.

    Raises:
        GradlensError: it is not installed.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise GradlensError(
            f"Operands hf:... need the package transformers, which does not import ({error}). "
            'Install it: pip install -c constraints.txt -e ".[hf]"'
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _mapping() -> Mapping[str, Any]:
    """Return the table of model types to configuration classes."""
    _transformers()
    auto = importlib.import_module("transformers.models.auto.configuration_auto")
    return auto.CONFIG_MAPPING  # type: ignore[no-any-return]


def _version() -> str:
    return str(_transformers().__version__)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise GradlensError(f"{file} must be a configuration in JSON; it cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise GradlensError(f"{file} must hold a JSON object; it holds a {type(values).__name__}.")
    return values


def _not_found(text: str, path: Path, known: list[str]) -> str:
    """Say what a text should have been."""
    takes = "hf: takes a model type (hf:bert), a folder with a config.json, or such a file"
    if text and path.is_dir():
        return f"{takes}; the folder {text} has no config.json. Name the folder that save_pretrained wrote."
    if text.count("/") == 1 and not text.startswith(".") and not text.endswith((".json", "/")):
        return (
            f"{takes}; there is no folder {text}. A name of the hub is not looked up, for gradlens downloads nothing: "
            "download the model, then name its folder."
        )
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(f'hf:{name}' for name in near)}?" if near else "Check the spelling."
    return f"{takes}; {text!r} is none of them, and no model type of transformers {_version()}. {hint}"


@contextmanager
def _reported(text: str, what: str) -> Iterator[None]:
    """Turn whatever transformers raises into one line."""
    try:
        yield
    except GradlensError:
        raise
    except Exception as error:  # the values are the user's, and every family checks them in its own way
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"hf:{text} must {what}; transformers raised {type(error).__name__}: {' '.join(lines)[:400]}. "
            "Check the configuration and what -m sets."
        ) from error
