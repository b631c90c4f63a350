"""KernelAdam is torch's Adam: the same numbers, the same state, the same hooks."""

from copy import deepcopy

import pytest
import torch as th

from sb3_rlx2.fast.adam import KernelAdam


def parameters():
    th.manual_seed(0)
    return [th.nn.Parameter(th.randn(1000)), th.nn.Parameter(th.randn(7))]


def step(optimizer, seed):
    th.manual_seed(seed)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = th.randn(parameter.shape)
    optimizer.step()


def pair(**kwargs):
    return KernelAdam(parameters(), fused=True, **kwargs), th.optim.Adam(parameters(), **kwargs)


def assert_same(ours, theirs):
    for a, b in zip(ours.param_groups[0]["params"], theirs.param_groups[0]["params"], strict=True):
        th.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        for name, value in theirs.state[b].items():
            th.testing.assert_close(ours.state[a][name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "kwargs", [{}, {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3}, {"amsgrad": True}, {"weight_decay": 0.1}]
)
def test_steps_equal_torchs(kwargs):
    ours, theirs = pair(**kwargs)
    for seed in range(20):
        step(ours, seed)
        step(theirs, seed)
    assert_same(ours, theirs)


def convert(optimizer, name):
    for state in optimizer.state.values():
        state[name] = state[name].double()


def test_steps_of_another_dtype_are_left_to_torch():
    """They are float64 where that has become torch's default; the kernel would misread them."""
    ours, theirs = pair()
    for optimizer in (ours, theirs):
        step(optimizer, 0)
        convert(optimizer, "step")
        step(optimizer, 1)
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_moments_of_another_dtype_are_refused_by_torchs_fused_step(name):
    optimizer, _ = pair()
    step(optimizer, 0)
    convert(optimizer, name)
    with pytest.raises(RuntimeError, match="Double"):
        step(optimizer, 1)


def test_the_state_is_interchangeable():
    ours, theirs = pair()
    for seed in range(5):
        step(ours, seed)
        step(theirs, seed)
    back, forth = pair()
    for new, old in ((back, theirs), (forth, ours)):
        for parameter, source in zip(new.param_groups[0]["params"], old.param_groups[0]["params"], strict=True):
            parameter.data.copy_(source.data)
        new.load_state_dict(deepcopy(old.state_dict()))
    for seed in range(5, 10):
        step(back, seed)
        step(forth, seed)
    assert_same(back, forth)


def test_a_copy_moves_its_own_parameters():
    ours, _ = pair()
    step(ours, 0)
    step(ours, 1)
    copied = deepcopy(ours)
    before = [parameter.clone() for parameter in ours.param_groups[0]["params"]]
    step(copied, 2)
    assert all(map(th.equal, before, ours.param_groups[0]["params"]))
    assert not any(map(th.equal, before, copied.param_groups[0]["params"]))


def test_hooks_are_called_once_a_step():
    ours, _ = pair()
    calls = []
    ours.register_step_pre_hook(lambda *_: calls.append("before"))
    ours.register_step_post_hook(lambda *_: calls.append("after"))
    for seed in range(3):
        step(ours, seed)
    assert calls == ["before", "after"] * 3


def test_a_parameter_without_gradient_stays():
    ours, theirs = pair()
    for seed in range(4):
        for optimizer in (ours, theirs):
            th.manual_seed(seed)
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad = th.randn(parameter.shape) if seed != 2 or len(parameter) > 7 else None
            optimizer.step()
    assert_same(ours, theirs)
    ours.zero_grad()
    assert all(parameter.grad is None for parameter in ours.param_groups[0]["params"])
