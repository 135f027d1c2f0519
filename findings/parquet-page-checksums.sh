#!/usr/bin/env bash
# pyarrow 26.0.1: checksums of Parquet pages are neither written nor verified unless each is asked for, and the footer is in
# none of them.
#
# write_table(write_page_checksum=True) alone changes nothing for readers: read_table verifies only with
# page_checksum_verification=True. With both, a changed bit in a page is an error; a changed byte in the footer (here in a
# column's name) is still read without one. Seen, for one bit changed in the data and one byte in the footer:
#   written, verified   data changed                   footer changed
#   no, no              read as another number         read under another name
#   yes, no             read as another number         read under another name
#   yes, yes            OSError                        read under another name
# What to do: both, and a digest of the whole file kept elsewhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet pyarrow==26.0.1 numpy
"$work/env/bin/python" - "$work" <<'PY'
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

assert pa.__version__ == "26.0.1", pa.__version__
VALUES = np.arange(1.0, 1001.0)
path = f"{sys.argv[1]}/a.parquet"


def read(data, verified):
    try:
        table = pq.read_table(pa.BufferReader(data), page_checksum_verification=verified)
    except OSError:
        return "OSError"
    if table.column_names != ["value"]:
        return "read under another name"
    return "right" if np.array_equal(table["value"].to_numpy(), VALUES) else "read as another number"


seen = {}
for written, verified in ((False, False), (True, False), (True, True)):
    pq.write_table(
        pa.table({"value": VALUES}), path, compression="none", use_dictionary=False, store_schema=False,
        write_page_checksum=written,
    )
    whole = open(path, "rb").read()
    assert read(whole, verified) == "right"
    number = VALUES[500].tobytes()
    assert whole.count(number) == 1
    data = whole.replace(number, bytes([number[0] ^ 1]) + number[1:])
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    footer = whole[:start] + whole[start:].replace(b"value", b"valve")
    seen[written, verified] = (read(data, verified), read(footer, verified))
    print(*("yes" if on else "no" for on in (written, verified)), *seen[written, verified], sep="  ")
assert seen == {
    (False, False): ("read as another number", "read under another name"),
    (True, False): ("read as another number", "read under another name"),
    (True, True): ("OSError", "read under another name"),
}
PY
