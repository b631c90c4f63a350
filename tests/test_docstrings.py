"""Docstrings say which errors a function raises (ruff's DOC501 knows Google's and NumPy's style, not Sphinx's)."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import sb3_rlx2
from sb3_rlx2.algorithms.table import ALGORITHMS
from sb3_rlx2.plan import LEAST

PACKAGE = Path(sb3_rlx2.__file__).parent
NESTED = (ast.FunctionDef, ast.ClassDef, ast.Lambda)  # they answer for themselves
SOURCE = '''
class Ring:
    """
    :raises ValueError: if the size is wrong
    """
    def __init__(self, size):
        if size < 1:
            raise ValueError(size)
        raise KeyError(size)

    def add(self):
        """Add."""
        for _ in range(3):
            raise RuntimeError

def read(path):
    """Read."""
    try:
        raise OSError
    except (OSError, ValueError) as error:
        raise module.ReadError(path) from error

def forward():
    """Forward."""
    raise NotImplementedError

def again():
    """Again."""
    try:
        add()
    except ValueError:
        raise

def _private():
    raise ValueError
'''


def public_functions(node, class_docstring=""):
    """Give each public function or method below a node with its docstring; a constructor with its class's."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, ast.get_docstring(child) or "")
        elif isinstance(child, ast.FunctionDef) and child.name == "__init__":
            yield child, class_docstring
        elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield child, ast.get_docstring(child) or ""


def raised(node):
    """Give the names of the errors that a function's own code raises and does not catch itself."""
    if isinstance(node, ast.Raise) and node.exc is not None:
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return {ast.unparse(error).split(".")[-1]} - {"NotImplementedError"}
    children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, NESTED)]
    if not isinstance(node, ast.Try):
        return set().union(*map(raised, children))
    caught = {
        name.id for handler in node.handlers if handler.type for name in ast.walk(handler.type) if isinstance(name, ast.Name)
    }
    inside = set().union(*map(raised, node.body))
    return (inside - caught) | set().union(*(raised(child) for child in children if child not in node.body))


def unsaid(source):
    """Give (function, error) for each error that a docstring does not speak of."""
    functions = public_functions(ast.parse(source))
    return {(f.name, error) for f, docstring in functions for error in raised(f) if f":raises {error}:" not in docstring}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_name_the_errors(path):
    assert unsaid(path.read_text()) == set()
    assert ":raise " not in path.read_text()


def test_an_unsaid_error_is_found():
    assert unsaid(SOURCE) == {("__init__", "KeyError"), ("add", "RuntimeError"), ("read", "ReadError")}


def unnamed(source):
    """Give (function, argument) for each argument that a docstring which names some does not name."""
    found = set()
    for function, docstring in public_functions(ast.parse(source)):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        names = {one.arg for one in arguments if not one.arg.startswith("_")} - {"self", "cls"}
        if ":param " in docstring:
            found |= {(function.name, name) for name in names if f":param {name}:" not in docstring}
    return found


# A kernel's docstring names what its file does not explain for all.
PATHS = [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))]


@pytest.mark.parametrize("path", [path for path in PATHS if "kernels" not in path])
def test_docstrings_name_all_arguments(path):
    assert unnamed((PACKAGE / path).read_text()) == set()


def test_unnamed_arguments_are_noticed():
    source = 'def read(path, /, size, *, at, _hidden):\n    """\n    :param size: bytes\n    """'
    assert unnamed(source) == {("read", "path"), ("read", "at")}


@pytest.mark.parametrize("cls", ALGORITHMS.values())
def test_defaults_are_those_of_the_signature(cls):
    """Of arguments whose docstring names one; of steps it is the least of a share."""
    stated = dict(re.findall(r"^    :param (\w+): (.*(?:\n {8}.*)*)", cls.__doc__, re.M))
    defaults = {each.name: each.default for each in inspect.signature(cls.__init__).parameters.values()}
    shown = {name: re.findall(r"\(default ``(.*?)``", text) for name, text in stated.items()}
    assert {name: ast.literal_eval(text[0]) for name, text in shown.items() if text} == {
        name: defaults[name] for name, text in shown.items() if text
    }
    assert len([text for text in shown.values() if text]) >= 1
    for name, least in LEAST.items():
        if name in stated:
            assert f"{least:,} at least" in stated[name] or f"a least ({least:,} here)" in stated[name], name
