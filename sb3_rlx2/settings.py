"""What RL Zoo's files say of a run, ``config.yml`` and ``args.yml``, without making Python objects of it."""

import ast
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sb3_rlx2 import safe_pickle

# The tags for which nothing is lost. The zoo dumps an ordered dict, which is a list of pairs inside a list of arguments.
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "object/apply:collections.OrderedDict": lambda arguments: OrderedDict(map(tuple, arguments[0])),
    "tuple": tuple,
}


NAME = "name:"  # the tag of what Python has under a name, such as ``torch.nn.ReLU``


class PlainLoader(yaml.SafeLoader):
    """
    Reads what the zoo's ``yaml.dump`` wrote; of Python's objects it makes ordered dicts and tuples only, and finds those
    classes by their names that a saved agent may name, too.
    """

    objects = False  # whether there was a Python object, of which a plain value says less


def _plain(loader: PlainLoader, tag: str, node: yaml.Node) -> Any:
    if tag.startswith(NAME):
        module, _, name = tag.removeprefix(NAME).rpartition(".")
        try:
            return safe_pickle.find(module, name)
        except (ImportError, safe_pickle.UnsafePickleError):
            loader.objects = True
            return f"{module}.{name}"
    loader.objects |= tag not in CONTAINERS
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        content = loader.construct_sequence(node, deep=True)
        return CONTAINERS[tag](content) if tag in CONTAINERS else content
    return node.value


PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _plain)


def read_settings(path: Path, complete: bool = False) -> dict[str, Any]:
    """
    Read one of the zoo's files.

    :param path: the file
    :param complete: whether nothing may be lost; then Python objects are made, if they are trusted (``rlx2 --trust``)
    :return: names and plain values, classes besides that a saved agent may name
    :raises ValueError: if it is none, or holds Python objects that are not trusted, and must be complete
    """
    settings, holds_objects = _read(path, PlainLoader)
    if not complete or not holds_objects:
        return settings
    if safe_pickle.trusts:
        return _read(path, yaml.UnsafeLoader)[0]
    raise ValueError(
        f"{path} holds Python objects, which are made with rlx2 --trust only, because that runs code: do that only if you "
        "trust who wrote it"
    )


def needs_trust(path: Path) -> bool:
    """
    Tell whether one of the zoo's files holds Python objects, which are made only if they are trusted.

    :param path: the file
    """
    return _read(path, PlainLoader)[1]


def _read(path: Path, kind: Any) -> tuple[dict[str, Any], bool]:
    loader = kind(path.read_text())
    try:
        return dict(loader.get_single_data()), getattr(loader, "objects", False)
    except (yaml.YAMLError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def plain_dict(text: str) -> dict[str, Any]:
    """
    Read a dict of plain values as the zoo's settings have it, which evaluates it: ``dict(norm_obs=True)``, or in braces.

    :param text: the settings' text
    :raises ValueError: if it is anything else
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return {_name_of(keyword): value(keyword.value) for keyword in node.keywords}
        return ast.literal_eval(node)

    try:
        found = value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError) as error:  # also of keys that cannot be
        raise ValueError(f"{text!r} is no dict: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{text!r} is no dict")
    return found


def _name_of(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError("** has no name")
    return keyword.arg
