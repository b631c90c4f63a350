import pickle
from pathlib import Path

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rlx2 import RLx2Callback, RLx2ReplayBuffer, RLx2TD3, SparseSACPolicy
from sb3_rlx2.buffers.samples import Batch
from tests import reference
from tests.envs import TinyEnv

GOLDEN = np.load(Path(__file__).parent / "golden" / "n_step_targets.npz")
BOX = spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)
ENDS = {"go": (False, False), "terminated": (True, False), "truncated": (False, True)}


def make_buffer(size, cls=RLx2ReplayBuffer, n_envs=1, dtype=np.float32, **kwargs):
    # Floats are gathered by a kernel, other observations by numpy.
    observations = BOX if dtype is np.float32 else spaces.Box(0, 10_000, (1,), dtype)
    return cls(size, observations, ACTIONS, device="cpu", n_envs=n_envs, **kwargs)


def make_row(number, ends):
    """One transition per environment; the observation tells row and environment."""
    rng = np.random.default_rng(number)
    return [
        {
            "obs": 10.0 * number + env,
            "next_obs": 10.0 * number + env + 5,
            "action": rng.uniform(-1, 1),
            "reward": rng.normal(),
            "terminated": ENDS[end][0],
            "truncated": ENDS[end][1],
        }
        for env, end in enumerate(ends)
    ]


def add(buffer, row):
    def column(name):
        return np.array([[transition[name]] for transition in row], dtype=np.float32)

    done = np.array([transition["terminated"] or transition["truncated"] for transition in row])
    infos = [{"TimeLimit.truncated": transition["truncated"]} for transition in row]
    buffer.add(column("obs"), column("next_obs"), column("action"), column("reward")[:, 0], done, infos)


def fill(buffer, ends, first=0):
    rows = [make_row(first + number, [end] * buffer.n_envs) for number, end in enumerate(ends)]
    for row in rows:
        add(buffer, row)
    return rows


