"""What must hold for every sparse model at any time."""

import torch as th

from sb3_rlx2 import SparseMLP


def sparse_mlps(module):
    return [mlp for mlp in module.modules() if isinstance(mlp, SparseMLP)]


def pairs(policy):
    """Give (name, online network, target network or None, optimizer) for each sparse network of a policy."""
    out = []
    for name in policy.networks:
        network, target = getattr(policy, name), getattr(policy, f"{name}_target", None)
        mlps = sparse_mlps(network)
        targets = sparse_mlps(target) if target is not None else [None] * len(mlps)
        assert len(targets) == len(mlps) > 0
        out += [(name, mlp, other, policy.optimizer_of(name)) for mlp, other in zip(mlps, targets, strict=True)]
    return out


def assert_sound(policy, nnz=None):
    """
    :param policy: a sparse policy
    :param nnz: links per layer, of each network by its name, as {"actor": [...], "critic": [...]}
    """
    for name, mlp, target, optimizer in pairs(policy):
        assert mlp.index.dtype == th.int32
        assert (mlp.index.diff() > 0).all()  # sorted and unique over all layers
        start = 0
        for number, layer in enumerate(mlp.layers):
            positions = mlp.index[(mlp.index >= start) & (mlp.index < start + layer.size)]
            assert len(positions) == layer.nnz == (layer.nnz if nnz is None else nnz[name][number])
            start += layer.size
        assert len(mlp.index) == len(mlp.values) == sum(layer.nnz for layer in mlp.layers)
        assert int((th.cat([weight.flatten() for weight in mlp.dense_weights()]) != 0).sum()) <= mlp.nnz
        assert th.isfinite(mlp.values).all()
        assert th.isfinite(mlp.bias).all()
        for state in optimizer.state[mlp.values].values():
            assert not isinstance(state, th.Tensor) or state.shape in (mlp.values.shape, ())
        if target is not None:
            assert target.index.data_ptr() == mlp.index.data_ptr()  # one index, in memory and in saved agents
            assert target.values.shape == mlp.values.shape
            assert th.isfinite(target.values).all()


def assert_equal(a, b):
    """Compare nested dicts and lists of tensors and numbers bit for bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)
    elif isinstance(a, th.Tensor):
        assert a.dtype == b.dtype
        assert th.equal(a, b)
    else:
        assert a == b


def learned(model):
    """Give all that training changes in a model, as nested dicts."""
    state = model.get_parameters()
    if hasattr(model, "log_ent_coef"):
        state["log_ent_coef"] = model.log_ent_coef
    return state
