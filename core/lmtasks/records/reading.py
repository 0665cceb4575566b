"""Records checked against their declared types: one line with the path of the part that is wrong."""

from __future__ import annotations

import json
from datetime import date
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from lmtasks.records.strict_json import RecordError, abbreviate, check_depth

SCHEMA: Final = 2
"""Version of run.json, samples.jsonl, lmtasks.json and a training's state; raised when a field changes or goes."""
LIMIT = 2**63
"""Integers have 64 bits: larger numbers are no counts, and overflow where they are divided."""
EXPECTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "less_than": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "none_required": "null",
}
"""The expected type in a message, by the type of pydantic's error."""

RecordT = TypeVar("RecordT", bound="Record")
T = TypeVar("T")


class Record(BaseModel):
    """A frozen JSON object: strict types, no unknown keys, no NaN."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_by_alias=True, validate_by_name=True
    )

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values, keys named as in the file."""
        return self.model_dump(by_alias=True)


class ForeignRecord(Record):
    """The part that lmtasks uses of a JSON object that another program wrote; all else is ignored."""

    model_config = ConfigDict(extra="ignore")


class VersionedRecord(Record):
    """A JSON file of lmtasks with the version of its schema."""

    schema_version: Literal[2] = Field(default=SCHEMA, alias="schema")


def _iso_date(text: str) -> str:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise PydanticCustomError("iso_date", "a date such as 2026-01-31")


Integer = Annotated[int, Field(ge=-LIMIT, lt=LIMIT)]
Count = Annotated[int, Field(ge=0, lt=LIMIT)]
Positive = Annotated[int, Field(ge=1, lt=LIMIT)]
Seconds = Annotated[float, Field(ge=0)]
Day = Annotated[str, AfterValidator(_iso_date)]
Items = Annotated[tuple[T, ...], Strict(False)]
"""A JSON list, read as a tuple."""


def validate(shape: type[RecordT], values: object) -> RecordT:
    """Return parsed JSON as a record.

    Raises:
        RecordError: a part is missing, unknown or of another type; says where, what was expected and what was there:
            "scores[0].value: expected a number, got 'x'".
    """
    check_depth(values)
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        raise RecordError(_message(shape, error.errors(include_url=False))) from None


def check_schema(values: object) -> None:
    """Refuse an object that has another schema than `SCHEMA`; what is not an object is left to `validate`.

    Raises:
        OtherSchemaError: names both schemas, and the lmtasks that wrote the record where it says so.
    """
    if not isinstance(values, dict):
        return
    version = values.get("schema")
    if type(version) is int and version == SCHEMA:
        return
    writer: Any = values
    for key in ("environment", "packages", "lmtasks"):
        writer = writer.get(key) if isinstance(writer, dict) else None
    written = f", written by lmtasks {abbreviate(writer)[1:-1]}" if isinstance(writer, str) else ""
    raise OtherSchemaError(f"schema {abbreviate(version)}{written}; this lmtasks reads schema {SCHEMA}")


class OtherSchemaError(RecordError):
    """A record that another version of lmtasks wrote, or another program."""


def as_text(record: Record) -> str:
    """Return a record as the text of its JSON file."""
    return json.dumps(record.to_json(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _message(shape: Any, errors: list[ErrorDetails]) -> str:
    """Return the first of pydantic's errors as "path: problem"."""
    path, position, nullable = "", 0, False
    location = errors[0]["loc"]
    while True:
        shape, nullable = _without_none(shape)
        rest = location[position:]
        if not rest:
            break
        if get_origin(shape) in (Union, UnionType):
            return _union_message(path, location[:position], nullable, errors)
        step, position = rest[0], position + 1
        path += _step(step)
        shape = _part(shape, step)
    return _one_message(path, errors[0], nullable)


def _union_message(path: str, prefix: tuple[int | str, ...], nullable: bool, errors: list[ErrorDetails]) -> str:
    """Return the message for a value that fits no member of a union; pydantic has an error for each member."""
    members = [error for error in errors if error["loc"][: len(prefix)] == prefix]
    for error in members:
        if inner := error["loc"][len(prefix) + 1 :]:  # the first step is the member
            return _one_message(path + "".join(map(_step, inner)), error, False)
    expected = " or ".join(dict.fromkeys(map(_expected, members)))
    return _expectation(path, expected, nullable, members[0]["input"])


def _one_message(path: str, error: ErrorDetails, nullable: bool) -> str:
    if error["type"] in ("missing", "extra_forbidden"):
        return f"{path.removeprefix('.')}: {'missing' if error['type'] == 'missing' else 'unknown'}"
    return _expectation(path, _expected(error), nullable, error["input"])


def _expectation(path: str, expected: str, nullable: bool, value: object) -> str:
    prefix = f"{path.removeprefix('.')}: " if path else ""
    return f"{prefix}expected {expected}{' or null' if nullable else ''}, got {abbreviate(value)}"


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return str(context["expected"]).replace(", ", " or ")
        case "greater_than_equal" if context["ge"] != -LIMIT:
            return f"a number of at least {context['ge']:g}"
        case "greater_than_equal":
            return "a whole number"
    return EXPECTED.get(error["type"], error["msg"])


def _without_none(shape: Any) -> tuple[Any, bool]:
    """Return a type without its annotations and without None, and whether None was allowed."""
    while get_origin(shape) is Annotated:
        shape = get_args(shape)[0]
    if get_origin(shape) not in (Union, UnionType):
        return shape, False
    members = [member for member in get_args(shape) if member is not NoneType]
    if len(members) == len(get_args(shape)):
        return shape, False
    inner: Any = members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 # built at run time
    while get_origin(inner) is Annotated:
        inner = get_args(inner)[0]
    return inner, True


def _part(shape: Any, step: int | str) -> Any:
    """Return the type of a part of a value: of a field, an item or a value by key."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        fields = {field.alias or name: field for name, field in shape.model_fields.items()}
        return fields[step].annotation if step in fields else None
    arguments = get_args(shape)
    if not arguments:
        return None
    return arguments[0] if isinstance(step, int) else arguments[-1]


def _step(name: int | str) -> str:
    """Return how an index or a key is written in a path."""
    if isinstance(name, int):
        return f"[{name}]"
    return f".{name}" if name.isidentifier() and len(name) <= 60 else f"[{abbreviate(name)}]"
