"""Runs single nodes of a torch graph with PyTorch's own kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from qtorch_relay.errors import UnsupportedOpError

NO_SCHEMA = "(no schema)"


@lru_cache(maxsize=4096)
def parse_schema(text: str) -> Any:
    """Returns the parsed schema of node.schema(), None for the ops that have none."""
    return None if text == NO_SCHEMA else torch._C.parse_schema(text)


def op_name(node: Any) -> str:
    """Returns "ns::name.overload", without the dot where there is no overload."""
    schema = parse_schema(node.schema())
    overload = schema.overload_name if schema is not None else ""
    kind: str = node.kind()
    return f"{kind}.{overload}" if overload else kind


def find_operation(name: str, overload: str) -> Any:
    """Returns the callable of "ns::name" and an overload ("" for none).

    Raises: UnsupportedOpError if this build of PyTorch has no such op.
    """
    namespace, _, base = name.partition("::")
    try:
        packet = getattr(getattr(torch.ops, namespace), base)
        return getattr(packet, overload or "default")
    except AttributeError:
        raise UnsupportedOpError(f"this build of PyTorch has no op {name}{'.' if overload else ''}{overload}") from None


def has_rule(node: Any) -> bool:
    """Tells whether run_node can run a node: not if it has blocks or is neither an operator nor a known prim node."""
    if list(node.blocks()):
        return False
    if node.kind() in _PRIM:
        return True
    schema = parse_schema(node.schema())
    return schema is not None and (not _is_generic(node.schema()) or node.kind() in _GENERIC)


def run_node(node: Any, args: list[Any]) -> tuple[Any, ...]:
    """Returns the outputs of a node without blocks.

    Raises: UnsupportedOpError if the op cannot be called from Python; whatever the op itself raises.
    """
    kind = node.kind()
    if kind in _PRIM:
        return _PRIM[kind](node, args)
    if not has_rule(node):
        raise UnsupportedOpError(f"{op_name(node)} cannot be run by the reference interpreter")
    result = _GENERIC[kind](*args) if _is_generic(node.schema()) else _call(parse_schema(node.schema()), args)
    count = node.outputsSize()
    if count == 0:
        return ()
    return (result,) if count == 1 else tuple(result)


def _call(schema: Any, args: list[Any]) -> Any:
    operation = find_operation(schema.name, schema.overload_name)
    keywords = {a.name: v for a, v in zip(schema.arguments, args, strict=True) if a.kwarg_only}
    return operation(*args[: len(args) - len(keywords)], **keywords)


@lru_cache(maxsize=4096)
def _is_generic(schema_text: str) -> bool:
    """Tells whether an op takes containers of any type, which torch cannot call from Python."""
    schema = parse_schema(schema_text)
    return schema is not None and any(_has_type_variable(a.type) for a in schema.arguments)


def _has_type_variable(torch_type: Any) -> bool:
    return torch_type.kind() == "VarType" or any(_has_type_variable(t) for t in torch_type.containedTypes())


def _set_item(container: Any, key: Any, value: Any) -> Any:
    container[key] = value
    return container


def _append(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _items(container: Any) -> list[Any]:
    return list(container.items())


_GENERIC: dict[str, Callable[..., Any]] = {
    "aten::__contains__": lambda container, item: item in container,
    "aten::__getitem__": lambda container, key: container[key],
    "aten::__is__": lambda a, b: a is b,
    "aten::__isnot__": lambda a, b: a is not b,
    "aten::_set_item": _set_item,
    "aten::_unwrap_optional": lambda value: value,
    "aten::add": lambda a, b: a + b,
    "aten::append": _append,
    "aten::clear": lambda container: container.clear(),
    "aten::copy": lambda container: container.copy(),
    "aten::dict": lambda pairs: dict(pairs),
    "aten::extend": lambda items, more: items.extend(more),
    "aten::get": lambda container, key, default=None: container.get(key, default),
    "aten::insert": lambda items, index, item: items.insert(index, item),
    "aten::items": _items,
    "aten::keys": lambda container: list(container.keys()),
    "aten::len": len,
    "aten::list": lambda items: list(items),
    "aten::pop": lambda container, key=-1, *default: container.pop(key, *default),
    "aten::reverse": lambda items: items.reverse(),
    "aten::select": lambda items, index: items[index],
    "aten::slice": lambda items, start, end, step: items[start:end:step],
    "aten::values": lambda container: list(container.values()),
    "prim::unchecked_unwrap_optional": lambda value: value,
}


def _raise_exception(node: Any, args: list[Any]) -> tuple[Any, ...]:
    raise RuntimeError(f"the model raises {args[0]}")


def _is_instance(node: Any, args: list[Any]) -> tuple[Any, ...]:
    found = torch._C._jit_try_infer_type(args[0]).type()
    return (any(found.isSubtypeOf(t) for t in node.tys("types")),)


_PRIM: dict[str, Callable[[Any, list[Any]], tuple[Any, ...]]] = {
    "prim::Constant": lambda node, args: (node.output().toIValue(),),
    "prim::DictConstruct": lambda node, args: (dict(zip(args[::2], args[1::2], strict=True)),),
    "prim::ListConstruct": lambda node, args: (list(args),),
    "prim::ListUnpack": lambda node, args: tuple(args[0]),
    "prim::Print": lambda node, args: (),
    "prim::RaiseException": _raise_exception,
    "prim::TupleConstruct": lambda node, args: (tuple(args),),
    "prim::TupleIndex": lambda node, args: (args[0][args[1]],),
    "prim::TupleSlice": lambda node, args: (args[0][node.i("beg") : node.i("end")],),
    "prim::TupleUnpack": lambda node, args: tuple(args[0]),
    "prim::Uninitialized": lambda node, args: (None,),
    "prim::isinstance": _is_instance,
    "prim::type": lambda node, args: (args[0].type,),
    "prim::unchecked_cast": lambda node, args: (args[0],),
}
