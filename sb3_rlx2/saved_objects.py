"""
What Stable-Baselines3 pickles into an agent's zip (spaces, classes, noise, schedules), read without running code.

Beside SB3's pickles, which SB3 reads, our agents hold the same as JSON and npy, and there it is read. Agents of SB3 and of
earlier versions of this package have pickles only, of which no more is made than :mod:`sb3_rlx2.safe_pickle` lists.
"""

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from sb3_rlx2 import safe_pickle
from sb3_rlx2.packing import KINDS, Arrays, Kind, NotPlainError, Packer, Unpacker
from sb3_rlx2.safe_pickle import UnsafePickleError

DATA = "data"  # the member that holds an agent's attributes as JSON, and in it pickles
ALIASES = "stable_baselines3.common.type_aliases"
PLAIN, PLAIN_ARRAYS = "rlx2.json", "rlx2.npz"  # what the pickles hold, without them
RATIO, SLACK = 50, 1 << 26  # SB3 does not compress; what unpacks to more than this many times its size is made to fill memory


def pack_objects(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """
    Give an agent's attributes as JSON has them, as far as that can be: a function of the user's own is left out.

    :param attributes: by name
    :return: JSON, and the arrays that go with it
    """
    arrays: Arrays = {}
    plain = {}
    for name, value in attributes.items():
        own = dict(arrays)
        try:
            plain[name] = Packer(own, OBJECTS)(value)
        except NotPlainError:
            continue
        arrays = own
    return plain, arrays


def unpack_objects(plain: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """
    Give back what :func:`pack_objects` was given.

    :param plain: JSON
    :param arrays: the arrays that go with it
    :raises ValueError: if it is damaged, or names what is not to be made from a file
    """
    try:
        return {name: Unpacker(arrays, OBJECTS)(value) for name, value in plain.items()}
    except UnsafePickleError:
        raise
    except Exception as error:  # whatever the words of a damaged file are
        raise ValueError(f"{type(error).__name__}: {error}") from error


def add_plain(file: BinaryIO, attributes: Mapping[str, Any]) -> None:
    """
    Write into an agent's zip once more, as JSON and npy, what is pickled in it, as far as that can be.

    :param file: the zip, open to be read and written
    :param attributes: the agent's
    """
    with zipfile.ZipFile(file, "a") as archive:
        pickled = _pickles(json.loads(archive.read(DATA)))
        plain, arrays = pack_objects({name: attributes[name] for name in pickled})
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        archive.writestr(PLAIN, json.dumps(plain))
        archive.writestr(PLAIN_ARRAYS, content.getvalue())


def read_objects(file: BinaryIO, optional: Collection[str] = ()) -> dict[str, Any]:
    """
    Read the pickled attributes of a saved agent.

    :param file: the zip
    :param optional: attributes that the caller replaces: where one is not to be read, it is None
    :return: the attributes by name
    :raises ValueError: if the file is no agent, or holds what is not to be made from a file
    """
    try:
        with zipfile.ZipFile(file) as archive:
            check_members(archive)
            damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            data = json.loads(archive.read(DATA))
            if not isinstance(data, dict):
                raise ValueError("it is damaged")
            plain = _read_plain(archive) if PLAIN in archive.namelist() else {}
    except UnsafePickleError:
        raise
    except Exception as error:  # whatever the words of a damaged zip are, an encrypted one's or an unknown compression's
        raise ValueError(f"no agent that Stable-Baselines3 saved, or damaged: {error}") from error
    pickled = _pickles(data)
    return {name: plain[name] if name in plain else _read(name, text, name in optional) for name, text in pickled.items()}


def plain_attributes(file: BinaryIO) -> dict[str, Any]:
    """
    Give the attributes of a saved agent by name, without reading those that are pickled: of these, what SB3 says of them.

    :param file: the zip
    """
    with zipfile.ZipFile(file) as archive:
        return dict(json.loads(archive.read(DATA)))


def _pickles(data: Mapping[str, Any]) -> dict[str, str]:
    return {name: item[":serialized:"] for name, item in data.items() if isinstance(item, dict) and ":serialized:" in item}


def _read_plain(archive: zipfile.ZipFile) -> dict[str, Any]:
    packed = io.BytesIO(archive.read(PLAIN_ARRAYS))
    with zipfile.ZipFile(packed) as inner:
        check_members(inner)
    try:
        with np.load(packed, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        plain = json.loads(archive.read(PLAIN))
    except Exception as error:  # whatever the words of a damaged file are
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return unpack_objects(plain if isinstance(plain, dict) else {}, arrays)


def _read(name: str, text: str, is_optional: bool) -> Any:
    try:
        return safe_pickle.loads(base64.b64decode(text))
    except UnsafePickleError as error:
        if is_optional:
            return None
        raise UnsafePickleError(f"{name} of the saved agent: {error}; or give another {name}") from None
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{name} of the saved agent is damaged: {error}") from error


def check_members(archive: zipfile.ZipFile) -> None:
    """
    Check that an archive unpacks to no more than is to be expected, and to no other place.

    :param archive: the archive
    :raises ValueError: if it does not
    """
    members = archive.infolist()
    packed, unpacked = sum(each.compress_size for each in members), sum(each.file_size for each in members)
    if unpacked > RATIO * packed + SLACK:
        raise ValueError(f"it unpacks from {packed:,} to {unpacked:,} bytes")
    for each in members:
        path = PurePosixPath(each.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in each.filename or each.external_attr >> 28 == 0xA:
            raise ValueError(f"it holds {each.filename!r}, which leads out of its folder")


def why_no_agent_zip(path: Path) -> str | None:
    """
    Tell whether a file is a whole agent, as Stable-Baselines3 saves one.

    :param path: the file
    :return: what is wrong with it, None if nothing is
    """
    if not path.is_file():
        return "is a folder, where the file of an agent must be" if path.is_dir() else "does not exist"
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive)
            damaged, names = archive.testzip(), archive.namelist()
    except Exception as error:  # also an encrypted one's, or an unknown compression's
        return f"is damaged, or no zip: {error}"
    # What is left of a torn zip may open as one of the archives inside it, so what must be there counts too.
    if damaged is not None or not {"data", "policy.pth"} <= set(names):
        return "is damaged, or no agent that Stable-Baselines3 saved"
    return None


def _full_name(cls: type) -> list[str]:
    return [cls.__module__, cls.__qualname__]


def _is_made(value: Any) -> bool:
    module, name = _full_name(type(value))
    return name in safe_pickle.MADE.get(module, ())


def _is_named(value: Any) -> bool:
    try:
        return isinstance(value, type) and safe_pickle.find(*_full_name(value)) is value
    except (ImportError, UnsafePickleError):
        return False


def _read_class(name: Any, _: Unpacker) -> Any:
    found = safe_pickle.find(*name)
    if not isinstance(found, type):
        raise ValueError(f"{name} is no class")
    return found


def _write_object(value: Any, pack: Packer) -> Any:
    return [*_full_name(type(value)), pack(dict(vars(value)))]


def _read_object(content: Any, unpack: Unpacker) -> Any:
    module, name, attributes = content
    if name not in safe_pickle.MADE.get(module, ()):
        raise UnsafePickleError(safe_pickle.REFUSAL.format(f"{module}.{name}"))
    cls = safe_pickle.find(module, name)
    made = cls.__new__(cls)
    vars(made).update(unpack(attributes))
    return made


def _read_generator(content: Any, unpack: Unpacker) -> np.random.Generator:
    state = unpack(content)
    bits = {"PCG64": np.random.PCG64, "MT19937": np.random.MT19937}[state["bit_generator"]]()
    bits.state = state
    return np.random.Generator(bits)


# What an agent's attributes hold beside plain values.
OBJECTS = KINDS | {
    "$generator": Kind(
        lambda value: type(value) is np.random.Generator and type(value.bit_generator).__name__ in ("PCG64", "MT19937"),
        lambda value, pack: pack(value.bit_generator.state),
        _read_generator,
    ),
    "$dtype": Kind(
        lambda value: isinstance(value, np.dtype) and not value.hasobject,
        lambda value, _: value.str,
        lambda name, _: np.dtype(name),
    ),
    "$frequency": Kind(
        lambda value: _full_name(type(value)) == [ALIASES, "TrainFreq"],
        lambda value, _: [value.frequency, value.unit.value],
        lambda pair, _: safe_pickle.find(ALIASES, "TrainFreq")(
            pair[0], safe_pickle.find(ALIASES, "TrainFrequencyUnit")(pair[1])
        ),
    ),
    "$class": Kind(_is_named, lambda value, _: _full_name(value), _read_class),
    "$object": Kind(_is_made, _write_object, _read_object),
}