def assert_samples(samples, rows, n, gamma, entropy=None):
    """:param rows: live rows, oldest first"""
    oldest = round(rows[0][0]["obs"] / 10)
    observations, first = np.unique(samples.observations[:, 0].numpy(), return_index=True)
    for i, obs in zip(first, observations.tolist(), strict=True):
        start, env = round(obs // 10) - oldest, round(obs % 10)
        assert 0 <= start < len(rows)
        transitions = [row[env] for row in rows]
        total, discount, last = reference.n_step(transitions, start, n, gamma, entropy)
        assert samples.rewards[i].item() == pytest.approx(total, abs=1e-4)
        assert samples.discounts[i].item() == pytest.approx(discount, abs=1e-6)
        assert samples.next_observations[i].item() == transitions[last]["next_obs"]
        assert samples.dones[i].item() == transitions[last]["terminated"]
        assert samples.actions[i].item() == pytest.approx(transitions[start]["action"], abs=1e-6)


def assert_equal_samples(ours, theirs):
    for name in ("actions", "dones"):
        assert th.equal(getattr(ours, name), getattr(theirs, name)), name
    for name in ("observations", "next_observations", "rewards"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [400, 1000, 150])  # just full, half empty, wrapped
@pytest.mark.parametrize("gamma", [0.99, 0.9])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
def test_golden_targets(n_steps, gamma, size):
    buffer = make_buffer(size, n_steps=n_steps, gamma=gamma)
    names = ("obs", "next_obs", "action", "reward", "terminated", "truncated")
    for values in zip(*(GOLDEN[name] for name in names), strict=True):
        add(buffer, [dict(zip(names, values, strict=True))])
    expected = GOLDEN[f"target_n{n_steps}_gamma{gamma}"]
    numbers = np.arange(400 - min(size, 400), len(expected))
    samples = buffer._get_samples(numbers % size)
    np.testing.assert_array_equal(samples.observations[:, 0], GOLDEN["obs"][numbers])
    targets = samples.rewards + (1 - samples.dones) * samples.discounts * samples.next_observations
    np.testing.assert_allclose(targets[:, 0], expected[numbers], atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_same_samples_as_sb3_n_step(n_steps, n_envs, normalize):
    env = make_normalizer(n_envs) if normalize else None
    ours = make_buffer(90, n_envs=n_envs, n_steps=n_steps, gamma=0.9)
    theirs = make_buffer(90, NStepReplayBuffer, n_envs, n_steps=n_steps, gamma=0.9)
    ends = ["go", "go", "truncated", "go", "go", "go", "terminated", "go"] * 3
    for buffer in (ours, theirs):
        fill(buffer, ends)
    samples = []
    for buffer in (ours, theirs):
        np.random.seed(3)  # noqa: NPY002 as SB3 draws
        samples.append(buffer.sample(200, env))
    assert_equal_samples(*samples)
    np.testing.assert_allclose(samples[0].discounts, samples[1].discounts, atol=1e-7)
    # A full ring is drawn from in another order, but its windows are the same.
    for buffer in (ours, theirs):
        fill(buffer, ends * 4, first=24)
        np.random.seed(3)  # noqa: NPY002 as SB3 draws
        samples.append(buffer._get_samples(np.arange(buffer.buffer_size), env))
    assert ours.live == ours.buffer_size
    assert_equal_samples(*samples[2:])


@pytest.mark.parametrize(
    "observations", [spaces.MultiBinary(6), spaces.Box(0, 1, (2, 3), bool), spaces.Box(0, 255, (6,), np.uint8)]
)
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_discrete_actions_are_sampled_as_by_sb3(n_steps, n_envs, observations):
    buffers = [
        cls(200, observations, spaces.Discrete(4), device="cpu", n_envs=n_envs, n_steps=n_steps, gamma=0.9)
        for cls in (RLx2ReplayBuffer, NStepReplayBuffer)
    ]
    samples = []
    for buffer in buffers:
        rng = np.random.default_rng(0)
        for _ in range(40):
            obs, next_obs = rng.integers(0, 2, (2, n_envs, *observations.shape))
            done, actions = rng.random(n_envs) < 0.2, rng.integers(0, 4, n_envs)
            buffer.add(obs, next_obs, actions, rng.normal(size=n_envs), done, [{}] * n_envs)
        np.random.seed(3)  # noqa: NPY002 as SB3 draws
        samples.append(buffer.sample(200))
    assert_equal_samples(*samples)
    assert samples[0].actions.dtype == th.int64
    assert samples[0].observations.dtype == samples[1].observations.dtype


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_one_step_samples_equal_sb3_replay_buffer(n_envs, normalize):
    env = make_normalizer(n_envs) if normalize else None
    samples = []
    for cls, kwargs in ((RLx2ReplayBuffer, {"n_steps": 1, "gamma": 0.9}), (ReplayBuffer, {})):
        buffer = make_buffer(120, cls, n_envs, **kwargs)
        fill(buffer, ["go", "truncated", "terminated", "go"] * 6)
        np.random.seed(7)  # noqa: NPY002 as SB3 draws
        samples.append(buffer.sample(100, env))
    assert_equal_samples(*samples)
    assert (samples[0].discounts == np.float32(0.9)).all()


@st.composite
def histories(draw):
    n_envs = draw(st.integers(1, 3))
    row = st.lists(st.sampled_from(["go", "go", "go", *ENDS]), min_size=n_envs, max_size=n_envs)
    parts = st.tuples(st.lists(row, min_size=1, max_size=12), st.sampled_from(["halve", "halve", "cut"]))
    return n_envs, [operation for rows, after in draw(st.lists(parts, min_size=1, max_size=5)) for operation in (*rows, after)]


@settings(max_examples=100)
@given(
    history=histories(),
    capacity=st.integers(2, 14),
    spare=st.integers(0, 2),
    min_size=st.sampled_from([0, 0, 3, 10]),
    n_steps=st.integers(1, 5),
    soft=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64, np.int64]),
)
def test_against_reference(history, capacity, spare, min_size, n_steps, soft, dtype):
    n_envs, operations = history
    size = capacity * n_envs + min(spare, n_envs - 1)  # SB3 rounds down to whole rows
    min_size = min(min_size, size)
    buffer = make_buffer(size, n_envs=n_envs, dtype=dtype, n_steps=n_steps, gamma=0.9, buffer_min_size=min_size)
    if soft:
        buffer.uses_entropy_bonus, buffer.entropy_bonus = True, th.sin
    added = []
    for operation in operations:
        if operation == "halve":
            before = buffer.size()
            assert buffer.shrink(0.5) == (before - buffer.size()) * n_envs
        elif operation == "cut":
            cut = np.arange(n_envs) != 1
            buffer.cut_last(cut)
            for transition in np.array(added[-1])[cut]:
                transition["truncated"] |= not transition["terminated"]
        else:
            added.append(make_row(len(added), operation))
            add(buffer, added[-1])
    names = [operation if isinstance(operation, str) else "add" for operation in operations]
    live = reference.live_window(names, capacity, min_rows=-(-min_size // n_envs))
    assert buffer.size() == buffer.live == len(live) <= capacity
    assert buffer.start == live[0] % capacity
    rows = [added[number] for number in live]

    np.random.seed(0)  # noqa: NPY002 as SB3 draws
    samples = buffer.sample(50 * len(live) * n_envs)
    assert_samples(samples, rows, n_steps, 0.9, np.sin if soft else None)
    assert set(samples.observations[:, 0].tolist()) == {transition["obs"] for row in rows for transition in row}

    flat = [transition["obs"] for row in rows for transition in row]
    for count in (1, 4, 1000):
        observations, actions = buffer.oldest(count)
        assert observations[:, 0].tolist() == flat[:count]
        assert actions.shape == (min(count, len(flat)), 1)


def test_window_by_hand():
    buffer = make_buffer(4, n_steps=3, gamma=0.5)
    for number, (reward, end) in enumerate(
        [(1, "go"), (2, "go"), (4, "terminated"), (8, "go"), (16, "truncated"), (32, "go")]
    ):
        add(buffer, [make_row(number, [end])[0] | {"reward": reward}])
    # The ring holds rows 4, 5, 2, 3; row 6, which would follow row 5, is row 2's old place.
    samples = buffer._get_samples(np.array([2, 3, 0, 1]))
    assert samples.rewards[:, 0].tolist() == [4, 16, 16, 32]
    assert samples.discounts[:, 0].tolist() == [0.5, 0.25, 0.5, 0.5]
    assert samples.dones[:, 0].tolist() == [1, 0, 0, 0]
    assert samples.next_observations[:, 0].tolist() == [25, 45, 45, 55]


@pytest.mark.parametrize(
    ("rows", "n_envs", "min_size", "expected"),  # live rows after each shrink
    [
        (100, 1, 0, [90, 81, 73]),
        (100, 1, 85, [90, 85, 85]),
        (100, 1, 100, [100, 100, 100]),
        (9, 1, 0, [9, 9, 9]),
        (50, 4, 170, [45, 43, 43]),  # 43 rows hold 172 transitions, 42 would hold 168
        (50, 4, 200, [50, 50, 50]),
    ],
)
def test_shrink(rows, n_envs, min_size, expected):
    buffer = make_buffer(rows * n_envs, n_envs=n_envs, n_steps=1, buffer_min_size=min_size)
    fill(buffer, ["go"] * rows)
    before = rows
    for live in expected:
        assert buffer.shrink() == (before - live) * n_envs
        assert buffer.size() == before - (before - live)
        oldest, _ = buffer.oldest(1)
        assert oldest.item() == 10 * (rows - live)
        before = live


def test_shrunk_buffer_refills_to_its_capacity():
    buffer = make_buffer(20, n_steps=1, buffer_min_size=5)
    rows = fill(buffer, ["go"] * 27)
    buffer.shrink(0.5)
    assert (buffer.size(), buffer.start) == (10, 17)
    assert_samples(buffer.sample(200), rows[-10:], 1, 0.99)
    rows += fill(buffer, ["go"] * 6, first=27)
    assert (buffer.size(), buffer.start) == (16, 17)
    assert_samples(buffer.sample(200), rows[-16:], 1, 0.99)
    rows += fill(buffer, ["go"] * 9, first=33)
    assert (buffer.size(), buffer.start) == (20, 2)
    assert_samples(buffer.sample(200), rows[-20:], 1, 0.99)


def test_shrink_moves_nothing_in_memory():
    buffer = make_buffer(40, buffer_min_size=0)
    fill(buffer, ["go"] * 40)
    arrays = {name: (value, value.copy()) for name, value in vars(buffer).items() if isinstance(value, np.ndarray)}
    buffer.shrink()
    for name, (array, copy) in arrays.items():
        assert getattr(buffer, name) is array
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, np.nan])
def test_shrink_refuses_other_fractions(fraction):
    with pytest.raises(ValueError, match=r"fraction=.* must be a number in \[0, 1\]"):
        make_buffer(4).shrink(fraction)


