"""What flowzoo's classes and functions say in their source, without importing them: most of them import torch."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_KEYWORDS = Parameter("more", Parameter.VAR_KEYWORD)


@cache
def signature_of(target: str) -> Signature:
    """How `flowzoo.module.Name` is called; defaults are not evaluated. Raises ValueError where there is none."""
    module, _, name = target.rpartition(".")
    for node in _body(module):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return Signature(list(_parameters(node.args)))
        if isinstance(node, ast.ClassDef) and node.name == name:
            return Signature(_of_class(module, node))
        if imported := _imported(node, name):
            return signature_of(imported)
    raise ValueError(f"there is no {name} in {module or 'flowzoo'}")


@cache
def _body(module: str) -> list[ast.stmt]:
    path = _ROOT.joinpath(*module.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_bytes()).body
    raise ValueError(f"there is no module {module}")


def classes_of(module: str) -> list[str]:
    """The names of the public classes of a module of flowzoo, in order. Raises ValueError where there is no module."""
    return [node.name for node in _body(module) if isinstance(node, ast.ClassDef) and node.name[0] != "_"]


def members_of(target: str) -> dict[str, ast.expr | ast.FunctionDef]:
    """The values and the functions in the body of `flowzoo.module.Name`, and before them those of its bases.

    Bases of other packages have none. Raises ValueError where there is no such class.
    """
    module, _, name = target.rpartition(".")
    for node in _body(module):
        if imported := _imported(node, name):
            return members_of(imported)
        if isinstance(node, ast.ClassDef) and node.name == name:
            found: dict[str, ast.expr | ast.FunctionDef] = {}
            for base in reversed(node.bases):
                with suppress(ValueError):
                    found |= members_of(f"{module}.{ast.unparse(base).split('[')[0]}")
            for one in node.body:
                if isinstance(one, ast.FunctionDef):
                    found[one.name] = one
                elif isinstance(one, ast.Assign):
                    found |= {target.id: one.value for target in one.targets if isinstance(target, ast.Name)}
                elif isinstance(one, ast.AnnAssign) and one.value and isinstance(one.target, ast.Name):
                    found[one.target.id] = one.value
            return found
    raise ValueError(f"there is no {name} in {module or 'flowzoo'}")


def _of_class(module: str, node: ast.ClassDef) -> list[Parameter]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return list(_parameters(method.args))[1:]
    found = {p.name: p for base in reversed(node.bases) for p in _of_base(module, base)}
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation):
                name = ast.unparse(field.target)
                found[name] = _parameter(name, Parameter.POSITIONAL_OR_KEYWORD, field.value)
    return sorted(found.values(), key=lambda p: (p.kind, p.default is not Parameter.empty))


def _of_base(module: str, base: ast.expr) -> list[Parameter]:
    name = ast.unparse(base).split("[")[0]
    if name in ("Protocol", "ABC", "nn.Module"):
        return []
    for node in _body(module):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(module, node)
        if imported := _imported(node, name):
            return list(signature_of(imported).parameters.values())
    return [_KEYWORDS]  # of another package: it may take anything


def _imported(node: ast.stmt, name: str) -> str | None:
    """Where `name` comes from, where this statement imports it from flowzoo."""
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "flowzoo":
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                return f"{node.module}.{alias.name}"
    return None


def _parameters(args: ast.arguments) -> Iterator[Parameter]:
    listed = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(listed) - len(args.defaults)) + list(args.defaults)
    for i, (arg, default) in enumerate(zip(listed, defaults, strict=True)):
        only = i < len(args.posonlyargs)
        kind = Parameter.POSITIONAL_ONLY if only else Parameter.POSITIONAL_OR_KEYWORD
        yield _parameter(arg.arg, kind, default)
    if args.vararg:
        yield Parameter(args.vararg.arg, Parameter.VAR_POSITIONAL)
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield _parameter(arg.arg, Parameter.KEYWORD_ONLY, default)
    if args.kwarg:
        yield Parameter(args.kwarg.arg, Parameter.VAR_KEYWORD)


def _parameter(name: str, kind: Any, default: ast.expr | None) -> Parameter:
    return Parameter(name, kind, default=Parameter.empty if default is None else ast.unparse(default))
