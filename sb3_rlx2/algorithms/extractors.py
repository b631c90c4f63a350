"""Features extractors."""

from collections.abc import Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Mnih et al., 2015, https://www.nature.com/articles/nature14236


def channels_first(space: spaces.Box) -> bool:
    """
    Tell the order of the images that a policy gets: SB3 moves the channels of what it takes for images to the front, and
    leaves others as they are. Where all three sizes are equal (MinAtar's Seaquest), the channels are last.

    :param space: observation space of three dimensions
    """
    return is_image_space(space) or (is_image_space_channels_first(space) and space.shape[0] < space.shape[2])


class ConvExtractor(BaseFeaturesExtractor):
    """
    Convolutions with ReLUs. By default they are those of SB3's ``NatureCNN``, without the wide layer behind them, which holds
    most of an agent's weights: as the first layer of a sparse network (``net_arch=[512]``) it is sparse, too.

    :param observation_space: observation space, a Box of images, ``[C, H, W]`` or ``[H, W, C]``
    :param layers: number of filters, kernel size and stride of each convolution
    :raises ValueError: if the space is no such Box, or its images are too small for the convolutions
    """

    def __init__(self, observation_space: spaces.Space[Any], layers: Sequence[tuple[int, int, int]] = NATURE) -> None:
        shape = observation_space.shape
        if not isinstance(observation_space, spaces.Box) or shape is None or len(shape) != 3:
            raise ValueError(f"observation_space={observation_space} must be a Box of images to go through a ConvExtractor")
        first = channels_first(observation_space)
        channels, *size = shape if first else (shape[2], *shape[:2])
        modules: list[nn.Module] = []
        sizes = [size]
        for filters, kernel, stride in layers:
            sizes.append([(length - kernel) // stride + 1 for length in sizes[-1]])
            modules += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels = filters
        if min(map(min, sizes)) < 1:
            raise ValueError(f"layers={layers} must leave something of images of {size[0]}x{size[1]}, as observations are")
        super().__init__(observation_space, channels * sizes[-1][0] * sizes[-1][1])
        self.channels_first = first
        self.cnn = nn.Sequential(*modules, nn.Flatten())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        Extract features.

        :param observations: images, ``[batch, ...]`` in the space's order
        :return: features, ``[batch, features_dim]``
        """
        features: th.Tensor = self.cnn(observations if self.channels_first else observations.permute(0, 3, 1, 2))
        return features
