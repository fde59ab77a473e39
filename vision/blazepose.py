"""The networks of BlazePose (Bazarevsky et al. 2020, "BlazePose: On-device Real-time Body Pose tracking"), as they
stand in the wheel mediapipe 0.10.14: a detector that finds a person in a whole picture, and a landmark network that
places 33 points and cuts the person out of a square picture around them. The heavy one is in blazepose_heavy.py.

Both share a MobileNet-like trunk (`Bottleneck`). Weights: `scripts/convert_blazepose.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad, relu6

POINTS = 39  # 33 body landmarks, 2 that give the next region of interest, 4 unused


def conv(inside: int, outside: int, kernel: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2)


def depthwise(channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels)


def doubled(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, 2h, 2w]."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Stem(nn.Module):
    """Picture [B, 3, H, W] -> [B, ``outside``, H/2, W/2]."""

    def __init__(self, outside: int = 16) -> None:
        super().__init__()
        self.conv = conv(3, 24, 3, stride=2)
        self.depthwise = depthwise(24)
        self.project = conv(24, outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(relu6(self.depthwise(relu6(self.conv(x), True)), True))


class Widen(nn.Module):
    """More channels, then a look around: the first two thirds of a bottleneck, and the end of both trunks."""

    def __init__(self, inside: int, wide: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.expand = conv(inside, wide)
        self.depthwise = depthwise(wide, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu6(self.depthwise(relu6(self.expand(x), True)), True)


class Bottleneck(nn.Module):
    """MobileNetV2's inverted residual; halves the size where ``stride`` is 2."""

    def __init__(self, inside: int, outside: int, wide: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.widen = Widen(inside, wide, kernel, stride)
        self.project = conv(wide, outside)
        self.residual = inside == outside

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.widen(x))
        return out.add_(x) if self.residual else out


class Separable(nn.Module):
    """Depthwise 3×3, then 1×1 to ``outside`` channels; ``active`` puts a ReLU6 between the two."""

    def __init__(self, inside: int, outside: int, active: bool) -> None:
        super().__init__()
        self.depthwise, self.pointwise, self.active = depthwise(inside), conv(inside, outside), active

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        return relu6(self.pointwise(relu6(x, True) if self.active else x), True)


