"""Description of a lookup of embeddings: sums of rows of 8-, 4- or 2-bit codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

IndexDtype: TypeAlias = Literal["int32", "int64"]


@dataclass(frozen=True)
class EmbeddingBagSpec:
    """Sums of rows of a table, one sum a bag.

    table_rows, row_size_bytes: the table is uint8; a row is its codes, 8 // bits to a byte from the lowest bits on,
        then scale and bias, float32 where bits is 8, else float16.
    indices: how many there are. offsets_dtype: bag b is made of indices[offsets[b]:offsets[b + 1]]; None if every bag
        has bag_length indices.
    offset_count: entries of offsets; the last bag ends where indices end, or at a last entry if has_last_offset.
    weighted: a float32 factor for each index.
    mapping_size: entries of the int32 table that turns indices into rows, -1 for rows that are pruned and add nothing;
        None if indices are rows.
    """

    table_rows: int
    row_size_bytes: int
    bits: int
    indices: int
    index_dtype: IndexDtype
    bag_length: int = 1
    offset_count: int | None = None
    offsets_dtype: IndexDtype = "int64"
    has_last_offset: bool = False
    weighted: bool = False
    mapping_size: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in (8, 4, 2):
            raise ValueError(f"bits is {self.bits}; accepted are 8, 4 and 2")
        if self.row_size_bytes <= self.parameter_size_bytes:
            raise ValueError(f"rows of {self.row_size_bytes} bytes have no codes")
        if self.offset_count is None and self.bag_length and self.indices % self.bag_length:
            raise ValueError(f"{self.indices} indices are not bags of {self.bag_length}")

    @property
    def parameter_size_bytes(self) -> int:
        """The size of a row's scale and bias."""
        return 8 if self.bits == 8 else 4

    @property
    def code_size_bytes(self) -> int:
        """The size of a row's codes."""
        return self.row_size_bytes - self.parameter_size_bytes

    @property
    def dim(self) -> int:
        """Codes of a row."""
        return self.code_size_bytes * (8 // self.bits)

    @property
    def bags(self) -> int:
        """Rows of the output."""
        if self.offset_count is not None:
            return self.offset_count - self.has_last_offset
        return self.indices // self.bag_length if self.bag_length else 0
