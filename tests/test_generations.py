"""Checkpoints on disk: whatever fails while one is written, the one before is there; whatever is damaged is found."""

import random
import zipfile
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch as th

from sb3_rlx2 import RLx2TD3, files, saved_objects
from sb3_rlx2.checkpoint import generations
from sb3_rlx2.checkpoint.archive import check_agent
from sb3_rlx2.checkpoint.transitions import DamagedError, Transitions, check_file, checksum_of, ring
from sb3_rlx2.packing import NotPlainError, pack, unpack
from tests.faults import ERRORS, failing
from tests.power import Disk, followed, restore
from tests.saved import SIZE, Two, files_of, fill, make_buffer, put, read, same


@pytest.fixture
def two(tmp_path):
    return Two(tmp_path)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("error", ERRORS)
def test_a_write_that_fails_leaves_the_one_before(error, once, two):
    places, survived = two.fail_each(error, once)
    assert survived < places > 10


def test_a_kill_at_any_moment_leaves_the_one_before(two):
    places, reached = two.kill_at_each()
    assert places > 10
    assert reached == {20, 30}


def test_a_power_failure_at_any_moment_leaves_a_whole_one(two):
    assert two.power_fails() > 50


def test_a_power_failure_would_be_noticed(two, monkeypatch):
    """Without what waits for the disk, not all that it may hold is whole."""
    monkeypatch.setattr(files, "_sync", lambda path: None)
    with pytest.raises((AssertionError, DamagedError)):
        two.power_fails()


def test_the_first_one_is_on_the_disk_when_its_write_returns(tmp_path):
    place, buffer = tmp_path / "run", make_buffer()
    place.mkdir()
    fill(buffer, 10, seed=1)
    with followed(Disk(place)) as disk:
        put(place / "logs/checkpoints", Transitions(place / "logs/checkpoints/rows"), buffer, 10, 10)
    found = {True: set(), False: set()}
    for is_behind, states in ((False, disk.seen.values()), (True, disk.states())):
        for number, state in enumerate(states):
            folder = tmp_path / f"{is_behind}{number}"
            restore(state, folder)
            newest = generations.newest(folder / "logs/checkpoints")
            found[is_behind].add(newest and read(newest, newest.path.parent)[0])
    assert found == {False: {None, 10}, True: {10}}


def test_every_flipped_bit_is_found(two):
    draw = random.Random(0)
    for _ in range(1_200):
        path = draw.choice(files_of(two.folder))
        whole = path.read_bytes()
        content = bytearray(whole)
        at = draw.randrange(len(content))
        content[at] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        step = generations.NAME.fullmatch(path.parent.name)
        assert two.damage_is_found() or (step is not None and step["step"] == "10"), (path, at)
        path.write_bytes(whole)


@pytest.mark.parametrize("length", [0, 1, 0.5, -1])
def test_what_is_cut_or_missing_is_found(length, two):
    for path in files_of(two.folder / "000002_step_20") + files_of(two.folder / "rows"):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(length * len(whole)) if isinstance(length, float) else length])
        assert two.damage_is_found(), path
        path.unlink()
        assert two.damage_is_found(), path
        path.write_bytes(whole)


def test_files_of_two_generations_do_not_mix(two):
    folder = two.folder
    for name in ("state.json", "arrays.npz", "manifest.json"):
        path, other = folder / "000002_step_20" / name, folder / "000001_step_10" / name
        whole = path.read_bytes()
        path.write_bytes(other.read_bytes())
        assert two.damage_is_found() or whole == other.read_bytes()
        path.write_bytes(whole)


def test_without_a_whole_one_nothing_begins_anew(two):
    folder = two.folder
    for path in folder.glob("*/manifest.json"):
        path.unlink()
    with (
        pytest.warns(UserWarning, match=r"000001_step_10 is left out: .*manifest.json"),
        pytest.warns(UserWarning, match=r"000002_step_20 is left out: .*manifest.json"),
        pytest.raises(DamagedError, match=r"no checkpoint in .* is whole; delete the folder to begin anew"),
    ):
        generations.newest(folder)


def test_a_newer_format_is_refused(two, monkeypatch):
    monkeypatch.setattr(generations, "FORMAT", 5)
    two.put()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="000003_step_30 has format 5; this version reads formats 1 to 4"):
        generations.newest(two.folder)


