"""What a caller says about a model's inputs: names, shapes and dtypes, or example values, nested as the model's are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch

from qtorch_relay.capture.packed import CODE_DTYPE, quant_params
from qtorch_relay.errors import InvalidInputError, UnsupportedQuantSchemeError
from qtorch_relay.qparams import PerTensor, code_range

DTYPES = {
    "float32": torch.float32, "float64": torch.float64, "float16": torch.float16,
    "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64,
    "bool": torch.bool,
}  # fmt: skip
QUANTIZED_DTYPES = {"quint8": "uint8", "qint8": "int8", "qint32": "int32"}
ACCEPTED = (
    'accepted are [("x", (1, 3, 224, 224))], [("x", ((1, 3, 224, 224), "float32"))] or example tensors, one per input'
)
_QUANTIZED = 'a quantized input is ("x", (shape, "quint8", scale, zero_point)) or an example quantized tensor'

# What stands for a named dimension where nothing else is said: not 1, whose broadcasting hides mistakes.
EXAMPLE_SIZE = 2

Shape: TypeAlias = tuple[int | str, ...]


@dataclass(frozen=True)
class InputSpec:
    """One tensor that a model takes. name is None where the caller gave an example value: the model's own is used.

    shape: a dimension that is a name stands for any size. qparams: those of a quantized tensor, whose codes have dtype.
    integers: what an example holds; indices and offsets must fit each other and the model, as no made-up ones would.
    """

    name: str | None
    shape: Shape
    dtype: str
    qparams: PerTensor | None = None
    integers: torch.Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        label = "an input" if self.name is None else f"input {self.name!r}"
        if not all(_is_name(d) or (isinstance(d, int) and not isinstance(d, bool) and d > 0) for d in self.shape):
            raise InvalidInputError(f"{label} has shape {self.shape}; every dimension must be an integer above 0")
        if self.dtype not in DTYPES:
            raise InvalidInputError(f"{label} has dtype {self.dtype!r}; accepted are {', '.join(DTYPES)}")

    def at(self, sizes: Mapping[str, int]) -> InputSpec:
        """Returns the spec with sizes in place of the names of dimensions."""
        return replace(self, shape=tuple(sizes[d] if isinstance(d, str) else d for d in self.shape))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the torch tensor."""
        if self.qparams is None:
            return DTYPES[self.dtype]
        return next(dtype for dtype, codes in CODE_DTYPE.items() if codes == self.dtype)

    def example(self) -> torch.Tensor:
        """Returns a tensor to trace with: seeded normal floats, seeded codes, the integers of an example, else zeros
        (which are valid indices).

        Raises: InvalidInputError if there is not the memory for it.
        """
        if self.integers is not None and self.integers.shape == self.shape:
            return self.integers.clone()
        generator = torch.Generator().manual_seed(0)
        dtype = DTYPES[self.dtype]
        try:
            if self.qparams is not None:
                low, high = code_range("int8" if self.dtype == "int32" else self.dtype)
                codes = torch.randint(low, high + 1, self.shape, generator=generator, dtype=dtype)
                scale, zero_point = self.qparams.scale, self.qparams.zero_point
                return torch._make_per_tensor_quantized_tensor(codes, scale, zero_point)
            if not dtype.is_floating_point:
                return torch.zeros(self.shape, dtype=dtype)
            return torch.randn(self.shape, generator=generator).to(dtype)
        except (RuntimeError, MemoryError) as error:  # torch has no class of its own for this
            raise InvalidInputError(f"there is not the memory for {self}; check its shape") from error

    def __str__(self) -> str:
        dtype = str(self.torch_dtype).removeprefix("torch.")
        shape = ", ".join(map(str, self.shape))
        return f"{'an input' if self.name is None else f'input {self.name!r}'}, {dtype} [{shape}]"


# None is an optional input that is left out.
InputTree: TypeAlias = InputSpec | list[Any] | tuple[Any, ...] | dict[str, Any] | None


@dataclass(frozen=True)
class InputArgument:
    """One argument of a model's forward: a tensor, or a list, tuple or dict of them."""

    name: str | None
    tree: InputTree

    @property
    def leaves(self) -> list[InputSpec]:
        """The tensors in it, in order."""
        return list(_leaves(self.tree))

    def named(self, name: str, sizes: Mapping[str, int]) -> InputArgument:
        """Returns the argument with a name for each tensor ("xs" holds "xs_0", "xs_1") and sizes for named
        dimensions.
        """
        return InputArgument(name, _named(self.tree, name, sizes))

    @property
    def structure(self) -> Any:
        """How the tensors nest, as runtime.specs.Structure writes it; the first has index 0."""
        return _structure(self.tree, iter(range(len(self.leaves))))

    def example(self) -> Any:
        """Returns a value to trace with."""
        return _example(self.tree)

    def check_type(self, name: str, torch_type: Any) -> None:
        """Raises InvalidInputError if the model's argument is not of the type described."""
        if not _accepts(torch_type, self.tree):
            words = "tensors, and lists, tuples and dicts of tensors as the model nests them"
            raise InvalidInputError(f"input {name!r} of the model is a {torch_type}; accepted are {words}")


