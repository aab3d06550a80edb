"""Light augmentation of chest X-rays: never a flip, so that left stays left."""

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
        angle: degrees of rotation about the centre, clockwise as seen.
        right: shift, in widths of the image.
        down: shift, in heights of the image.
        scale: factor of enlargement about the centre.
        brightness: what every pixel gains, in ranges (maximum less minimum) of the image.
        contrast: factor on every pixel's distance from the image's mean.
    """

    angle: float = 0.0
    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0
    brightness: float = 0.0
    contrast: float = 1.0


def augment(pixels: Tensor, seeds: Sequence[int | tuple[int, ...]]) -> Tensor:
    """Distort each image a little, as ``draw_distortion`` draws it from the image's own seed.

    An image's result depends on the image and its seed alone, not on its batch: with seeds such as
    (seed, epoch, row), a training that is resumed sees what it would have seen.

    Args:
        pixels: (B, C, H, W) preprocessed images, float32.
        seeds: one for each image, non-negative; the tuples all of one length.

    Returns:
        (B, C, H, W), float32.

    Raises:
        ValueError: there is not one seed for each image.
    """
    return distort(pixels, [draw_distortion(seed) for seed in seeds])


def draw_distortion(seed: int | tuple[int, ...]) -> Distortion:
    """A distortion, each of its parts uniform over a range that leaves a film a plausible film.

    Rotation by up to 7 degrees, shifts by up to 4 % and scaling by up to 5 % either way are within
    the differences between one patient's films; so are 10 % of brightness and contrast.
    """
    draw = np.random.default_rng(seed).uniform
    return Distortion(
        angle=draw(-MAX_ANGLE, MAX_ANGLE),
        right=draw(-MAX_SHIFT, MAX_SHIFT),
        down=draw(-MAX_SHIFT, MAX_SHIFT),
        scale=draw(1 - MAX_SCALING, 1 + MAX_SCALING),
        brightness=draw(-MAX_BRIGHTNESS, MAX_BRIGHTNESS),
        contrast=draw(1 - MAX_CONTRAST, 1 + MAX_CONTRAST),
    )


def distort(pixels: Tensor, distortions: Sequence[Distortion]) -> Tensor:
    """Distort each image: scaled, turned and shifted, then its contrast and brightness changed.

    Pixels are interpolated linearly; what comes in from outside the image repeats its border.
    Brightness and contrast take each channel's own mean and range, so that they mean the same
    whatever the normalisation was, and a grey film stays grey. Nothing is clipped: that would
    flatten the darkest lung or the brightest bone.

    Args:
        pixels: (B, C, H, W) preprocessed images, float32.
        distortions: one for each image.

    Returns:
        (B, C, H, W), float32.

    Raises:
        ValueError: there is not one distortion for each image.
    """
    if len(distortions) != len(pixels):
        raise ValueError(f"{len(distortions)} distortions or seeds for {len(pixels)} images")
    height, width = pixels.shape[-2:]
    sources = pixels.new_tensor([_source(d, height=height, width=width) for d in distortions])
    # Autocast would compute the pixels' positions in bfloat16, a pixel off.
    with torch.autocast(pixels.device.type, enabled=False):
        grid = nn.functional.affine_grid(sources, list(pixels.shape), align_corners=False)
        moved = nn.functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
    light = pixels.new_tensor([(d.contrast, d.brightness) for d in distortions])
    contrast, brightness = light[:, 0, None, None, None], light[:, 1, None, None, None]
    mean = moved.mean(dim=(2, 3), keepdim=True)
    value_range = moved.amax(dim=(2, 3), keepdim=True) - moved.amin(dim=(2, 3), keepdim=True)
    return mean + contrast * (moved - mean) + brightness * value_range


def _source(distortion: Distortion, *, height: int, width: int) -> list[list[float]]:
    """The 2x3 matrix from where a pixel goes to where it comes from, as ``affine_grid`` wants it.

    Both in (x, y) from -1 to 1 over the image. The inverse of p -> scale * R p + shift, with the
    rotation R in pixels: on an oblong image it would shear in those units.
    """
    cos = math.cos(math.radians(distortion.angle)) / distortion.scale
    sin = math.sin(math.radians(distortion.angle)) / distortion.scale
    turn = [[cos, sin * height / width], [-sin * width / height, cos]]
    shift = (2 * distortion.right, 2 * distortion.down)
    return [[x, y, -(x * shift[0] + y * shift[1])] for x, y in turn]
