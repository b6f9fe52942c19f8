import dataclasses

import numpy as np
import torch

from biom3d.data import augment
from biom3d.data.patches import margin_of

PATCH = (8, 12, 16)
MARGIN = margin_of(PATCH)


def block(seed=0, batch=2):
    rng = np.random.default_rng(seed)
    size = [p + 2 * m for p, m in zip(PATCH, MARGIN, strict=True)]
    images = torch.from_numpy(rng.normal(size=(batch, 1, *size)).astype(np.float32))
    return images, (images[:, 0] > 0).long()


def centre(tensor):
    return tensor[..., *(slice(m, m + p) for m, p in zip(MARGIN, PATCH, strict=True))]


def nothing(batch=2):
    off = np.zeros(batch, np.float32)
    one = np.ones(batch, np.float32)
    return augment.Parameters(np.stack([np.eye(3, dtype=np.float32)] * batch), off, off, one, one, one, one, off > 0)


def test_without_parameters_the_centre_comes_back():
    images, masks = block()
    out, labels = augment.apply(images, masks, PATCH, nothing(), torch.Generator())
    assert torch.allclose(out, centre(images), atol=1e-4)
    assert torch.equal(labels, centre(masks))


def test_a_flip_is_exact_and_moves_image_and_mask_alike():
    images, masks = block()
    flip = dataclasses.replace(nothing(), affine=np.stack([np.diag([1.0, -1.0, 1.0]).astype(np.float32)] * 2))
    out, labels = augment.apply(images, masks, PATCH, flip, torch.Generator())
    assert torch.allclose(out, centre(images).flip(3), atol=1e-4)
    assert torch.equal(labels, centre(masks).flip(2))


def test_a_quarter_turn_about_z_turns_the_plane():
    image = torch.zeros(1, 1, 4, 9, 9)
    image[0, 0, :, 4, 7] = 1
    turn = augment._rotation_about(0, np.pi / 2).astype(np.float32)[None]
    out, _ = augment.apply_affine(image, image[:, 0].long(), (4, 9, 9), turn)
    assert out[0, 0, 2].argmax().item() in (1 * 9 + 4, 7 * 9 + 4)


def test_the_same_numbers_draw_the_same_parameters():
    drawn = [augment.draw_parameters(3, PATCH, (2.0, 1.0, 1.0), np.random.default_rng(1)) for _ in range(2)]
    assert all(
        np.array_equal(getattr(drawn[0], f.name), getattr(drawn[1], f.name)) for f in dataclasses.fields(drawn[0])
    )


def test_a_plane_stays_in_its_plane():
    affine = augment.draw_parameters(200, (1, 32, 32), None, np.random.default_rng(0)).affine
    assert (affine[:, 0, 0] == 1).all()
    assert not affine[:, 0, 1:].any()
    assert not affine[:, 1:, 0].any()


def test_coarse_z_is_never_mixed_into_the_plane():
    affine = augment.draw_parameters(200, (16, 64, 64), (5.0, 1.0, 1.0), np.random.default_rng(0)).affine
    assert not affine[:, 0, 1:].any()


def test_labels_stay_whole_numbers_and_images_finite():
    images, masks = block(batch=16)
    for seed in range(5):
        parameters = augment.draw_parameters(16, PATCH, None, np.random.default_rng(seed))
        out, labels = augment.apply(images, masks, PATCH, parameters, torch.Generator().manual_seed(0))
        assert torch.isfinite(out).all()
        assert set(labels.unique().tolist()) <= {0, 1}
        assert out.shape == (16, 1, *PATCH)
