"""One segment: an Arrow IPC stream of which every batch says that all before it is whole.

The stream's schema names the run and the segment. Each batch carries, as custom metadata, the CRC-32 of itself and of
all that stands before it in the stream, so that nothing can be changed, taken out, doubled or put elsewhere unseen; any
Arrow reader reads the stream and may leave it unread. A batch of ``steps`` also carries, for every other table, the CRC
that its segment ended with: which rows the step consists of.

A reader believes bytes before Arrow sees them: a batch that is not whole ends the segment.
"""

import functools
import json
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import pyarrow as pa

from gradlens.errors import RecordingError
from gradlens.recording.folder import Name, arrow_schema, blocks, content
from gradlens.recording.messages import Message, read_batches
from gradlens.recording.schema import ADDED
from gradlens.text import printable

_SEAL = re.compile(rb"gradlens crc32=([0-9a-f]{8}) body=(\d{12})((?: [a-z]+=[0-9a-f]{8})*);")
MARK, BLANK = b"gradlens crc32=", b"00000000"
#: What an encapsulated Arrow message begins with: a mark, and the length of its metadata.
PREFIX = struct.Struct("<Ii")
_CONTINUES = 0xFFFFFFFF
#: Bytes of a piece.
_PIECE = 8 << 20

schema_of = functools.cache(arrow_schema)