def parse_input_infos(input_infos: Any) -> tuple[InputArgument, ...]:
    """Returns one InputArgument per input.

    input_infos: a list of (name, info) or example values, which may be mixed; or a single example. info is a shape,
        (shape, dtype), (shape, "quint8", scale, zero_point), an example, None, or a list, tuple or dict of these.
        Examples are torch tensors, quantized or not, and numpy arrays.
    Raises: InvalidInputError if an entry is none of these, or two inputs have one name.
    """
    entries = [input_infos] if isinstance(input_infos, torch.Tensor | np.ndarray) else input_infos
    if not isinstance(entries, list | tuple):
        raise InvalidInputError(f"input_infos is a {type(input_infos).__name__}; {ACCEPTED}")
    if len(entries) == 2 and isinstance(entries[0], str):
        raise InvalidInputError(f"input_infos is one (name, shape) pair; put it into a list; {ACCEPTED}")
    arguments = tuple(_parse_entry(entry) for entry in entries)
    names = [argument.name for argument in arguments if argument.name is not None]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"input names must differ, found {', '.join(names)}")
    return arguments


def dimension_names(arguments: Sequence[InputArgument]) -> list[str]:
    """Returns the names of dimensions that stand for any size, once each, in order."""
    dimensions = [d for argument in arguments for spec in argument.leaves for d in spec.shape]
    return list(dict.fromkeys(d for d in dimensions if isinstance(d, str)))


def _parse_entry(entry: Any) -> InputArgument:
    if entry is None or isinstance(entry, torch.Tensor | np.ndarray | dict) or _holds_examples(entry):
        return InputArgument(None, _parse_info(None, entry))
    if not (isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)):
        raise InvalidInputError(f"an entry of input_infos is {_short(entry)}; {ACCEPTED}")
    name, info = entry
    check_name(name)
    return InputArgument(name, _parse_info(name, info))


def _holds_examples(entry: Any) -> bool:
    """Says whether an entry without a name is a list or tuple of example values, nested or not."""
    if not isinstance(entry, list | tuple) or not entry:
        return False
    return all(isinstance(item, torch.Tensor | np.ndarray | dict) or _holds_examples(item) for item in entry)


def _parse_info(name: str | None, info: Any) -> InputTree:
    if info is None:
        return None
    if isinstance(info, torch.Tensor):
        return _of_example(name, info)
    if isinstance(info, np.ndarray):
        integers = torch.from_numpy(info.copy()) if info.dtype.kind in "iub" else None
        return InputSpec(name, info.shape, str(info.dtype), integers=integers)
    if isinstance(info, dict):
        if not info or not all(isinstance(key, str) for key in info):
            raise InvalidInputError(f"input {name!r} is a dict with the keys {list(info)}; keys are strings")
        return {key: _parse_info(name, item) for key, item in info.items()}
    if isinstance(info, list | tuple) and len(info) in (2, 4) and isinstance(info[0], list | tuple):
        if isinstance(info[1], str | torch.dtype | np.dtype | type):
            return _of_dtype(name, *info)
    if isinstance(info, list | tuple) and any(isinstance(item, list | tuple | dict | torch.Tensor) for item in info):
        trees = [_parse_info(name, item) for item in info]
        return tuple(trees) if isinstance(info, tuple) else trees
    return InputSpec(name, _shape(name, info), "float32")


def _of_example(name: str | None, tensor: torch.Tensor) -> InputSpec:
    if not tensor.is_quantized:
        integers = None if tensor.is_floating_point() else tensor.detach().clone()
        return InputSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), integers=integers)
    qparams = quant_params(tensor)
    if not isinstance(qparams, PerTensor):
        raise UnsupportedQuantSchemeError("an example input is quantized per channel; inputs are quantized per tensor")
    return InputSpec(name, tuple(tensor.shape), qparams.dtype, qparams)


def _of_dtype(name: str | None, shape: Any, dtype: Any, *parameters: Any) -> InputSpec:
    dims, dtype_name = _shape(name, shape), _dtype_name(dtype)
    codes = QUANTIZED_DTYPES.get(dtype_name)
    if (codes is None) != (not parameters):
        raise InvalidInputError(f"input {name!r} is {dtype_name} with the parameters {parameters}; {_QUANTIZED}")
    if codes is None:
        return InputSpec(name, dims, dtype_name)
    scale, zero_point = parameters
    if not isinstance(scale, int | float) or not isinstance(zero_point, int):
        raise InvalidInputError(f"input {name!r} has scale {scale!r} and zero point {zero_point!r}; {_QUANTIZED}")
    return InputSpec(name, dims, codes, PerTensor(float(scale), zero_point, codes))


