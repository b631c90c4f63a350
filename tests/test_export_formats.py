"""What is written acts as the agent does, whoever reads it; and files appear whole or not at all."""

import os
import sys

import numpy as np
import pytest
import torch as th

from sb3_rlx2 import RLx2TD3
from sb3_rlx2.export import FORMATS, describe, onnx, read, safetensors, write
from sb3_rlx2.export import bin as rlx2_file
from sb3_rlx2.export.description import observations
from sb3_rlx2.export.evaluate import act_of_agent
from tests.compilers import needs
from tests.exported import agent, by_hand, described, expected, exported, some, statistics

F = np.float32
TYPES = ["fp32", "fp16", "int8"]
NAMES = ["RLx2TD3", "PPO", "PPO, discrete"]


def test_fp32_within_2e_6_of_predict_on_100_000_observations():
    """Those of a training's own replay buffer, of all reaches, extremes, and beyond the clip."""
    model = RLx2TD3(
        "MlpPolicy",
        "Pendulum-v1",
        policy_kwargs={"net_arch": [32, 32]},
        buffer_size=2000,
        learning_starts=200,
        buffer_min_size=100,
        actor_sparsity=0.8,
        critic_sparsity=0.5,
        seed=1,
        device="cpu",
    )
    vecnormalize = statistics(model.get_env().envs[0], mean=(-0.3, 0.4), variance=(0.1, 4.0))
    model.learn(1500)
    own = model.replay_buffer.observations[: model.replay_buffer.pos].reshape(-1, 3)
    description = describe(model, vecnormalize)
    edges = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-8, 0, 8)], F)
    seen = np.concatenate([own, edges, 1e3 * edges, observations(description, 100_000, np.random.default_rng(5))])
    difference = np.abs(description.policy()(seen) - act_of_agent(model, vecnormalize)(seen))
    assert len(own) > 1000
    assert difference.max() <= 2e-6 * 4  # actions of [-2, 2]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_rlx2_file(name, dtype):
    policy, seen = exported(name, dtype), some(name)
    data = rlx2_file.pack(policy)
    again = read(data)
    np.testing.assert_array_equal(again(seen), policy(seen))
    assert again.self_test() == 0
    assert again.about == policy.about
    assert rlx2_file.pack(again) == data
    assert len(data) % 4 == 0


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_safetensors(name, dtype):
    needs("safetensors")
    policy, seen = exported(name, dtype), some(name)
    data = safetensors.pack(policy)
    again = safetensors.load(data)
    np.testing.assert_array_equal(again(seen), policy(seen))
    assert again.about == policy.about
    assert safetensors.pack(again) == data
    module = safetensors.load(data, "torch")
    with th.no_grad():
        actions = module(th.from_numpy(seen)).numpy().reshape(len(seen), -1)
    np.testing.assert_allclose(actions, policy(seen), rtol=0, atol=4e-6)
    with pytest.raises(ValueError, match="framework='jax' is unknown"):
        safetensors.load(data, "jax")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_onnx(name, dtype):
    onnxruntime = needs("onnxruntime")
    package = needs("onnx")
    policy, seen = exported(name, dtype), some(name)
    data = onnx.pack(policy)
    np.testing.assert_allclose(onnx.act_of_model(data)(seen), policy(seen), rtol=0, atol=4e-6)
    if dtype == "fp32":
        np.testing.assert_allclose(onnx.act_of_model(data)(seen), expected(name, seen), rtol=0, atol=8e-6)
    session = onnxruntime.InferenceSession(data)
    (result,) = session.run(["action"], {"observation": seen[:5]})
    assert result.shape == ((5,) if policy.output == "argmax" else (5, policy.actions))
    assert result.dtype == (np.int64 if policy.output == "argmax" else F)
    metadata = {entry.key: entry.value for entry in package.load_from_string(data).metadata_props}
    assert metadata["algorithm"] == type(agent(name)[0]).__name__
    if policy.output != "argmax":
        seen = np.where(np.arange(seen.shape[1]) == 1, F(np.nan), seen[:3])
        assert np.isnan(onnx.act_of_model(data)(seen)).all()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_played_as_written(name):
    if name in ("onnx", "safetensors"):
        needs(name)
    policy, seen = exported("RLx2TD3", "fp16"), some("RLx2TD3", 200)
    for act in FORMATS[name].players(policy, "policy").values():
        np.testing.assert_allclose(act(seen), policy(seen), rtol=0, atol=4e-6)
        np.testing.assert_allclose(act(seen[0]), policy(seen[0]), rtol=0, atol=4e-6)


@pytest.mark.parametrize(("name", "files"), [("c", {"walk.c", "walk.h"}), ("bin", {"walk.rlx2", *rlx2_file.readers()})])
def test_write(name, files, tmp_path):
    path = tmp_path / f"walk{FORMATS[name].suffix}"
    assert write(by_hand(), path, name)[0] == path
    assert {file.name for file in tmp_path.iterdir()} == files
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    write(by_hand(), tmp_path / "policy.c")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write(exported("RLx2TD3"), tmp_path / "policy.c")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_wrong_places(tmp_path):
    with pytest.raises(ValueError, match=r"output=.*policy\.txt must end with \.c"):
        write(by_hand(), tmp_path / "policy.txt")
    with pytest.raises(ValueError, match=r"the folder .* must exist"):
        write(by_hand(), tmp_path / "nowhere/policy.c")
    with pytest.raises(ValueError, match="format='tflite' is unknown"):
        write(by_hand(), tmp_path / "policy.c", "tflite")


@pytest.mark.parametrize(("format", "package"), [("onnx", "onnx"), ("safetensors", "safetensors")])
def test_missing_package_is_named(format, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=rf"format='{format}' needs the package {package}: pip install 'sb3_rlx2\[{package}\]'"
    ):
        write(by_hand(), tmp_path / f"policy{FORMATS[format].suffix}", format)
    assert not list(tmp_path.iterdir())


def test_dense_is_honestly_dense():
    policy = described("SAC").policy()
    assert all(layer.columns is None for layer in policy.layers)
    assert policy.about["links"] == policy.about["weights_of_dense"] == 11 * 64 + 64 * 48 + 48 * 3
