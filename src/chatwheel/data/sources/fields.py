"""Reading the fields of foreign objects: what to say when one is missing, and when a record is passed over."""

from __future__ import annotations

from chatwheel.data.records import Json


class WrongFieldError(Exception):
    """A field is missing or of another type: the import stops. `load` adds the file and the place."""


class Skip(Exception):  # noqa: N818 (a decision, not an error)
    """The record is well formed but there is nothing to learn from it; it is counted under this reason."""


def fields_of(value: Json) -> str:
    """The names of an object's fields for a message, at most twelve."""
    names = [repr(name) for name in value]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"


def text(value: Json, name: str) -> str:
    """A field that must be a string; numbers (a CSV's or a label's) are taken as written."""
    if name not in value:
        raise WrongFieldError(f"no field {name!r} (its fields: {fields_of(value)})")
    found = value[name]
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        raise WrongFieldError(f"field {name!r} should be a string, found {type(found).__name__}")
    return found


def optional_text(value: Json, name: str) -> str:
    """As `text`, but missing or null is the empty string."""
    return "" if value.get(name) is None else text(value, name)


def objects(value: Json, name: str) -> list[Json]:
    """A field that must be a list of objects."""
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        kind = "missing" if name not in value else f"found {type(found).__name__}"
        raise WrongFieldError(f"field {name!r} should be a list of objects, {kind}")
    return found


def texts(value: Json, name: str) -> list[str]:
    """A field that must be a list of strings."""
    found = value.get(name)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        kind = "missing" if name not in value else f"found {type(found).__name__}"
        raise WrongFieldError(f"field {name!r} should be a list of strings, {kind}")
    return found


def renamed(value: Json, names: dict[str, str]) -> Json:
    """`names` maps our field to theirs: {"text": "BODY"} reads the field BODY as `text`."""
    for theirs in names.values():
        if theirs not in value:
            raise WrongFieldError(f"no field {theirs!r} (its fields: {fields_of(value)})")
    kept = {key: found for key, found in value.items() if key not in names.values()}
    return kept | {ours: value[theirs] for ours, theirs in names.items()}


def extras(value: Json, *used: str) -> Json:
    """The plain fields that a format does not use (title, licence, url, ...), so that nothing is lost on the way."""
    reserved = {"id", "source", "language", "labeller", "messages", "answers", "ranks", *used}
    plain = {k: v for k, v in value.items() if k not in reserved and isinstance(v, (str, int, float)) and v != ""}
    # Half a surrogate pair is legal in JSON's escapes but cannot be written as UTF-8.
    kept = {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in plain.items()}
    for name in ("id", "source", "language", "labeller"):
        if name not in used and isinstance(value.get(name), (str, int)) and value[name] != "":
            kept[name] = str(value[name])
    return kept