def test_policy_actions_lie_beside_the_executed_ones():
    buffer = make_buffer(8, n_envs=2)
    for number in range(4):
        if number % 2 == 1:
            buffer.set_policy_action(np.array([[0.25], [-0.25]]))
        add(buffer, make_row(number, ["go", "go"]))
    executed = np.array([[transition["action"] for transition in make_row(number, ["go", "go"])] for number in range(4)])
    np.testing.assert_allclose(buffer.actions[..., 0], executed, atol=1e-6)
    np.testing.assert_allclose(buffer.policy_actions[[0, 2], :, 0], executed[[0, 2]], atol=1e-6)
    assert buffer.policy_actions[[1, 3], :, 0].tolist() == [[0.25, -0.25]] * 2
    _, actions = buffer.oldest(3)
    np.testing.assert_allclose(actions[:, 0], [*executed[0], 0.25], atol=1e-6)
    samples = buffer._get_samples(np.array([1, 3]))
    assert (samples.actions.abs() != 0.25).all()  # training is on what was executed


@pytest.mark.parametrize("end", ENDS)
def test_cut_last(end):
    buffer = make_buffer(6, n_steps=3, gamma=0.5)
    rows = fill(buffer, ["go", end])
    buffer.cut_last(np.array([True]))
    rows += fill(buffer, ["go", "go"], first=2)
    rows[1][0]["truncated"] = end != "terminated"
    assert_samples(buffer._get_samples(np.arange(4)), rows, 3, 0.5)


