"""What RL Zoo's files say of a run, ``config.yml`` and ``args.yml``, without making Python objects of it."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

# The tags for which nothing is lost. The zoo dumps an ordered dict, which is a list of pairs inside a list of arguments.
CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "object/apply:collections.OrderedDict": lambda arguments: OrderedDict(map(tuple, arguments[0])),
    "tuple": tuple,
}


class PlainLoader(yaml.SafeLoader):
    """Reads what the zoo's ``yaml.dump`` wrote; of Python's objects it makes ordered dicts and tuples only."""

    objects = False  # whether there was a Python object, of which a plain value says less


def _plain(loader: PlainLoader, tag: str, node: yaml.Node) -> Any:
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
    :param complete: whether nothing may be lost
    :return: names and plain values
    :raises ValueError: if it is none, or holds Python objects and must be complete
    """
    loader = PlainLoader(path.read_text())
    try:
        settings = dict(loader.get_single_data())
    except (yaml.YAMLError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if complete and loader.objects:
        raise ValueError(f"{path} holds Python objects, which are not made when it is read: give them as strings")
    return settings
