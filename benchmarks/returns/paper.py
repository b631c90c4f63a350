"""Figures of the paper (Tan et al., ICLR 2023, https://arxiv.org/abs/2205.15043): 3M steps, v3 environments, eight seeds."""

# Table 2, relative to dense: total size, FLOPs of training and of inference; then the returns, in percent.
_COLUMNS = ("size", "training", "inference", "tiny", "static", "set", "rigl", "rlx2")
_TABLE_2 = {
    ("td3", "HalfCheetah"): (0.133, 0.138, 0.100, 86.3, 77.1, 92.6, 90.8, 99.8),
    ("td3", "Hopper"): (0.040, 0.043, 0.020, 64.5, 67.7, 66.5, 90.6, 97.0),
    ("td3", "Walker2d"): (0.043, 0.045, 0.030, 60.8, 42.9, 39.3, 35.7, 98.1),
    ("td3", "Ant"): (0.093, 0.100, 0.040, 16.5, 49.6, 62.5, 68.5, 103.9),
    ("sac", "HalfCheetah"): (0.180, 0.197, 0.100, 95.0, 75.4, 94.8, 89.8, 102.2),
    ("sac", "Hopper"): (0.044, 0.048, 0.020, 89.1, 81.6, 103.9, 110.0, 109.7),
    ("sac", "Walker2d"): (0.100, 0.113, 0.100, 73.8, 83.4, 95.8, 81.9, 103.2),
    ("sac", "Ant"): (0.220, 0.239, 0.100, 49.6, 49.3, 79.8, 90.9, 105.6),
}
TABLE_2 = {key: dict(zip(_COLUMNS, figures, strict=True)) for key, figures in _TABLE_2.items()}

# Table 3, TD3, returns in percent of dense
_ABLATIONS = ("rlx2-tiny", "rlx2-static", "rlx2-set", "rlx2", "rlx2-n1", "rlx2-n2", "rlx2-n4", "rlx2-n5")
_TABLE_3 = {
    "HalfCheetah": (93.3, 86.1, 100.1, 99.8, 96.5, 101.7, 98.8, 97.0),
    "Hopper": (74.4, 84.2, 88.8, 97.0, 77.9, 91.7, 84.0, 87.5),
    "Walker2d": (84.1, 83.8, 89.4, 98.1, 73.9, 93.7, 99.1, 99.3),
    "Ant": (28.7, 80.2, 83.5, 103.9, 103.9, 105.1, 96.7, 94.5),
}
TABLE_3 = {env: dict(zip(_ABLATIONS, figures, strict=True)) for env, figures in _TABLE_3.items()}


def returns(algorithm: str, env: str, method: str) -> float | None:
    """
    Give a return of the paper in percent of dense, None if it has none.

    :param algorithm: ``"td3"`` or ``"sac"``
    :param env: environment, whose version is left aside
    :param method: key of ``cells.METHODS``
    """
    name = env.split("-v")[0]
    ablations = TABLE_3.get(name, {}) if algorithm == "td3" else {}
    return TABLE_2.get((algorithm, name), {}).get(method, ablations.get(method))


def cost(algorithm: str, env: str, what: str) -> float | None:
    """
    Give a cost of the paper relative to dense, None if it has none.

    :param algorithm: ``"td3"`` or ``"sac"``
    :param env: environment, whose version is left aside
    :param what: ``"size"``, ``"training"`` or ``"inference"``
    """
    return TABLE_2.get((algorithm, env.split("-v")[0]), {}).get(what)
