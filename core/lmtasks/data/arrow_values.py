"""Converts Arrow columns, as Parquet files and hub data sets have them, to values as in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from lmtasks.data.jsonl import parse_json
from lmtasks.data.values import Unreadable, finite

BATCH_ROWS = 1024
"""Number of rows read at once."""
_MAX_EXACT_INTEGER = 2.0**53
"""Every whole number up to this one is exact as a 64-bit float."""


def table_rows(table: Any) -> list[dict[str, object]]:
    """Return the rows of an Arrow table or record batch, with values as in `python_values`."""
    import pyarrow

    columns = []
    for column in table.columns:
        chunks = column.chunks if isinstance(column, pyarrow.ChunkedArray) else [column]
        columns.append([value for chunk in chunks for value in python_values(chunk)])
    return [dict(zip(table.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def repeated_name(schema: Iterable[Any]) -> str | None:
    """Return the name that two columns share, or two keys of an object at any depth: "answers.text"; None: no two do.

    Args:
        schema: the fields of a schema or a struct type.
    """
    seen: set[str] = set()
    for field in schema:
        if field.name in seen:
            return str(field.name)
        seen.add(field.name)
        inner = repeated_name(_fields(field.type))
        if inner is not None:
            return f"{field.name}.{inner}"
    return None


def _fields(type: Any) -> Iterable[Any]:
    """Return the fields of a struct type, or of the structs in a list type."""
    from pyarrow import types

    while _is_list(type):
        type = type.value_type
    return type if types.is_struct(type) else ()


def python_values(array: Any) -> list[object]:
    """Return the values of an array: texts, numbers, lists, objects, None, or `Unreadable` for anything else.

    NaN and infinities are None. A float32 is the number with the fewest digits that it stands for: 3.14, not
    3.140000104904175. Dates are text in ISO form; times, durations and bytes have no agreed text form.
    """
    import pyarrow
    from pyarrow import types

    type = array.type
    if types.is_dictionary(type):
        return python_values(array.dictionary_decode())
    if isinstance(type, pyarrow.BaseExtensionType):
        stored = python_values(array.storage)
        # Hub sets hold values of changing types as JSON.
        is_json = type.extension_name == "arrow.json"
        return [parse_json(value) if is_json and isinstance(value, str) else value for value in stored]
    if types.is_struct(type):
        return _objects(array)
    if _is_list(type):
        return _lists(array)
    if types.is_float32(type) or types.is_float16(type):
        return [_shortest_float(number) for number in array.to_numpy(zero_copy_only=False)]
    if types.is_float64(type):
        return [None if value is None else finite(value) for value in array.to_pylist()]
    if types.is_date(type):
        return _texts(array.cast("string"))
    if types.is_string(type) or types.is_large_string(type) or types.is_string_view(type):
        return _texts(array)
    if types.is_null(type) or types.is_boolean(type) or types.is_integer(type) or types.is_decimal(type):
        return list(array.to_pylist())
    unreadable = Unreadable(f"a value of type {type}")
    return [unreadable if valid else None for valid in array.is_valid().to_pylist()]


def _is_list(type: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_list(type)
        or types.is_large_list(type)
        or types.is_fixed_size_list(type)
        or types.is_list_view(type)
        or types.is_large_list_view(type)
    )


def _objects(array: Any) -> list[object]:
    names = [field.name for field in array.type]
    columns = [python_values(array.field(index)) for index in range(len(names))]
    valid = array.is_valid().to_pylist()
    return [
        {name: column[row] for name, column in zip(names, columns, strict=True)} if is_valid else None
        for row, is_valid in enumerate(valid)
    ]


def _lists(array: Any) -> list[object]:
    from pyarrow import compute

    items = iter(python_values(array.flatten()))
    lengths = compute.list_value_length(array).to_pylist()
    return [None if length is None else list(islice(items, length)) for length in lengths]


def _shortest_float(number: Any) -> float | None:
    """Return a NumPy float of 16 or 32 bits as the number with the fewest digits that it stands for.

    A whole number that is exact as a 64-bit float, such as an id, keeps all its digits.
    """
    exact = float(number)
    return finite(exact if exact.is_integer() and abs(exact) < _MAX_EXACT_INTEGER else float(str(number)))


def _texts(array: Any) -> list[object]:
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        return [_text(scalar.as_py) for scalar in array]


def _text(read: Callable[[], object]) -> object:
    try:
        return read()
    except UnicodeDecodeError:
        return Unreadable("text that is not UTF-8", damaged=True)
