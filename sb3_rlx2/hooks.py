"""What others hang on a module, which only a call of the module itself respects."""

from typing import Any

from torch import nn


def hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """
    Give what calling a module does besides its ``forward``, there and on the way back: dicts that stay the module's.

    :param module: any
    """
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def has_hooks(module: nn.Module) -> bool:
    """
    Tell whether calling a module does more than its ``forward``.

    :param module: any
    """
    return any(hooks(module))
