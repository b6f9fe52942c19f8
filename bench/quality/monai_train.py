"""Train a network of MONAI and predict with it, in MONAI's own environment: `python monai_train.py ORDER.json`.

Transforms, loss and inferer are those of MONAI's tutorials (dynunet_pipeline, unet_training_dict): normalised
intensities, crops half of which are centred on an object, zoom, noise, smoothing, scaled intensity, flips,
DiceCELoss, sliding window with Gaussian weights. The optimiser was compared inside train/ only; see README.md.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet
from monai.transforms import (
    Compose,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandZoomd,
    Spacingd,
    SpatialPadd,
)
from monai.utils import set_determinism

KEYS = ("image", "label")
LEARNING_RATE = 3e-3


def main() -> None:
    """Do what the order asks; write predictions and took.json beside it."""
    order = json.loads(Path(sys.argv[1]).read_text())
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    set_determinism(seed=order["seed"])
    started, cpu = time.monotonic(), time.process_time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spacing = median_spacing(order)
    network = build(order).to(device)
    train(network, order, spacing, device)
    trained, trained_cpu = time.monotonic(), time.process_time()
    predict(network, order, spacing, device)
    took = {
        "train_s": trained - started,
        "train_cpu_s": trained_cpu - cpu,
        "predict_s": time.monotonic() - trained,
    }
    (Path(order["folder"]) / "took.json").write_text(json.dumps(took))


def build(order: dict) -> torch.nn.Module:
    """Return the network with the depth of the others (DynUNet), or MONAI's fixed four levels (BasicUNet)."""
    classes, width = order["num_classes"] + 1, order["width"]
    if order["network"] == "basicunet":
        features = (width, width, 2 * width, 4 * width, 8 * width, width)
        return BasicUNet(spatial_dims=3, in_channels=1, out_channels=classes, features=features)
    pools = order["num_pools"]
    depth = max(pools)
    strides = [(1, 1, 1), *[[2 if i < p else 1 for p in pools] for i in range(depth)]]
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        kernel_size=[3] * (depth + 1),
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=[width * min(2**i, 10) for i in range(depth + 1)],
    )


def train(network: torch.nn.Module, order: dict, spacing: tuple | None, device: torch.device) -> None:
    """Train and leave the network with the weights of the epoch with the best validation Dice."""
    prepare = preprocessing(order, spacing)
    cases = {name: prepare(load(order, name)) for name in (*order["training"], *order["validation"])}
    augment, plain = augmentation(order), cropping(order)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, order["epochs"] * order["steps"], 0.9)
    rng = np.random.default_rng(order["seed"])
    best: dict[str, torch.Tensor] = {}
    best_dice = -1.0
    for epoch in range(order["epochs"]):
        network.train()
        for _ in range(order["steps"]):
            names = rng.choice(order["training"], order["batch"])
            images, labels = batch([augment(cases[name])[0] for name in names], device)
            with torch.autocast("cuda", enabled=device.type == "cuda"):
                loss = loss_of(network(images), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
            optimizer.step()
            schedule.step()
        dice = validate(network, order, cases, plain, device)
        print(f"epoch {epoch + 1} of {order['epochs']}: loss {float(loss.detach()):.3f}, validation Dice {dice:.3f}")
        if dice >= best_dice:
            best, best_dice = {k: v.clone() for k, v in network.state_dict().items()}, dice
    network.load_state_dict(best)


@torch.inference_mode()
def validate(network: torch.nn.Module, order: dict, cases: dict, plain: Compose, device: torch.device) -> float:
    """Return the mean Dice of the classes over the same patches of the validation volumes every epoch."""
    network.eval()
    plain.set_random_state(seed=order["seed"])
    rng = np.random.default_rng(order["seed"])
    classes = range(1, order["num_classes"] + 1)
    overlap, total = np.zeros(len(classes)), np.zeros(len(classes))
    for _ in range(order["validation_steps"]):
        names = rng.choice(order["validation"], order["batch"])
        images, labels = batch([plain(cases[name])[0] for name in names], device)
        found = network(images).argmax(1)
        overlap += np.array([2 * int(((found == c) & (labels[:, 0] == c)).sum()) for c in classes])
        total += np.array([int((found == c).sum() + (labels == c).sum()) for c in classes])
    seen = total > 0
    return float((overlap[seen] / total[seen]).mean()) if seen.any() else 0.0


def preprocessing(order: dict, spacing: tuple | None) -> Compose:
    """Return what is done once to every training volume."""
    steps = [NormalizeIntensityd("image", channel_wise=True), SpatialPadd(KEYS, order["patch"])]
    if spacing:
        steps.insert(0, Spacingd(KEYS, spacing, mode=("bilinear", "nearest")))
    return Compose(steps)


def cropping(order: dict) -> Compose:
    """Return random crops, every second of them around an object."""
    return Compose([RandCropByPosNegLabeld(KEYS, "label", order["patch"], pos=1, neg=1, num_samples=1)])


def augmentation(order: dict) -> Compose:
    """Return crops and the augmentation of MONAI's dynunet_pipeline."""
    zoom = RandZoomd(
        KEYS, prob=0.15, min_zoom=0.9, max_zoom=1.2, mode=("trilinear", "nearest"), align_corners=(True, None)
    )
    steps = [
        *cropping(order).transforms,
        zoom,
        RandGaussianNoised("image", prob=0.15, std=0.01),
        RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.5, 1.15), sigma_y=(0.5, 1.15), sigma_z=(0.5, 1.15)),
        RandScaleIntensityd("image", factors=0.3, prob=0.15),
        *(RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)),
    ]
    compose = Compose(steps)
    compose.set_random_state(seed=order["seed"])
    return compose