@dataclass
class Segment:
    """What is whole of a segment.

    Attributes:
        name: whose it is.
        rows: of all batches that are whole, from the first on; None where there is none.
        lengths: rows of each batch that was written.
        crcs: of all up to each batch that was written.
        wrote: of each batch of ``steps``, every other table's CRC.
        before: segments of the process' earlier attempts, with the sizes that they had.
        size: bytes of the file.
        grew: whether it was written to while the segments were read.
        damage: what is wrong with it; empty where nothing is, but that its last batch may be torn, as by a kill.
    """

    name: Name
    rows: pa.Table | None = None
    lengths: list[int] = field(default_factory=list)
    crcs: list[int] = field(default_factory=list)
    wrote: list[dict[str, int]] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    size: int = 0
    grew: bool = False
    damage: str = ""

    @functools.cached_property
    def steps(self) -> list[int]:
        """The first step of each batch; none where the table has no steps."""
        if self.rows is None or "step" not in self.rows.schema.names:
            return []
        begins = [end - length for end, length in zip(accumulate(self.lengths), self.lengths, strict=True) if length]
        return list(self.rows["step"].take(pa.array(begins, pa.int64())).to_pylist())

    def take(self, batches: Iterable[tuple[pa.RecordBatch, int]]) -> None:
        """Take all rows, in one piece: of a batch a step there are very many.

        Args:
            batches: each with how many written ones it is of, of equally many rows.
        """
        taken = list(batches)
        self.lengths = [len(batch) // written for batch, written in taken for _ in range(written)]
        self.rows = pa.Table.from_batches([batch for batch, _ in taken]).combine_chunks() if taken else None


class _TornError(Exception):
    """The file ends inside of a message."""


class _DamagedError(Exception):
    """The bytes are no message, or not those that were written."""


def read(path: Path, name: Name, run: str, *, columns: Collection[str] | None = None) -> Segment:
    """Read what is whole of a segment.

    Args:
        path: of the file.
        name: whose segment it must be.
        run: number of the run; empty for one of before there were checksums, which is believed where Arrow does.
        columns: those that are kept, while the file is read a piece at a time; by default all, at once.

    Raises:
        FileNotFoundError: it is gone.
    """
    segment = Segment(name)
    batches: list[tuple[pa.RecordBatch, int]] = []
    try:
        if run:
            for some in _checked(segment, path, run, -1 if columns is None else _PIECE):
                batches += some if columns is None else [(_of(batch, columns), written) for batch, written in some]
        else:
            batches = _believed(segment, content(path))
    except (_DamagedError, RecordingError) as error:
        segment.damage = str(error)
    segment.take(batches)
    return segment


def pieces(path: Path, name: Name, run: str) -> Iterator[pa.Table]:
    """Read the rows of a segment a piece at a time: never all of it is in memory.

    Raises:
        FileNotFoundError: it is gone.
        RecordingError: it is damaged, or is read while it is written.
    """
    try:
        for some in _checked(Segment(name), path, run, _PIECE):
            yield pa.Table.from_batches([batch for batch, _ in some])
    except _DamagedError as error:
        raise RecordingError(f"{path} must be whole; it is damaged: {error}.") from error


def _of(batch: pa.RecordBatch, columns: Collection[str]) -> pa.RecordBatch:
    return batch.select([name for name in batch.schema.names if name in columns])


def _checked(segment: Segment, path: Path, run: str, size: int) -> Iterator[list[tuple[pa.RecordBatch, int]]]:
    """Yield a segment's batches up to the first that is not whole, each with how many written ones it is of.

    Args:
        segment: is told what there is to know of them.
        path: of the file.
        run: number of the run.
        size: bytes that are read at a time; -1 for all.
    """
    schema: pa.Schema | None = None
    data, crc, shape = b"", 0, b""
    for block in blocks(path, size):
        data += block
        segment.size += len(block)
        messages: list[Message] = []
        crcs, wrote = [], []
        damage: _DamagedError | None = None
        view, end = memoryview(data), 0
        try:
            if schema is None:  # nothing but the header may have come yet, or a part of it
                end = _metadata_end(view, 0)
                crc = zlib.crc32(view[PREFIX.size : end])
            while end < len(data):
                message, crc, told = _message(view, end, crc, shape)
                end, shape = message.end, message.shape
                messages.append(message)
                crcs.append(crc)
                wrote.append(told)
        except _TornError:
            pass
        except _DamagedError as error:
            damage = error
        if messages:
            schema = _schema(segment, data, run) if schema is None else schema
            try:
                batches = list(read_batches(pa.py_buffer(data), schema, messages))
            except (pa.ArrowException, ValueError, OSError) as error:
                raise _unreadable(error) from error
            segment.crcs += crcs
            segment.wrote += wrote
            yield batches
        if damage is not None:
            raise damage
        data = data[end:] if messages else data


def _metadata_end(view: memoryview, at: int) -> int:
    """Return where a message's metadata end."""
    if len(view) - at < PREFIX.size:
        raise _TornError
    mark, length = PREFIX.unpack_from(view, at)
    if mark != _CONTINUES or length <= 0 or length % 8:
        raise _DamagedError("it is no Arrow stream" if at == 0 else "what follows is no batch")
    if len(view) - at - PREFIX.size < length:
        raise _TornError
    return at + PREFIX.size + int(length)


def _message(view: memoryview, at: int, crc: int, shape: bytes) -> tuple[Message, int, dict[str, int]]:
    """Check the message that begins at a place: return it, the CRC, and what it tells of other tables.

    Args:
        view: of the segment.
        at: the place.
        crc: of all before it.
        shape: of the message before.
    """
    end = _metadata_end(view, at)
    begin = at + PREFIX.size
    seal = _SEAL.search(view[begin:end])
    if seal is None:
        raise _DamagedError("a batch has no checksum")
    told, body, others = seal[1], int(seal[2]), seal[3].decode()
    if end + body > len(view):
        raise _TornError
    own = bytes(view[begin : begin + seal.start()]) + bytes(view[begin + seal.end() : end])
    crc = zlib.crc32(BLANK, zlib.crc32(view[begin : begin + seal.start(1)], crc))
    crc = zlib.crc32(view[begin + seal.end(1) : end + body], crc)
    if crc != int(told, 16):
        raise _DamagedError("the checksum of a batch does not fit")
    wrote = {table: int(value, 16) for table, value in (one.split("=") for one in others.split())}
    return Message(at, end + body, shape if own == shape else own), crc, wrote


def _schema(segment: Segment, data: bytes, run: str) -> pa.Schema:
    """Return the schema that a segment begins with, and tell the segment what was before."""
    try:
        schema = pa.ipc.open_stream(data).schema
        named = schema.metadata or {}
        whose, of = (named.get(key, b"").decode() for key in (b"gradlens.segment", b"gradlens.run"))
        before = json.loads(named.get(b"gradlens.before", b"{}"))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise _unreadable(error) from error
    if of != run:
        raise _DamagedError("it is of another run")
    if whose != str(segment.name):
        raise _DamagedError(f"it is {printable(whose)} under another name")
    if not _fits(schema, segment.name.table):
        raise _DamagedError("it has other columns")
    segment.before = before
    return schema


def _unreadable(error: BaseException) -> _DamagedError:
    return _DamagedError(f"Arrow cannot read it ({_short(error)})")


def _fits(schema: pa.Schema, table: str) -> bool:
    """Whether these are a table's columns; those that were added since may be absent."""
    wanted = pa.schema([f for f in schema_of(table) if f.name not in ADDED or f.name in schema.names])
    return bool(schema.equals(wanted))


def _believed(segment: Segment, data: bytes) -> list[tuple[pa.RecordBatch, int]]:
    """Return whatever Arrow reads of a segment of before there were checksums."""
    segment.size = len(data)
    batches: list[pa.RecordBatch] = []
    try:
        reader = pa.ipc.open_stream(data)
        if (reader.schema.metadata or {}).get(b"gradlens.run"):
            raise _DamagedError("it is of another run")
        for batch in reader:
            batch.validate(full=True)
            if not _fits(batch.schema, segment.name.table):
                raise _DamagedError("it has other columns")
            batches.append(batch)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        if not batches and len(data) > 4096:  # more than a torn first batch's schema
            raise _unreadable(error) from error
    segment.crcs, segment.wrote = [0] * len(batches), [{} for _ in batches]
    return [(batch, 1) for batch in batches]


def _short(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))[:120]
