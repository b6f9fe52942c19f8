"""Augmentation of a batch on its device: parameters are drawn first, then applied.

Transforms and ranges follow the common practice of nnU-Net and Biom3d (rotation, scaling, flips, noise, blur,
brightness, contrast, low resolution, gamma). All spatial transforms are one affine map and one resampling.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from biom3d.config import SpacingUm, Triple
from biom3d.data.patches import WHOLE

ROTATION_RAD = math.pi / 6
SCALE = (0.7, 1.4)
ANISOTROPIC = 3.0  # from this ratio of spacing or size on, only the plane of the thin axis is rotated


@dataclass(frozen=True)
class Parameters:
    """What will be done to each of the b samples; all arrays start with axis b.

    `affine` (b, 3, 3) maps a voxel offset from the patch centre (z, y, x) to the offset it is read from.
    `noise`, `blur` (sigma in voxels) and `low_resolution` (factor) are 0 or 1 where nothing is done.
    """

    affine: np.ndarray
    noise: np.ndarray
    blur: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    low_resolution: np.ndarray
    gamma: np.ndarray
    inverted: np.ndarray

    def part(self, share: slice) -> "Parameters":
        """Return those of some of the samples."""
        return Parameters(*(getattr(self, field.name)[share] for field in fields(self)))


def draw_parameters(batch: int, patch: Triple, spacing: SpacingUm | None, rng: np.random.Generator) -> Parameters:
    """Draw the augmentation of a batch."""

    def sometimes(chance: float, low: float, high: float, off: float) -> np.ndarray:
        drawn = rng.uniform(low, high, batch)
        return np.where(rng.random(batch) < chance, drawn, off).astype(np.float32)

    affine = np.stack([_draw_affine(patch, spacing, rng) for _ in range(batch)]).astype(np.float32)
    return Parameters(
        affine=affine,
        noise=sometimes(0.15, 0.0, 0.3, 0.0),
        blur=sometimes(0.2, 0.5, 1.0, 0.0),
        brightness=sometimes(0.15, 0.75, 1.25, 1.0),
        contrast=sometimes(0.15, 0.75, 1.25, 1.0),
        low_resolution=sometimes(0.15, 1.2, 2.0, 1.0),
        gamma=sometimes(0.3, 0.7, 1.5, 1.0),
        inverted=rng.random(batch) < 0.15,
    )


def apply(
    images: Tensor,
    masks: Tensor,
    patch: Triple,
    parameters: Parameters,
    generator: torch.Generator,
    share: slice = WHOLE,
) -> tuple[Tensor, Tensor]:
    """Augment images (b, c, z, y, x) and masks (b, z, y, x), both with margin; returns both at `patch` size.

    `parameters` are those of a batch, images and masks its samples `share`. Noise is drawn for the whole batch, so
    that processes which share it see the same.
    """
    own = parameters.part(share)
    images, masks = apply_affine(images, masks, patch, own.affine)
    shape = (len(parameters.noise), *images.shape[1:])
    noise = torch.randn(shape, generator=generator, device=images.device)[share]
    return apply_intensity(images, own, noise), masks


def apply_affine(images: Tensor, masks: Tensor, patch: Sequence[int], affine: np.ndarray) -> tuple[Tensor, Tensor]:
    """Read the patch through the affine map: images linearly, masks from the nearest voxel."""
    sizes = np.array(images.shape[2:], np.float32)
    # grid_sample wants (x, y, z) and coordinates that are -1 and 1 at the outer faces
    normal = affine / (sizes[None, :, None] / 2) * (np.array(patch, np.float32)[None, None, :] / 2)
    theta = torch.zeros(len(affine), 3, 4)
    theta[:, :, :3] = torch.from_numpy(np.ascontiguousarray(normal[:, ::-1, ::-1]))
    grid = F.affine_grid(theta.to(images.device), [len(affine), images.shape[1], *patch], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    nearest = F.grid_sample(masks[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return images, nearest[:, 0].long()


def apply_intensity(images: Tensor, parameters: Parameters, noise: Tensor) -> Tensor:
    """Change the intensities of images (b, c, z, y, x); `noise` of the same shape is normal, of deviation 1."""
    images = images + noise * _column(parameters.noise, images)
    for i, sigma in enumerate(parameters.blur):
        if sigma > 0:
            images[i] = _blur(images[i], float(sigma))
    images = images * _column(parameters.brightness, images)
    mean = images.mean((2, 3, 4), keepdim=True)
    low, high = images.amin((2, 3, 4), keepdim=True), images.amax((2, 3, 4), keepdim=True)
    images = ((images - mean) * _column(parameters.contrast, images) + mean).clamp(low, high)
    for i, factor in enumerate(parameters.low_resolution):
        if factor > 1:
            images[i] = _lower_resolution(images[i], float(factor))
    return _gamma(images, _column(parameters.gamma, images), parameters.inverted)


def _draw_affine(patch: Triple, spacing: SpacingUm | None, rng: np.random.Generator) -> np.ndarray:
    """Return flips x scaling x rotation as a matrix (3, 3) on voxel offsets (z, y, x)."""
    matrix = np.diag(rng.choice([-1.0, 1.0], 3))
    if patch[0] == 1:
        matrix[0, 0] = 1.0
    if rng.random() < 0.2:
        matrix = matrix * rng.uniform(*SCALE)
    if rng.random() < 0.2:
        size = np.array(spacing if spacing is not None else (1.0, 1.0, 1.0))
        matrix = np.diag(1 / size) @ _rotation(patch, size, rng) @ np.diag(size) @ matrix
    if patch[0] == 1:
        matrix[0] = matrix[:, 0] = (1.0, 0.0, 0.0)
    return matrix


def _rotation(patch: Triple, spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation; only about z where z is thin: one plane, coarse spacing or few planes."""
    thin = spacing[0] / spacing[1:].min() > ANISOTROPIC or max(patch) / patch[0] > ANISOTROPIC
    if thin:
        return _rotation_about(0, rng.uniform(-math.pi, math.pi))
    about = [_rotation_about(axis, rng.uniform(-ROTATION_RAD, ROTATION_RAD)) for axis in range(3)]
    return about[0] @ about[1] @ about[2]