def batch(samples: list[dict], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack samples: images and labels (b, 1, z, y, x)."""
    images = torch.stack([sample["image"].as_tensor() for sample in samples])
    return images.to(device), torch.stack([sample["label"].as_tensor() for sample in samples]).to(device)


@torch.inference_mode()
def predict(network: torch.nn.Module, order: dict, spacing: tuple | None, device: torch.device) -> None:
    """Write a label volume for each test image, on its own grid."""
    network.eval()
    window = SlidingWindowInferer(order["patch"], sw_batch_size=1, overlap=0.5, mode="gaussian")
    steps = [NormalizeIntensityd("image", channel_wise=True)]
    if spacing:
        steps.insert(0, Spacingd("image", spacing, mode="bilinear"))
    prepare = Compose(steps)
    flips = [f for n in range(4) for f in itertools.combinations((2, 3, 4), n)] if order["mirror"] else [()]
    out = Path(order["folder"]) / "predictions"
    out.mkdir()
    for path in sorted(Path(order["test"]).iterdir()):
        volume = read(path)
        image = prepare({"image": volume})["image"].as_tensor()[None].to(device)
        scores = sum(window(image.flip(f), network).flip(f) for f in flips)
        scores = torch.nn.functional.interpolate(scores.float(), volume.shape[1:], mode="trilinear")
        tifffile.imwrite(out / path.name, scores.argmax(1)[0].cpu().numpy().astype(np.uint8))


def load(order: dict, name: str) -> dict:
    """Read one training volume: image and label (1, z, y, x) that know their voxel size."""
    folder = Path(order["train"])
    return {"image": read(folder / "images" / f"{name}.tif"), "label": read(folder / "masks" / f"{name}.tif")}


def read(path: Path) -> MetaTensor:
    """Read a TIFF (z, y, x) as (1, z, y, x) float32 with its voxel size in the affine."""
    array = torch.from_numpy(tifffile.imread(path).astype(np.float32))[None]
    return MetaTensor(array, affine=torch.diag(torch.tensor([*(voxel_size(path) or (1.0, 1.0, 1.0)), 1.0])))


def median_spacing(order: dict) -> tuple | None:
    """Return the median voxel size (z, y, x) of all training volumes where they differ, else None."""
    paths = sorted((Path(order["train"]) / "images").iterdir())
    sizes = [size for path in paths if (size := voxel_size(path))]
    if len(sizes) < len(paths) or np.allclose(sizes, sizes[0], rtol=0.01):
        return None
    return tuple(float(v) for v in np.median(sizes, axis=0))


def voxel_size(path: Path) -> tuple[float, float, float] | None:
    """Return the voxel size (z, y, x) of an ImageJ TIFF, None where it does not tell."""
    with tifffile.TiffFile(path) as file:
        about, tags = file.imagej_metadata or {}, file.pages.first.tags
        if "spacing" not in about:
            return None
        y, x = (tags[name].value for name in ("YResolution", "XResolution"))
    return float(about["spacing"]), y[1] / y[0], x[1] / x[0]


if __name__ == "__main__":
    main()
