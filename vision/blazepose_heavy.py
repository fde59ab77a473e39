"""BlazePose's heavy landmark network, as it stands in pose_landmark_heavy.tflite: deeper and wider, and its landmarks
are read from a pyramid that goes down through all sizes again. It is not in the pack; `scripts/convert_blazepose.py
heavy` makes the file.
"""

from torch import Tensor, nn

from .blazepose import Bottleneck, LandmarkNetwork, Residual, Separable, Widen


def _steps(inside: int, outside: int, count: int) -> nn.Sequential:
    """Halve the size and go from ``inside`` to ``outside`` channels, then ``count`` residuals."""
    return nn.Sequential(
        Residual(inside, True, halve=True, outside=outside), *(Residual(outside, True) for _ in range(count))
    )


class Pyramid(nn.Module):
    """From features at a quarter of the size down to [B, 288, 2, 2], with those of the trunk added on the way."""

    def __init__(self, eighth: int, sixteenth: int, last: int) -> None:
        super().__init__()
        self.eighth, self.sixteenth, self.thirty_second = _steps(48, 96, 6), _steps(96, 192, 7), _steps(192, 288, 7)
        self.end = nn.Sequential(_steps(288, 288, 7), _steps(288, 288, 7))
        self.sides = nn.ModuleList(
            Separable(inside, outside, True) for inside, outside in ((eighth, 96), (sixteenth, 192), (last, 288))
        )

    def forward(self, merged: Tensor, eighth: Tensor, sixteenth: Tensor, last: Tensor) -> Tensor:
        x = merged
        steps = (self.eighth, self.sixteenth, self.thirty_second)
        for step, side, features in zip(steps, self.sides, (eighth, sixteenth, last)):
            x = step(x) + side(features)
        return self.end(x)


class HeavyLandmarkNetwork(LandmarkNetwork):
    """The same inputs and outputs as `LandmarkNetwork`, with four times as many parameters."""

    WIDTHS = (24, 32, 56, 160, 1632)

    def trunk(self) -> tuple[nn.Sequential, ...]:
        quarter = nn.Sequential(
            Bottleneck(24, 32, 96, stride=2), Bottleneck(32, 32, 128), *(Bottleneck(32, 32, 192) for _ in range(2))
        )
        eighth = nn.Sequential(Bottleneck(32, 56, 192, 5, stride=2), *(Bottleneck(56, 56, 336, 5) for _ in range(3)))
        sixteenth = nn.Sequential(
            Bottleneck(56, 112, 336, stride=2),
            *(Bottleneck(112, 112, 672) for _ in range(5)),
            Bottleneck(112, 160, 672, 5),
            *(Bottleneck(160, 160, 960, 5) for _ in range(5)),
        )
        last = nn.Sequential(
            Bottleneck(160, 272, 960, 5, stride=2),
            *(Bottleneck(272, 272, 1632, 5) for _ in range(7)),
            Widen(272, 1632),
        )
        return quarter, eighth, sixteenth, last

    def body(self) -> nn.Module:
        _, _, eighth, sixteenth, last = self.WIDTHS
        return Pyramid(eighth, sixteenth, last)

    def read(self, last: Tensor, sixteenth: Tensor, eighth: Tensor, merged: Tensor) -> Tensor:
        return self.head(merged, eighth, sixteenth, last)
