"""The bytes of many rings to arrays, and the check that each is a consistent end of its stock's history."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from state.layout import Records, record_dtype


@dataclass(frozen=True)
class Decoded:
    """Rings of n stocks, in the order given."""

    valid: npt.NDArray[np.bool_]  # (n,); where False the other two have nothing to say
    counts: npt.NDArray[np.int64]  # (n,) index of the newest record
    records: Records  # (n, keep), newest last; before the oldest one, zeros (index 0)


def decode_rings(blobs: Sequence[bytes | None], depth: int, channels: int, keep: int, watermark: int) -> Decoded:
    """The newest `keep` records of each ring; None stands for a key that is missing or has another type.

    A ring is valid if it holds at least one record, its length is that of min(newest index, depth) records, each slot
    holds the index that belongs there, offsets rise with the index, and the newest one is not past the watermark (a
    ring that is ahead of its meta would get the same updates twice)."""
    dtype = record_dtype(channels)
    size = dtype.itemsize
    lengths = np.fromiter((len(blob) if blob is not None else 0 for blob in blobs), np.int64, len(blobs))
    fits = lengths <= depth * size
    # Padding short rings costs nothing where rings are full, and makes one array of them all.
    padded = [b"" if blob is None else blob for blob in blobs]
    joined = b"".join(
        [blob.ljust(depth * size, b"\0") if len(blob) <= depth * size else bytes(depth * size) for blob in padded]
    )
    slots = np.frombuffer(joined, dtype).reshape(len(blobs), depth)

    index = slots["index"].view(np.int64)
    newest = index.max(axis=1, initial=0)
    slot = np.arange(depth)
    belongs = newest[:, None] - (newest[:, None] - 1 - slot) % depth
    held = np.minimum(newest, depth)
    valid = fits & (newest > 0) & (lengths == held * size)
    valid &= (index == np.maximum(belongs, 0)).all(axis=1)

    offset = slots["offset"]
    last = (newest - 1) % depth
    rises = np.diff(offset, axis=1, append=offset[:, :1]) > 0  # from each slot to the next, the last to the first
    rises |= (slot == last[:, None]) | (slot >= held[:, None])
    valid &= rises.all(axis=1) & (offset[np.arange(len(blobs)), last] <= watermark)

    wanted = newest[:, None] - np.arange(keep - 1, -1, -1)
    records: Records = slots[np.arange(len(blobs))[:, None], (wanted - 1) % depth]
    records[(wanted <= 0) | (wanted <= newest[:, None] - depth)] = np.zeros((), dtype)
    return Decoded(valid, newest, records)
