"""Where a node came from: its module path and its line in the model's source, as well as torch still knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

_TORCH_DIR = f"{Path(torch.__file__).parent}/"
# A traced node carries a Python stack, "path(line): function" per line, innermost first.
_TRACED_FRAME = re.compile(r"^(?P<path>[^\n]+?)\((?P<line>\d+)\): \S+", re.MULTILINE)
# A scripted node carries 'File "path", line N' and an excerpt.
_SCRIPTED_FRAME = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+)')
_MODULE = re.compile(r"([^.()]+)\(([^()]*)\)")
_NOT_A_MODULE = ("SELF", "TOP", "UNKNOWN_INSTANCE", "")


def module_path(node: Any) -> str:
    """Returns the path of the module a node was inlined from ("layer1.0.conv1"), "" for the model itself."""
    names = [name for name, _ in _MODULE.findall(node.getModuleHierarchy()) if name not in _NOT_A_MODULE]
    if names:
        return ".".join(names)
    last: str = node.scopeName().split("/")[-1]
    return last.removeprefix("__module.") if last.startswith("__module.") else ""


class SourceMap:
    """Finds the source line of nodes of one model.

    A scripted node knows only the line inside torch's own module code; the model's line is that of the call of the
    module, which is read from the graphs before inlining.
    """

    def __init__(self, module: Any | None) -> None:
        """module: the TorchScript module (torch._C.ScriptModule) before inlining, None for a function."""
        self._call_lines: dict[str, str] = {}
        if module is not None:
            self._collect_calls(module, "")

    def line(self, node: Any) -> str:
        """Returns "file.py:line": the model's own line if known, else torch's, else ""."""
        frames = _frames(node.sourceRange())
        own = next((frame for frame in frames if not _in_torch(frame[0])), None)
        if own is not None:
            return _label(own)
        scope = module_path(node)
        while scope and scope not in self._call_lines:
            scope = scope.rpartition(".")[0]
        if scope:
            return self._call_lines[scope]
        return _label(frames[0]) if frames else ""

    def place(self, node: Any) -> str:
        """Returns " (layer1.0.conv1, resnet.py:92)" for messages, without what is unknown."""
        parts = [part for part in (module_path(node), self.line(node)) if part]
        return f" ({', '.join(parts)})" if parts else ""

    def _collect_calls(self, module: Any, path: str) -> None:
        calls = (
            call
            for method in module._method_names()
            for call in module._get_method(method).graph.findAllNodes("prim::CallMethod")
        )
        for call in calls:
            names = _attribute_chain(call.inputsAt(0))
            if not names:
                continue
            child_path = ".".join((path, *names)) if path else ".".join(names)
            own = next((frame for frame in _frames(call.sourceRange()) if not _in_torch(frame[0])), None)
            if own is not None:
                self._call_lines.setdefault(child_path, _label(own))
            child = module
            for name in names:
                child = child.getattr(name)
            if isinstance(child, torch._C.ScriptModule):
                self._collect_calls(child, child_path)


def _attribute_chain(value: Any) -> tuple[str, ...]:
    names: list[str] = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = value.node().inputsAt(0)
    return tuple(reversed(names))


def _frames(source_range: str) -> list[tuple[str, str]]:
    traced = [(m["path"], m["line"]) for m in _TRACED_FRAME.finditer(source_range)]
    if traced:
        # Frames outside torch.jit.trace belong to whoever traced the model.
        end = next((i for i, (path, _) in enumerate(traced) if path.endswith("torch/jit/_trace.py")), len(traced))
        return traced[:end]
    return [(m["path"], m["line"]) for m in _SCRIPTED_FRAME.finditer(source_range)]


def _in_torch(path: str) -> bool:
    return path.startswith((_TORCH_DIR, "code/__torch__/torch/")) or "/site-packages/torch/" in path


def _label(frame: tuple[str, str]) -> str:
    return f"{Path(frame[0]).name}:{frame[1]}"
