"""Registries of what configurations and command lines can name: each choice is a decorated function in its own file.

The decorators of the package's own files are parsed, not run, so that listing the choices imports none of them. A file
elsewhere registers its function when it is imported (``--import``).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module, resources  # noqa: TID251  folders of entries, imported when one is called
from pathlib import Path
from typing import Any, Generic, TypeVar

from cellseg_d2.errors import CellSegError, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """One choice, which is called as the function that it stands for.

    Attributes:
        name: by which it is chosen.
        summary: a line for users, the decorator's ``summary`` or the first line of the function's docstring.
        module: where the function is.
        details: further arguments of the decorator.
    """

    name: str
    summary: str
    module: str
    details: Mapping[str, Any] = field(default_factory=dict)
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.name not in self.functions:
            import_module(self.module)
        return self.functions[self.name](*args, **kwargs)


E = TypeVar("E", bound=Entry)


class Registry(Mapping[str, E], Generic[E]):
    """The choices of one kind by name.

    Args:
        variable: the name by which files import this registry.
        package: the folder whose files are searched for ``@<variable>.register("name", …)``, with literal arguments.
        kind: what an entry is, for messages.
        entry: the class of the entries.
    """

    def __init__(self, variable: str, package: str, kind: str, entry: type[E]):
        self._decorator = f"{variable}.register"
        self._package = package
        self._kind = kind
        self._make = entry
        self._functions: dict[str, Callable[..., Any]] = {}
        self._entries: dict[str, E] | None = None

    def register(self, name: str, **details: Any) -> Callable[[F], F]:
        """Decorator that registers a function under ``name``.

        The first line of its docstring, or ``summary``, explains it to users.

        Raises:
            CellSegError: the name is taken.
        """

        def add(function: F) -> F:
            other = self._all().get(name)
            if other is not None and other.module != function.__module__:
                raise CellSegError(
                    f"{self._kind} {name!r} of {function.__module__} is there already, in {other.module}: rename it"
                )
            self._functions[name] = function
            self._add(name, function.__module__, function.__doc__, details)
            return function

        return add

    def choose(self, name: str, where: str) -> E:
        """The entry called ``name``.

        Raises:
            CellSegError: there is none; the message lists the existing ones, and says ``where`` it was asked for.
        """
        if name not in self:
            meant = did_you_mean(name, self)
            raise CellSegError(f"{where} names {name!r}, which is not one of: {', '.join(self)}{meant}")
        return self[name]

    @property
    def summaries(self) -> dict[str, str]:
        """What each name stands for."""
        return {name: entry.summary for name, entry in self.items()}

    def __getitem__(self, name: str) -> E:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, E]:
        if self._entries is None:
            self._entries = {}
            folder = resources.files(self._package)
            for file in folder.iterdir():
                if file.name.endswith(".py") and self._decorator in (source := file.read_text(encoding="utf-8")):
                    self._read(source, f"{self._package}.{Path(file.name).stem}")
        return self._entries

    def _read(self, source: str, module: str) -> None:
        for node in ast.parse(source).body:
            for decorator in getattr(node, "decorator_list", []):
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == self._decorator:
                    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
                    name = ast.literal_eval(decorator.args[0])
                    details = {word.arg: ast.literal_eval(word.value) for word in decorator.keywords if word.arg}
                    self._add(name, module, ast.get_docstring(node), details)

    def _add(self, name: str, module: str, docstring: str | None, details: Mapping[str, Any]) -> None:
        lines = (details.get("summary") or docstring or "").strip().splitlines()
        summary = lines[0].rstrip(".") if lines else ""
        self._all()[name] = self._make(name, summary, module, details, self._functions)


IMPORTED: list[str] = []


def import_own(name: str) -> None:
    """Import a user's module, for what it registers, and note it in :data:`IMPORTED` for other processes.

    Args:
        name: as in an ``import``, or a Python file, whose folder is then searched for modules.

    Raises:
        CellSegError: there is no such module or file.
    """
    if name in IMPORTED:
        return
    path, module = Path(name), name
    if path.suffix == ".py":
        if not path.is_file():
            raise CellSegError(f"--import {name}: there is no such file")
        module = path.stem
        sys.path.insert(0, str(path.resolve().parent))
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise
        raise CellSegError(
            f"--import {name}: there is no such module; name the file, or add its folder to PYTHONPATH"
        ) from None
    if path.suffix == ".py" and Path(found.__file__ or "").resolve() != path.resolve():
        raise CellSegError(f"--import {name}: Python has another module {module}, {found.__file__}; rename the file")
    IMPORTED.append(name)


def table(summaries: Mapping[str, str]) -> str:
    """Names with their summaries, one per line, for help texts."""
    width = max(map(len, summaries))
    return "".join(f"  {name:{width}}  {summary.replace('``', '')}\n" for name, summary in summaries.items())


def import_all(package: str) -> None:
    """Import every file of a package, for what they register elsewhere, such as in Detectron2's registries."""
    for file in resources.files(package).iterdir():
        if file.name.endswith(".py") and not file.name.startswith("_"):
            import_module(f"{package}.{Path(file.name).stem}")
