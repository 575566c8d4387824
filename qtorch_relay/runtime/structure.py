"""How flat tensors nest in tuples, lists and dicts, as the inputs and outputs of a model do; can be written as JSON."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from qtorch_relay.errors import BundleError, InvalidInputError

# An index into the flat tensors, None, or {"tuple": [...]}, {"list": [...]}, {"dict": [[key, structure], ...]},
# {"namedtuple": [name, [[field, structure], ...]]}.
Structure: TypeAlias = int | None | dict[str, Any]


def indices(structure: Structure) -> list[int]:
    """Returns the output indices a structure names, in order.

    Raises:
        BundleError: it is not a structure.
    """
    if structure is None:
        return []
    if type(structure) is int:
        return [structure]
    return [index for _, child in _children(structure) for index in indices(child)]


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """Returns the leaves nested as the structure says: tensors, tuples, lists, dicts and None."""
    if structure is None:
        return None
    if isinstance(structure, int):
        return leaves[structure]
    children = [(key, unflatten(child, leaves)) for key, child in _children(structure)]
    if "dict" in structure:
        return dict(children)
    values = [value for _, value in children]
    if "namedtuple" in structure:
        return _named_tuple(structure["namedtuple"][0], tuple(key for key, _ in children))(*values)
    return tuple(values) if "tuple" in structure else values


def flatten(structure: Structure, value: Any, name: str) -> list[Any]:
    """Returns the leaves of a value that nests as the structure says, in the structure's order.

    Raises:
        InvalidInputError: the value nests otherwise; name says which input it is.
    """
    if structure is None:
        if value is not None:
            raise InvalidInputError(f"input {name} was left out when the model was compiled; pass None")
        return []
    if isinstance(structure, int):
        return [value]
    children = _children(structure)
    if "dict" in structure:
        keys = [key for key, _ in children]
        if not isinstance(value, Mapping) or set(value) != set(keys):
            found = f"with the keys {list(value)}" if isinstance(value, Mapping) else f"of type {type(value).__name__}"
            raise InvalidInputError(f"input {name} is {found}; accepted is a dict with the keys {keys}")
        return [leaf for key, child in children for leaf in flatten(child, value[key], f"{name}[{key!r}]")]
    if not isinstance(value, list | tuple) or len(value) != len(children):
        found = f"has {len(value)} items" if isinstance(value, list | tuple) else f"is a {type(value).__name__}"
        raise InvalidInputError(f"input {name} {found}; accepted is a list or tuple of {len(children)}")
    items = zip(children, value, strict=True)
    return [leaf for (key, child), item in items for leaf in flatten(child, item, f"{name}[{key!r}]")]


@lru_cache
def _named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    try:
        return namedtuple(name, fields)
    except ValueError as error:
        raise BundleError(f"a named tuple is not understood: {error}") from error


def _children(structure: Any) -> list[tuple[Any, Structure]]:
    if isinstance(structure, dict) and len(structure) == 1:
        [(kind, items)] = structure.items()
        if kind in ("tuple", "list") and isinstance(items, list):
            return list(enumerate(items))
        if kind == "dict" and _is_entries(items):
            return [(key, child) for key, child in items]
        if kind == "namedtuple" and isinstance(items, list) and len(items) == 2 and _is_entries(items[1]):
            return [(key, child) for key, child in items[1]]
    raise BundleError(f"output structure {structure!r} is not an index, None, tuple, namedtuple, list or dict")


def _is_entries(items: Any) -> bool:
    return isinstance(items, list) and all(_is_entry(item) for item in items)


def _is_entry(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str | int | float)
