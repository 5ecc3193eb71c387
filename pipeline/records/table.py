"""Base of the columnar nouns, and the types of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

NS = 1_000_000_000  # nanoseconds in one second
HOUR_NS, DAY_NS = 3600 * NS, 86_400 * NS
NAN = float("nan")

Text = NDArray[np.str_]
Int = NDArray[np.int64]
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


def column(dtype: str, unit: str = "", doc: str = "", name: str = "", default: float | str | None = None) -> Any:
    """A column of a `Table`: its NumPy dtype (``"str"`` for text of any width), unit and meaning.

    ``name`` is what it is called in a file, where that is not the field's own name. A file without the column, as one
    written before there was such a column, is read as if it held ``default`` in every row, and so is a table that is
    made without it; None: it must be there.
    """
    about = {"dtype": dtype, "unit": unit, "doc": doc, "name": name, "default": default}
    return field(metadata=about) if default is None else field(metadata=about, default=None)


@dataclass(frozen=True, slots=True)
class Table:
    """Base of the columnar records: columns of one length and of the declared dtypes.

    Raises ValueError on columns of different lengths, TypeError on a wrong dtype.
    """

    def __post_init__(self) -> None:
        columns = fields(self)
        n = len(getattr(self, columns[0].name))
        for f in columns:
            values = getattr(self, f.name)
            if values is None and f.metadata["default"] is not None:
                values = np.full(
                    n, f.metadata["default"], "U1" if f.metadata["dtype"] == "str" else f.metadata["dtype"]
                )
                object.__setattr__(self, f.name, values)
            where = f"{type(self).__name__}.{f.name}"
            if not isinstance(values, np.ndarray) or values.shape != (n,):
                raise ValueError(f"{where} has shape {np.shape(values)}, expected ({n},)")
            if not _has_dtype(values, f.metadata["dtype"]):
                raise TypeError(f"{where} is {values.dtype}, expected {f.metadata['dtype']}")

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    @classmethod
    def columns(cls) -> tuple[Field[Any], ...]:
        return fields(cls)

    @classmethod
    def empty(cls) -> Self:
        return cls(*(np.empty(0, "U1" if f.metadata["dtype"] == "str" else f.metadata["dtype"]) for f in fields(cls)))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of ``parts``, in their order."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, index: NDArray[Any] | slice) -> Self:
        """The rows that ``index`` (integers, booleans or a slice) selects."""
        return type(self)(*(getattr(self, f.name)[index] for f in fields(self)))

    def as_dict(self) -> dict[str, NDArray[Any]]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def _has_dtype(values: NDArray[Any], dtype: str) -> bool:
    return values.dtype.kind == "U" if dtype == "str" else values.dtype == np.dtype(dtype)