def test_cut_last_of_an_empty_buffer():
    buffer = make_buffer(6)
    buffer.cut_last(np.array([True]))
    assert not buffer.timeouts.any()


def test_a_cut_leaves_with_its_row():
    # Without timeout handling SB3 never writes `timeouts`, so a mark must not outlive the transition that it was put on.
    buffer = make_buffer(2, n_steps=1, handle_timeout_termination=False)
    fill(buffer, ["go"])
    buffer.cut_last(np.array([True]))
    fill(buffer, ["go", "terminated"], first=1)
    assert buffer._get_samples(np.array([0])).dones.item() == 1


def test_reset():
    buffer = make_buffer(6, n_steps=2)
    fill(buffer, ["go", "terminated"] * 5)
    buffer.set_policy_action(np.array([[0.5]]))
    buffer.reset()
    assert (buffer.size(), buffer.start, buffer.pos, buffer.full) == (0, 0, 0, False)
    rows = fill(buffer, ["go"] * 3, first=10)
    assert_samples(buffer.sample(50), rows, 2, 0.99)
    np.testing.assert_array_equal(buffer.policy_actions[:3], buffer.actions[:3])


def make_normalizer(n_envs=1, cls=VecNormalize, **kwargs):
    """Statistics in which some rewards and observations are clipped."""
    kwargs = {"clip_reward": 0.8, "clip_obs": 3.0, "gamma": 0.9} | kwargs
    env = cls(DummyVecEnv([lambda: TinyEnv(obs_dim=2)] * n_envs), **kwargs)
    env.observation_space = BOX
    if env.norm_obs:
        env.obs_rms.mean, env.obs_rms.var = np.array([20.0]), np.array([400.0])
    env.ret_rms.var = np.array(2.0)
    return env


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_vec_normalize_is_applied_to_each_step(soft, dtype):
    env = make_normalizer()
    buffer = make_buffer(10, dtype=dtype, n_steps=3, gamma=0.9)
    rows = fill(buffer, ["go", "go", "truncated", "go", "go", "go", "terminated", "go"])
    if soft:
        buffer.uses_entropy_bonus, buffer.entropy_bonus = True, th.sin

    def scale(obs):
        return np.clip((obs - 20) / np.sqrt(400 + 1e-8), -3, 3)

    normalized = [
        row[0]
        | {
            "next_obs": scale(row[0]["next_obs"]),
            # Clipping each reward is not clipping their sum.
            "reward": np.clip(row[0]["reward"] / np.sqrt(2 + 1e-8), -0.8, 0.8),
        }
        for row in rows
    ]
    assert any(abs(transition["reward"]) == 0.8 for transition in normalized)
    samples = buffer._get_samples(np.arange(8), env=env)
    np.testing.assert_allclose(samples.observations[:, 0], [scale(row[0]["obs"]) for row in rows], atol=1e-6)
    for start in range(8):
        total, discount, last = reference.n_step(normalized, start, 3, 0.9, np.sin if soft else None)
        assert samples.rewards[start].item() == pytest.approx(total, abs=1e-5)
        assert samples.discounts[start].item() == pytest.approx(discount, abs=1e-6)
        assert samples.next_observations[start].item() == pytest.approx(normalized[last]["next_obs"], abs=1e-6)
    np.testing.assert_array_equal(buffer.oldest(3)[0][:, 0], [0, 10, 20])  # as stored