def _rotation_about(axis: int, angle: float) -> np.ndarray:
    a, b = [i for i in range(3) if i != axis]
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, device=like.device, dtype=like.dtype).view(-1, 1, 1, 1, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (c, z, y, x) by a Gaussian; a single plane stays sharp along z."""
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = image[:, None]
    for axis in range(3):
        if image.shape[axis + 1] <= radius:
            continue
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(kernel)
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, padding, mode="replicate"), kernel.view(shape))
    return out[:, 0]


def _lower_resolution(image: Tensor, factor: float) -> Tensor:
    """Sample (c, z, y, x) down by `factor` and up again."""
    small = [max(1, round(n / factor)) for n in image.shape[1:]]
    reduced = F.interpolate(image[None], small, mode="nearest-exact")
    return F.interpolate(reduced, image.shape[1:], mode="trilinear", align_corners=False)[0]


def _gamma(images: Tensor, gamma: Tensor, inverted: np.ndarray) -> Tensor:
    """Bend the intensities by an exponent between their extremes, keeping mean and spread."""
    changed = (gamma != 1).flatten().tolist()
    for i, yes in enumerate(changed):
        if yes:
            sign = -1.0 if inverted[i] else 1.0
            x = images[i] * sign
            low, span = x.amin(), (x.amax() - x.amin()).clamp_min(1e-7)
            y = ((x - low) / span) ** gamma[i] * span + low
            y = (y - y.mean()) / y.std().clamp_min(1e-7) * x.std() + x.mean()
            images[i] = y * sign
    return images
