"""EfficientNet-lite0 (Tan and Le 2019; the lite variants of TensorFlow's TPU models), used for features only.

No squeeze-and-excitation; ReLU6 everywhere. Modules have the names of the published weights.

Shape letters in this file:
    B pictures     P side of a picture, pixels     C channels     Y, X positions
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTH = 1280
# The weights come from TensorFlow, which pads on the right first and subtracts 127, not ImageNet's means.
MEAN, DEVIATION = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)

# Repeats, kernel size, stride of the first block, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _Conv(nn.Conv2d):
    """A convolution with ``ceil(input / stride)`` output positions, padded as in TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, Y, X)``."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        pads: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, stride, groups=self.groups)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> _Conv:
    return _Conv(inputs, outputs, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """Expand, filter each channel, contract; add the input if the shapes agree."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = _conv(inputs, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _conv(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _conv(inner, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, Y, X)``."""
        y: Tensor = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """Map pictures to features; the classifier exists only to load its weights and is unused."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        blocks: list[_Block] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in _STAGES:
            for number in range(repeats):
                step = stride if number == 0 else 1
                blocks.append(_Block(inputs, outputs, kernel=kernel, stride=step, expansion=expansion))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _conv(inputs, WIDTH, 1), _norm(WIDTH)
        self._fc = nn.Linear(WIDTH, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, P, P)`` normalised pictures to ``(B, 1280)``."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        places: Tensor = F.relu6(self._bn1(self._conv_head(x)))  # (B, 1280, Y, X)
        return places.mean(dim=(2, 3))


def load(weights: Path, device: str) -> EfficientNetLite0:
    """Return the network for inference: each norm is folded into its convolution, in the fastest memory layout."""
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(requires_grad=False)
    _fold(network, (("_conv_stem", "_bn0"), ("_conv_head", "_bn1")))
    for block in network._blocks:
        pairs = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        _fold(block, [pair for pair in pairs if hasattr(block, pair[0])])
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold(module: nn.Module, pairs: "list[tuple[str, str]] | tuple[tuple[str, str], ...]") -> None:
    for conv, norm in pairs:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