def _dtype_name(dtype: Any) -> str:
    """Returns the name of a torch or numpy dtype, or of numpy's class of its elements."""
    if isinstance(dtype, type) and issubclass(dtype, np.generic):
        return dtype.__name__
    return str(dtype).removeprefix("torch.")


def _shape(name: str | None, shape: Any) -> Shape:
    if not isinstance(shape, list | tuple) or not all(isinstance(d, int | np.integer) or _is_name(d) for d in shape):
        raise InvalidInputError(f"input {name!r} has shape {_short(shape)}; a shape is a tuple of integers; {ACCEPTED}")
    return tuple(d if isinstance(d, str) else int(d) for d in shape)


def _is_name(dimension: Any) -> bool:
    return isinstance(dimension, str) and re.fullmatch(r"[A-Za-z_]\w*", dimension) is not None


def check_name(name: str | None) -> None:
    """Raises InvalidInputError unless an input may have this name."""
    if name is not None and re.fullmatch(r"[A-Za-z_][\w.]*", name) is None:
        raise InvalidInputError(
            f"input name {name!r} must start with a letter or _ and hold only letters, digits, _ and ."
        )


def _leaves(tree: InputTree) -> Iterator[InputSpec]:
    if isinstance(tree, InputSpec):
        yield tree
    elif tree is not None:
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(item)


def _named(tree: InputTree, name: str, sizes: Mapping[str, int]) -> InputTree:
    if isinstance(tree, InputSpec):
        return replace(tree, name=name).at(sizes)
    if isinstance(tree, dict):
        return {key: _named(item, re.sub(r"[^\w.]", "_", f"{name}_{key}"), sizes) for key, item in tree.items()}
    if tree is None:
        return None
    items = [_named(item, f"{name}_{i}", sizes) for i, item in enumerate(tree)]
    return tuple(items) if isinstance(tree, tuple) else items


def _structure(tree: InputTree, numbers: Iterator[int]) -> Any:
    if tree is None:
        return None
    if isinstance(tree, InputSpec):
        return next(numbers)
    if isinstance(tree, dict):
        return {"dict": [[key, _structure(item, numbers)] for key, item in tree.items()]}
    return {"tuple" if isinstance(tree, tuple) else "list": [_structure(item, numbers) for item in tree]}


def _example(tree: InputTree) -> Any:
    if isinstance(tree, InputSpec):
        return tree.example()
    if isinstance(tree, dict):
        return {key: _example(item) for key, item in tree.items()}
    return None if tree is None else type(tree)(_example(item) for item in tree)


def _accepts(torch_type: Any, tree: InputTree) -> bool:
    """Says whether an argument of a torch type takes what a tree describes."""
    kind = torch_type.kind()
    if kind == "OptionalType":
        return tree is None or _accepts(torch_type.containedTypes()[0], tree)
    if isinstance(tree, InputSpec):
        return bool(kind == "TensorType")
    if isinstance(tree, dict):
        return kind == "DictType" and all(_accepts(torch_type.containedTypes()[1], item) for item in tree.values())
    if tree is None:
        return False
    items = torch_type.containedTypes()
    if kind == "TupleType":
        return len(items) == len(tree) and all(map(_accepts, items, tree))
    return kind == "ListType" and all(_accepts(items[0], item) for item in tree)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_count(arguments: Sequence[InputArgument], model_names: Sequence[str]) -> None:
    """Raises InvalidInputError unless there is one InputArgument per input of the model's forward."""
    if len(arguments) != len(model_names):
        raise InvalidInputError(
            f"the model takes {len(model_names)} input{'' if len(model_names) == 1 else 's'} "
            f"({', '.join(model_names) or 'none'}), input_infos (--input) describes {len(arguments)}; "
            "describe each of them once"
        )


def check_order(arguments: Sequence[InputArgument], model_names: Sequence[str]) -> None:
    """Raises InvalidInputError if an input has the name of another of the model's: order counts, names are labels."""
    for i, (argument, name) in enumerate(zip(arguments, model_names, strict=True)):
        if argument.name is not None and argument.name != name and argument.name in model_names:
            raise InvalidInputError(
                f"input {i} of the model is {name!r}, input_infos calls it {argument.name!r}, the name of another; "
                f"describe the inputs in the model's order: {', '.join(model_names)}"
            )