class Residual(nn.Module):
    """x + a separable convolution of x, then ReLU6; ``halve`` halves the size, and ``outside`` may then be wider."""

    def __init__(self, channels: int, active: bool, halve: bool = False, outside: int | None = None) -> None:
        super().__init__()
        self.depthwise, self.pointwise = depthwise(channels), conv(channels, outside or channels)
        self.active, self.halve, self.wider = active, halve, (outside or channels) - channels
        if halve:
            self.depthwise = nn.Conv2d(channels, channels, 3, stride=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        # TensorFlow's SAME padding of an even size at stride 2 is all at the right and the bottom.
        out = self.depthwise(pad(x, (0, 1, 0, 1)) if self.halve else x)
        out = self.pointwise(relu6(out, True) if self.active else out)
        x = max_pool2d(x, 2) if self.halve else x
        return relu6(out.add_(pad(x, (0, 0, 0, 0, 0, self.wider)) if self.wider else x), True)


class LandmarkNetwork(nn.Module):
    """Points and mask of one person in an upright square picture.

    Input [B, 3, 256, 256] in 0…1. Output: landmarks [B, 39, 5] (x, y, z in input pixels; visibility and presence as
    logits), presence of a person [B] in 0…1, heatmaps [B, 39, 64, 64] as logits and mask [B, 1, 256, 256] as logits.
    """

    SIZE = 256
    WIDTHS = (16, 24, 32, 88, 864)  # channels at a half, quarter, eighth, sixteenth and thirty-second of the size

    def __init__(self) -> None:
        super().__init__()
        half, *widths = self.WIDTHS
        self.stem = Stem(half)
        self.quarter, self.eighth, self.sixteenth, self.last = self.trunk()
        self.sides = nn.ModuleList(Separable(channels, 48, True) for channels in reversed(widths))
        self.heatmap = conv(48, POINTS)
        self.mask_in, self.mask_side = Separable(48, 8, True), Separable(half, 8, True)
        self.mask_half = nn.Sequential(Residual(8, True), Residual(8, True))
        self.mask_full = nn.Sequential(Residual(8, True), Residual(8, True), conv(8, 1, 3))
        self.head = self.body()
        self.landmarks = nn.Conv2d(288, POINTS * 5, 2)
        self.presence = nn.Conv2d(288, 1, 2)

    def trunk(self) -> tuple[nn.Sequential, ...]:
        """What comes after the stem: to a quarter, an eighth, a sixteenth and a thirty-second of the size."""
        quarter = nn.Sequential(Bottleneck(16, 24, 64, stride=2), Bottleneck(24, 24, 144))
        eighth = nn.Sequential(Bottleneck(24, 32, 144, 5, stride=2), Bottleneck(32, 32, 192, 5))
        sixteenth = nn.Sequential(
            Bottleneck(32, 64, 192, stride=2),
            Bottleneck(64, 64, 384),
            Bottleneck(64, 64, 384),
            Bottleneck(64, 88, 384, 5),
            Bottleneck(88, 88, 528, 5),
            Bottleneck(88, 88, 528, 5),
        )
        last = nn.Sequential(
            Bottleneck(88, 144, 528, 5, stride=2),
            *(Bottleneck(144, 144, 864, 5) for _ in range(3)),
            Widen(144, 864),
        )
        return quarter, eighth, sixteenth, last

    def body(self) -> nn.Module:
        """What reads the landmarks out of the trunk: [B, 288, 2, 2]."""
        return nn.Sequential(
            Separable(864, 288, True),
            Residual(288, True, halve=True),
            *(Residual(288, True) for _ in range(4)),
            Residual(288, True, halve=True),
            *(Residual(288, True) for _ in range(5)),
        )

    def read(self, last: Tensor, sixteenth: Tensor, eighth: Tensor, merged: Tensor) -> Tensor:
        """The features of the landmarks [B, 288, 2, 2]; only `HeavyLandmarkNetwork` needs more than the last."""
        return self.head(last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        landmarks, presence, heatmaps, features = self.points(x)
        return landmarks, presence, heatmaps, self.mask(*features)

    def points(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Everything but the mask; in its place the features that `mask` makes it from."""
        half = self.stem(x)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        last = self.last(sixteenth)
        merged = self.sides[0](last)
        for side, features in zip(self.sides[1:], (sixteenth, eighth, quarter)):
            merged = doubled(merged).add_(side(features))  # ends at [B, 48, 64, 64]
        head = self.read(last, sixteenth, eighth, merged)  # [B, 288, 2, 2]
        landmarks = self.landmarks(head).view(-1, POINTS, 5)
        return landmarks, self.presence(head).flatten().sigmoid(), self.heatmap(merged), (merged, half)

    def mask(self, merged: Tensor, half: Tensor) -> Tensor:
        """[B, 48, 64, 64] and [B, 16, 128, 128] -> [B, 1, 256, 256] as logits."""
        mask = self.mask_half(doubled(self.mask_in(merged)).add_(self.mask_side(half)))
        return self.mask_full(doubled(mask))


class Anchors(nn.Module):
    """Detections of one scale: ``anchors`` at each place, from features whose pixels are laid out twice as fine first.

    Input [B, C, h, w]; output scores [B, h·w·anchors] as logits and boxes [B, h·w·anchors, 12].
    """

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        fine = channels // 4
        self.score = nn.Sequential(depthwise(fine, stride=2), conv(fine, anchors))
        self.box = nn.Sequential(depthwise(fine, stride=2), conv(fine, anchors * 12))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = x.shape
        # TensorFlow's depth_to_space: the channels count (row, column, channel); pixel_shuffle has the channel first.
        x = x.view(batch, 2, 2, channels // 4, height, width)
        x = x.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, height * 2, width * 2)
        x = x.contiguous(memory_format=torch.channels_last)
        score, box = self.score(x), self.box(x)
        return score.permute(0, 2, 3, 1).reshape(batch, -1), box.permute(0, 2, 3, 1).reshape(batch, -1, 12)


class DetectorNetwork(nn.Module):
    """Where in a picture people are. Input [B, 3, 224, 224] in -1…1.

    Output: scores [B, 2254] as logits and boxes [B, 2254, 12] around the anchors: face box x, y, w, h and four points
    (x, y), of which the first two, mid-hip and the top of the circle around the body, give the region of interest.
    """

    SIZE = 224

    def __init__(self) -> None:
        super().__init__()
        self.eighth = nn.Sequential(
            Stem(),
            Bottleneck(16, 24, 64, stride=2),
            Bottleneck(24, 24, 144),
            Bottleneck(24, 40, 144, 5, stride=2),
            Bottleneck(40, 40, 240, 5),
        )
        self.sixteenth = nn.Sequential(
            Bottleneck(40, 80, 240, stride=2),
            Bottleneck(80, 80, 480),
            Bottleneck(80, 80, 480),
            Bottleneck(80, 112, 480, 5),
            Bottleneck(112, 112, 672, 5),
            Bottleneck(112, 112, 672, 5),
        )
        self.last = nn.Sequential(
            Bottleneck(112, 192, 672, 5, stride=2),
            *(Bottleneck(192, 192, 1152, 5) for _ in range(3)),
            Widen(192, 1152),
        )
        self.side_eighth, self.side_sixteenth = Separable(40, 96, False), Separable(112, 192, False)
        self.up_sixteenth, self.up_eighth = conv(1152, 192), conv(192, 96)
        self.merged_sixteenth = nn.Sequential(Residual(192, False), Residual(192, False))
        self.merged_eighth = nn.Sequential(Residual(96, False), Residual(96, False))
        self.anchors = nn.ModuleList([Anchors(96, 2), Anchors(192, 2), Anchors(1152, 6)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eighth = self.eighth(x)
        sixteenth = self.sixteenth(eighth)
        last = self.last(sixteenth)
        # The original doubles the size, then convolves 1×1: the same numbers at four times the work.
        up = relu6(doubled(self.up_sixteenth(last)), True)
        merged = self.merged_sixteenth(up.add_(self.side_sixteenth(sixteenth)))
        up = relu6(doubled(self.up_eighth(merged)), True)
        found = [self.merged_eighth(up.add_(self.side_eighth(eighth))), merged, last]
        scores, boxes = zip(*(anchors(features) for anchors, features in zip(self.anchors, found)))
        return torch.cat(scores, 1), torch.cat(boxes, 1)
