"""DQN's gradient step as one job, for some tiles of the batch (see ``kernels/mlp.py``)."""

from sb3_rlx2.kernels.losses import huber_gradient, put_actions
from sb3_rlx2.kernels.mlp import mlp_learn
from sb3_rlx2.kernels.signatures import Group
from sb3_rlx2.kernels.value_based import ValueArrays, value_forward


def dqn(arrays: ValueArrays, job: int, first: int, last: int) -> None:
    """
    Compute the gradient of Huber's loss of the taken actions' values.

    :param arrays: what the thread works on
    :param job: ``FIT``
    :param first: first tile
    :param last: tile behind the last one
    """
    value_forward(arrays, first, last)
    arrays.sums[0] = huber_gradient(arrays.taken, arrays.target, arrays.returns.size, first, last)
    put_actions(arrays.taken, arrays.inputs, arrays.outputs, first, last)
    arrays.sums[1] = mlp_learn(arrays.online, arrays.inputs, arrays.outputs, first, last)


DQN = Group("dqn", jobs=(dqn,))