NORMALIZERS = [
    {},
    {"norm_obs": False},
    {"norm_reward": False},
    {"norm_obs": False, "norm_reward": False},
    {"clip_obs": 0.4, "clip_reward": 0.1, "epsilon": 0.5},
]


def make_random_buffer(dtype, n_envs, **kwargs):
    """Observations of two axes; float64 ones far from zero, which float32 would have to round before they are normalised."""
    space = spaces.Box(-np.inf, np.inf, (2, 3), dtype)
    buffer = RLx2ReplayBuffer(40 * n_envs, space, ACTIONS, device="cpu", n_envs=n_envs, gamma=0.9, **kwargs)
    rng = np.random.default_rng(0)
    offset = 1e6 if dtype is np.float64 else 0.0
    for _ in range(55):
        obs, next_obs = offset + rng.normal(size=(2, n_envs, 2, 3))
        done, truncated = rng.random((2, n_envs)) < 0.2
        infos = [{"TimeLimit.truncated": each} for each in done & truncated]
        buffer.add(obs, next_obs, rng.uniform(-1, 1, (n_envs, 1)), rng.normal(size=n_envs), done, infos)
    return buffer, offset


@pytest.mark.parametrize("given", NORMALIZERS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_normalise_as_sb3_does(dtype, n_envs, n_steps, soft, given, monkeypatch):
    buffer, offset = make_random_buffer(dtype, n_envs, n_steps=n_steps)
    if soft:
        buffer.uses_entropy_bonus, buffer.entropy_bonus = True, lambda obs: th.sin(obs.float()).sum((1, 2))
    env = make_normalizer(n_envs, **given)
    rows, rng = np.arange(40), np.random.default_rng(1)
    assert buffer.why_no_kernel(env) is None
    for _ in range(2):  # statistics are those of the moment
        if env.norm_obs:
            env.obs_rms.mean, env.obs_rms.var = offset + rng.normal(size=(2, 3)), rng.random((2, 3))
        env.ret_rms.var = rng.random()
        samples, states = [], []
        for by_kernel in (True, False):
            with monkeypatch.context() as patch:
                if not by_kernel:
                    patch.setattr(buffer, "why_no_kernel", lambda _: "numpy is asked for")
                np.random.seed(0)  # noqa: NPY002 as SB3 draws
                samples.append(buffer._get_samples(rows, env))
                states.append(np.random.get_state()[1])  # noqa: NPY002
        for ours, theirs in zip(*samples, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("actions", [spaces.Discrete(4), spaces.Box(-1, 1, (2,))])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_tiles_hold_what_is_sampled(dtype, n_envs, actions, normalize):
    high = 1 if dtype is bool else 200
    space = spaces.Box(0, high, (2, 3), dtype)
    buffer = RLx2ReplayBuffer(50 * n_envs, space, actions, device="cpu", n_envs=n_envs, n_steps=3, gamma=0.9)
    rng = np.random.default_rng(0)
    for _ in range(60):
        obs, next_obs = rng.integers(0, high + 1, (2, n_envs, 2, 3)).astype(dtype)
        action = np.stack([actions.sample() for _ in range(n_envs)])
        buffer.add(obs, next_obs, action, rng.normal(size=n_envs), rng.random(n_envs) < 0.2, [{}] * n_envs)
    env = make_normalizer(n_envs) if normalize else None
    if normalize:
        env.obs_rms.mean, env.obs_rms.var = rng.normal(size=(2, 3)), 1 + rng.random((2, 3))
    batch = Batch(*(np.zeros((2, 6 + buffer.action_dim, 64), np.float32) for _ in range(2)), 100)
    assert buffer.why_no_kernel(env) is None
    np.random.seed(0)  # noqa: NPY002 as SB3 draws
    buffer.sample_into(batch, env)
    np.random.seed(0)  # noqa: NPY002
    samples = buffer.sample(100, env)
    inputs, next_inputs = (each.transpose(0, 2, 1).reshape(128, -1)[:100] for each in (batch.inputs, batch.next_inputs))
    for ours, theirs in (
        (inputs[:, :6], samples.observations),
        (inputs[:, 6:], samples.actions),
        (next_inputs[:, :6], samples.next_observations),
        (batch.returns, samples.rewards),
        (batch.terminated, samples.dones),
        (batch.discounts, samples.discounts),
    ):
        np.testing.assert_allclose(ours.reshape(100, -1), theirs.reshape(100, -1), rtol=1e-6, atol=1e-6)


def test_a_dtype_that_no_kernel_reads():
    buffer = make_buffer(10, dtype=np.float16)
    assert buffer.why_no_kernel() == "observations are stored as float16, which no kernel reads"


class Mirror(VecNormalize):
    """What a user may write."""

    def normalize_obs(self, obs):
        return -super().normalize_obs(obs)


def test_a_normaliser_with_ideas_of_its_own_is_asked():
    buffer = make_buffer(10, n_steps=1)
    fill(buffer, ["go"] * 10)
    plain = buffer._get_samples(np.arange(10), make_normalizer())
    mirror = make_normalizer(cls=Mirror)
    assert th.equal(buffer._get_samples(np.arange(10), mirror).observations, -plain.observations)
    assert "Mirror" in buffer.why_no_kernel(mirror)
    patched = make_normalizer()
    assert buffer.why_no_kernel(patched) is None
    patched.normalize_reward = lambda rewards: 0 * rewards
    assert "normalize_reward" in buffer.why_no_kernel(patched)
    assert not buffer._get_samples(np.arange(10), patched).rewards.any()


def test_statistics_of_other_observations_are_refused():
    """Not read behind their end."""
    buffer, _ = make_random_buffer(np.float32, 1)
    env = make_normalizer()
    env.obs_rms.mean = np.zeros(7)
    with pytest.raises(ValueError, match="broadcast"):
        buffer.sample(5, env)


def test_soft_return_by_hand():
    buffer = make_buffer(10, n_steps=3, gamma=0.5)
    for number, end in enumerate(["go", "go", "go", "terminated", "go"]):
        add(buffer, [make_row(number, [end])[0] | {"reward": 0.0}])
    buffer.uses_entropy_bonus = True
    buffer.entropy_bonus = lambda next_obs: next_obs[:, 0]  # [batch], as log-probabilities are
    # The bootstrap state's entropy is SAC's to add; behind a termination there is none.
    expected = [0.5 * 5 + 0.25 * 15, 0.5 * 15 + 0.25 * 25, 0.5 * 25, 0, 0]
    assert buffer._get_samples(np.arange(5)).rewards[:, 0].tolist() == expected
    buffer.n_steps = 1
    assert buffer._get_samples(np.arange(5)).rewards[:, 0].tolist() == [0] * 5


def test_soft_return_needs_a_lent_function():
    buffer = make_buffer(10, n_steps=3)
    fill(buffer, ["go"] * 4)
    buffer.uses_entropy_bonus = True
    with pytest.raises(RuntimeError, match="n_steps=3 with maximum entropy needs the entropy"):
        buffer.sample(4)
    buffer.n_steps = 1
    buffer.sample(4)


def make_sac(**kwargs):
    return SAC(
        SparseSACPolicy,
        TinyEnv(),
        learning_starts=20,
        batch_size=8,
        buffer_size=60,
        replay_buffer_class=RLx2ReplayBuffer,
        replay_buffer_kwargs={"n_steps": 3, "buffer_min_size": 10},
        policy_kwargs={"net_arch": [16], "actor_sparsity": 0.5, "critic_sparsity": 0.5, "backend": "masked"},
        device="cpu",
        seed=0,
        **kwargs,
    )


def make_callback(**kwargs):
    return RLx2Callback(
        **{
            "n_steps_delay": 0.0,
            "policy_distance_threshold": 0.0,
            "buffer_check_interval": 10,
            "update_interval": 10,
            **kwargs,
        }
    )


def test_save_and_load(tmp_path):
    model = make_sac()
    model.learn(75, callback=make_callback())
    buffer = model.replay_buffer
    assert buffer.entropy_bonus is not None
    assert buffer.start != 0
    assert buffer.size() < buffer.buffer_size
    model.save_replay_buffer(tmp_path / "buffer")
    other = make_sac()
    other.load_replay_buffer(tmp_path / "buffer")
    loaded = other.replay_buffer
    assert isinstance(loaded, RLx2ReplayBuffer)
    assert loaded.entropy_bonus is None
    for name in ("live", "pos", "n_steps", "final_n_steps", "gamma", "buffer_min_size", "uses_entropy_bonus", "start"):
        assert getattr(loaded, name) == getattr(buffer, name), name
    for name in ("observations", "next_observations", "actions", "policy_actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(buffer, name))
    with pytest.raises(RuntimeError, match="nobody lends it"):
        loaded.sample(20)
    other.learn(30, callback=make_callback())
    assert loaded is other.replay_buffer
    assert loaded.entropy_bonus is not None


def test_pickle_carries_no_model_along():
    # A frozen copy that keeps the lent function would carry policy and optimizers into each saved buffer.
    model = make_sac()
    empty = len(pickle.dumps(model.replay_buffer))
    seen = []
    stop = ConvertCallback(lambda locals_, _: seen.append(len(pickle.dumps(model.replay_buffer))) or True)
    model.learn(40, callback=[make_callback(), stop])
    assert max(seen) < empty + 500
    assert pickle.loads(pickle.dumps(model.replay_buffer)).entropy_bonus is None
    assert model.replay_buffer.entropy_bonus is not None  # pickling took nothing away


@pytest.mark.parametrize("n_envs", [1, 3])
def test_buffer_of_size_1(n_envs):
    buffer = make_buffer(1, n_envs=n_envs, n_steps=3, buffer_min_size=10_000)
    assert buffer.min_size == 1
    for number in range(3):
        add(buffer, make_row(number, ["go"] * n_envs))
        assert_samples(buffer.sample(10), [make_row(number, ["go"] * n_envs)], 3, 0.99)
    assert buffer.shrink() == 0
    assert buffer.size() == 1


@pytest.mark.parametrize(
    ("size", "given", "expected"),
    [
        (1_000, {}, 1_000),
        (200_000, {}, 100_000),
        (1_000, {"buffer_min_size": 1_000}, 1_000),
        (1_000, {"buffer_min_size": 0}, 0),
    ],
)
def test_buffer_min_size(size, given, expected):
    assert make_buffer(size, **given).min_size == expected


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"buffer_min_size": 101}, "buffer_min_size=101 must be <= buffer_size=100"),
        ({"buffer_min_size": -1}, "buffer_min_size=-1 must be an integer >= 0"),
        ({"n_steps": 0}, "n_steps=0 must be an integer >= 1"),
        ({"n_steps": 1.5}, "n_steps=1.5 must be an integer >= 1"),
        ({"gamma": 1.1}, r"gamma=1.1 must be a number in \[0, 1\]"),
        ({"optimize_memory_usage": True}, "optimize_memory_usage=True must be False"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_buffer(100, **kwargs)


def test_dict_observations_are_refused():
    with pytest.raises(ValueError, match="must not be a Dict"):
        RLx2ReplayBuffer(10, spaces.Dict({"a": BOX}), ACTIONS)


def test_td3_trains_on_the_same_samples_with_either_buffer():
    """SB3's TD3 with SB3's own n-step buffer and with ours ends at the same weights."""
    models = []
    for cls in (NStepReplayBuffer, RLx2ReplayBuffer):
        model = TD3(
            "MlpPolicy",
            TinyEnv(),
            learning_starts=10,
            batch_size=8,
            buffer_size=500,
            replay_buffer_class=cls,
            replay_buffer_kwargs={"n_steps": 3, "gamma": 0.99},
            policy_kwargs={"net_arch": [16]},
            device="cpu",
            seed=1,
        )
        models.append(model.learn(60))
    for one, other in zip(*(model.policy.parameters() for model in models), strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), atol=1e-6)


def test_model_zip_does_not_hold_the_buffer(tmp_path):
    sizes = []
    for size in (100, 10_000):
        model = RLx2TD3("MlpPolicy", TinyEnv(), buffer_size=size, policy_kwargs={"net_arch": [16]}, device="cpu")
        model.save(tmp_path / str(size))
        sizes.append((tmp_path / f"{size}.zip").stat().st_size)
    assert abs(sizes[0] - sizes[1]) < 100
