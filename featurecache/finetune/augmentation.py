"""Light augmentation of chest X-rays, without flips: left stays left."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

MAX_ANGLE = 7.0
MAX_SHIFT = 0.04
MAX_SCALING = 0.05
MAX_BRIGHTNESS = 0.1
MAX_CONTRAST = 0.1


@dataclass(frozen=True)
class Distortion:
    """How one image is distorted.

    Attributes:
        angle: Rotation about the center in degrees, clockwise.
        right: Shift to the right, as a fraction of the image width.
        down: Shift downwards, as a fraction of the image height.
        scale: Magnification about the center.
        brightness: Offset of every pixel, as a fraction of the image's range (maximum - minimum).
        contrast: Factor on every pixel's difference from the image's mean.
    """

    angle: float = 0.0
    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0
    brightness: float = 0.0
    contrast: float = 1.0


def augment(pixels: Tensor, seeds: Sequence[int | tuple[int, ...]]) -> Tensor:
    """Distort each image slightly, with a ``random_distortion`` of its own seed.

    The result depends only on the image and its seed, not on the batch: with seeds such as (seed,
    epoch, row), a training that is continued sees the same images.

    Args:
        pixels: Preprocessed images, (B, C, H, W), float32.
        seeds: One non-negative seed for each image; tuples must have the same length.

    Returns:
        Distorted images, (B, C, H, W), float32.

    Raises:
        ValueError: There is not one seed for each image.
    """
    return distort(pixels, [random_distortion(seed) for seed in seeds])


def random_distortion(seed: int | tuple[int, ...]) -> Distortion:
    """Return a random distortion, uniform over ranges that leave a plausible radiograph.

    Rotation by up to 7 degrees, shifts by up to 4 % and scaling by up to 5 % in either direction
    are within the differences between images of one patient; so are 10 % of brightness and
    contrast.
    """
    uniform = np.random.default_rng(seed).uniform
    return Distortion(
        angle=uniform(-MAX_ANGLE, MAX_ANGLE),
        right=uniform(-MAX_SHIFT, MAX_SHIFT),
        down=uniform(-MAX_SHIFT, MAX_SHIFT),
        scale=uniform(1 - MAX_SCALING, 1 + MAX_SCALING),
        brightness=uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS),
        contrast=uniform(1 - MAX_CONTRAST, 1 + MAX_CONTRAST),
    )


def distort(pixels: Tensor, distortions: Sequence[Distortion]) -> Tensor:
    """Scale, rotate and shift each image, then change its contrast and brightness.

    Pixels are interpolated linearly; outside the image, its border is repeated. Brightness and
    contrast use each channel's own mean and range, so that they mean the same under any
    normalization and a gray image stays gray. Values are not clipped: that would flatten the
    darkest lung or the brightest bone.

    Args:
        pixels: Preprocessed images, (B, C, H, W), float32.
        distortions: One for each image.

    Returns:
        Distorted images, (B, C, H, W), float32.

    Raises:
        ValueError: There is not one distortion for each image.
    """
    if len(distortions) != len(pixels):
        raise ValueError(f"{len(distortions)} distortions or seeds for {len(pixels)} images")
    height, width = pixels.shape[-2:]
    matrices = pixels.new_tensor(
        [_inverse_affine(d, height=height, width=width) for d in distortions]
    )
    # Autocast would compute positions in bfloat16, which is off by a pixel.
    with torch.autocast(pixels.device.type, enabled=False):
        grid = nn.functional.affine_grid(matrices, list(pixels.shape), align_corners=False)
        moved = nn.functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
    intensity = pixels.new_tensor([(d.contrast, d.brightness) for d in distortions])
    contrast, brightness = intensity.T[:, :, None, None, None]
    mean = moved.mean(dim=(2, 3), keepdim=True)
    value_range = moved.amax(dim=(2, 3), keepdim=True) - moved.amin(dim=(2, 3), keepdim=True)
    distorted: Tensor = mean + contrast * (moved - mean) + brightness * value_range
    return distorted


def _inverse_affine(distortion: Distortion, *, height: int, width: int) -> list[list[float]]:
    """Return the (2, 3) matrix from target to source positions, as ``affine_grid`` expects it.

    Positions are (x, y) from -1 to 1 over the image. This is the inverse of p -> scale * R p +
    shift, with the rotation R in pixels: in units of the image, R would shear an oblong image.
    """
    cos = math.cos(math.radians(distortion.angle)) / distortion.scale
    sin = math.sin(math.radians(distortion.angle)) / distortion.scale
    inverse = [[cos, sin * height / width], [-sin * width / height, cos]]
    shift = (2 * distortion.right, 2 * distortion.down)
    return [[x, y, -(x * shift[0] + y * shift[1])] for x, y in inverse]