def test_an_archive_that_would_fill_memory_is_damaged(two, monkeypatch):
    """Whoever writes one can write its checksum, too."""
    monkeypatch.setattr(saved_objects, "SLACK", 0)
    path = two.folder / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a0.npy", bytes(1_000_000))
    with pytest.raises(DamagedError, match=r"bomb.npz is damaged: it unpacks from [\d,]+ to 1,000,000 bytes"):
        check_file(path, path.stat().st_size, checksum_of(path))
    assert generations.newest(two.folder).step == 20


def test_two_and_the_best_are_kept(tmp_path):
    for step, best in ((1, -1.0), (2, 5.0), (3, 5.0), (4, 5.0), (5, 5.0)):
        generations.write(tmp_path, step, {}, [], {"best": best})
        generations.keep(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000002_step_2", "000004_step_4", "000005_step_5"]


def test_a_checkpoint_writes_the_new_rows_only(tmp_path):
    buffer, rows, total = make_buffer(), Transitions(tmp_path), 0
    for seed in range(12):
        fill(buffer, 7, seed)
        total += 7
        segments = rows.write_new(buffer, 7)
        newest = segments[-1]
        assert (newest.first, newest.last) == (max(total - 8, 0), total)
        assert sum(each.last - each.first for each in segments) <= SIZE + 7 + len(segments)
        loaded = make_buffer()
        Transitions(tmp_path).read(loaded, segments, total)
        assert same(ring(loaded), ring(buffer))


def test_another_buffer_is_written_whole(tmp_path):
    rows = Transitions(tmp_path)
    for seed, length in enumerate((17, 5, SIZE + 3)):
        buffer = make_buffer()
        fill(buffer, length, seed)
        segments = rows.write_new(buffer, 0)
        loaded = make_buffer()
        Transitions(tmp_path).read(loaded, segments, rows.total)
        live = (buffer.pos - 1 - np.arange(min(length, SIZE))) % SIZE
        assert same({name: array[live] for name, array in ring(loaded).items()}, {n: a[live] for n, a in ring(buffer).items()})


VALUES = [
    *(None, True, 3, 2**100, -0.1, float("inf"), "text", b"bytes", np.float32(0.1), np.int64(7), np.bool_(True)),
    *(
        [1, [2.5, "a"]],
        (1, (2, [])),
        {1, 2},
        deque([1, 2], maxlen=3),
        OrderedDict(b=1, a=2),
        {"$array": 1},
        {3: "x", "y": (1,)},
    ),
    *(list(range(500)), [0.1 * n for n in range(500)], tuple(range(100)), [1.0] * 70 + [1], [2**90] * 70),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_were(value):
    arrays = {}
    again = unpack(pack(value, arrays), arrays)
    assert again == value
    assert repr(again) == repr(value)


def test_arrays_come_back_as_they_were():
    for value in (np.zeros((0, 3)), np.array(1.5), np.arange(6).reshape(2, 3).T, np.array(["a", "bc"]), np.array([True])):
        arrays = {}
        again = unpack(pack(value, arrays), arrays)
        assert again.dtype == value.dtype
        np.testing.assert_array_equal(again, value)
    tensor = unpack(pack(th.arange(3, dtype=th.uint8), arrays), arrays)
    assert th.equal(tensor, th.arange(3, dtype=th.uint8))


@pytest.mark.parametrize("value", [object(), print, np.array([object()]), [object()], th.zeros(1, dtype=th.bfloat16)])
def test_other_values_are_refused(value):
    with pytest.raises(NotPlainError, match="cannot be saved"):
        pack(value, {})


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_save_that_fails_leaves_the_agent_before(error, once, tmp_path):
    model = RLx2TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [8]})
    path, n, failed = tmp_path / "agents" / "agent.zip", 0, 0
    model.save(path)
    before = path.read_bytes()

    def fail():
        raise ERRORS[error]

    while True:
        n += 1
        with failing(tmp_path / "agents", fail, n, once) as faults:
            try:
                model.save(path)
            except OSError:
                failed += 1
                assert path.read_bytes() == before
        check_agent(path)
        before = path.read_bytes()
        if faults.count < n:
            break
    assert failed >= 3
