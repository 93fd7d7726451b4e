"""Documents in memory, read as a `MMapIndexedDataset` is."""

import numpy as np

from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader


class Documents:
    """The members of an indexed data set that readers use."""

    def __init__(self, documents):
        self.documents = [np.asarray(d) for d in documents]
        self.sizes = np.array([len(d) for d in documents])

    def __len__(self):
        return len(self.documents)

    def get(self, index, offset, length):
        return self.documents[index][offset : offset + length]


def numbered(lengths, capacity=16, seed=3, unit=None):
    """Return the reader of documents whose tokens are 1000 i + 1, 1000 i + 2 and so on."""
    documents = [np.arange(1, n + 1) + 1000 * i for i, n in enumerate(lengths)]
    key = RowKey(capacity, seed, unit)
    return PackedReader(Documents(documents), 2 * int(np.sum(lengths)), key)
