"""Components as their source files say them, by name: importing them would cost the seconds that torch takes."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actkit.config.registry import KINDS

PACKAGE = Path(__file__).resolve().parents[1]
# What `actkit new` writes from is text with gaps.
_TEMPLATES = PACKAGE / "cli/new"


@dataclass(frozen=True)
class Found:
    """A component that a file registers.

    Args:
        parameters: the names that a recipe can bind, each with its annotation as it is written.
        items: of a paper, those that its file writes down as `Item("table5", ...)`.
    """

    name: str
    place: str
    parameters: dict[str, str]
    items: tuple[str, ...] = ()

    def wants(self, parameter: str) -> str:
        """The kind of component that a parameter takes, '' where it takes none, or a list."""
        annotation = self.parameters.get(parameter, "")
        named = re.search(_KINDS, annotation)
        return named[0].lower() if named and "[" not in annotation else ""


_KINDS = r"\b(Backbone|Dataset|Attack|Objective|Probe|Optimizer|Schedule)\b"


def components_in(folder: Path, kind: str) -> Iterator[Found]:
    """The components of a kind ('' for run, role and study) that the files of a folder register by a decorator."""
    for path in sorted(folder.rglob("*.py")):
        if path.is_relative_to(_TEMPLATES):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            if f"register({kind!r}" not in text and f'register("{kind}"' not in text:
                continue
            body = ast.parse(text).body
        except (OSError, UnicodeDecodeError, SyntaxError):
            # Whoever imports it is told why it cannot be.
            continue
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                for decorator in node.decorator_list:
                    if (name := _registered(decorator, kind, node.name)) is not None:
                        items = tuple(_items(body)) if kind == "paper" else ()
                        yield Found(name, f"{path}:{decorator.lineno}", _parameters(node, kind), items)


def _items(body: list[ast.stmt]) -> Iterator[str]:
    """The names in `Item("table5", ...)`, in the order of the file."""
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Item":
            given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "name")]
            yield from (one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))


def _registered(decorator: ast.expr, kind: str, called: str) -> str | None:
    """The name under which a decorator registers what is called so; None where it is no `register` of this kind."""
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "register"):
        return None
    given = [argument.value for argument in decorator.args if isinstance(argument, ast.Constant)]
    given += [word.value.value for word in decorator.keywords if word.arg == "name" and isinstance(word.value, ast.Constant)]  # fmt: skip
    if given[:1] != [kind]:
        return None
    return str(given[1]) if len(given) > 1 else called


def _parameters(node: ast.FunctionDef | ast.ClassDef, kind: str) -> dict[str, str]:
    """The keyword-only parameters of a function or of a class's `__init__`, or the fields of a dataclass."""
    if isinstance(node, ast.ClassDef):
        inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not inits:
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            return {ast.unparse(one.target): ast.unparse(one.annotation) for one in fields}
        node = inits[0]
    supplied = KINDS[kind].supplied if kind in KINDS else ()
    return {
        one.arg: ast.unparse(one.annotation) if one.annotation else ""
        for one in node.args.kwonlyargs
        if one.arg not in supplied
    }


def torch_names(kind: str) -> list[str]:
    """torch's own optimizers or schedules that a recipe can name."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(spec.submodule_search_locations[0]) / "optim"
    files = [folder / "lr_scheduler.py"] if kind == "schedule" else [p for p in folder.glob("*.py") if p.stem != "lr_scheduler"]  # fmt: skip
    classes = dict(
        found
        for path in files
        for found in re.findall(r"^class (\w+)\((\w+)\)", path.read_text(encoding="utf-8"), re.M)
    )
    known = {"LRScheduler" if kind == "schedule" else "Optimizer"}
    for _ in classes:
        known |= {name for name, base in classes.items() if base in known}
    return sorted(name for name in known & set(classes) if not name.startswith("_") and name not in _left_out())


def _left_out() -> set[str]:
    """Those of torch that the loop cannot drive, as `networks/roles.py` lists them."""
    for node in ast.parse((PACKAGE / "networks/roles.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_LEFT_OUT":
            return set(ast.literal_eval(node.value))
    return set()
