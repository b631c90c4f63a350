"""What others hang on a module, which only a call of the module itself respects."""

from typing import Any

from torch import nn
from torch.nn.modules import module as of_all


def hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """
    Give what calling a module does besides its ``forward``, there and on the way back: dicts that stay the module's.

    :param module: any
    """
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def global_hooks() -> tuple[dict[int, Any], ...]:
    """Give what calling any module does besides (``register_module_forward_hook``): dicts that stay torch's."""
    return (
        of_all._global_forward_hooks,
        of_all._global_forward_pre_hooks,
        of_all._global_backward_hooks,
        of_all._global_backward_pre_hooks,
    )


def has_hooks(module: nn.Module) -> bool:
    """
    Tell whether calling a module does more than its ``forward``.

    :param module: any
    """
    return any(hooks(module)) or any(global_hooks())
