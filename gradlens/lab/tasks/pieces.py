"""One vocabulary of word pieces for two languages: byte-pair encoding, trained here on the training pairs."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from gradlens.errors import GradlensError

PAD, BEGIN, END = 0, 1, 2
_SPECIAL = ["<pad>", "<s>", "</s>"]


class Pieces:
    """Byte-level BPE (the package ``tokenizers``): any text has pieces, and no piece is unknown.

    Args:
        texts: to train on; the pieces depend on nothing else.
        size: pieces, the 256 bytes and the special ones counted; fewer where the texts yield fewer.
    """

    def __init__(self, texts: Iterable[str], size: int) -> None:
        tokenizers = required("tokenizers")
        self._tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._tokenizer.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=_SPECIAL,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self._tokenizer.train_from_iterator(texts, trainer)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @property
    def sha256(self) -> str:
        """Return the checksum of the trained vocabulary."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the pieces of each text, without special ones."""
        return [list(found.ids) for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, pieces: Sequence[int]) -> str:
        """Return the text of pieces; bytes that are no UTF-8 become the replacement character."""
        text: str = self._tokenizer.decode(list(pieces), skip_special_tokens=True)
        return text


def required(package: str) -> Any:
    """Import a package of the extra ``tasks``.

    Raises:
        GradlensError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise GradlensError(
            f"The task 'translation' needs the package {package}, which is not installed. Install this project "
            f"with its extra tasks: pip install -e '.[tasks]'"
        ) from error
