"""Train nnU-Net v2 and predict with it, in its own environment: `python nnunet_train.py ORDER.json`.

It plans by itself (patch, batch, network); its epochs get as many steps as give the budget's number of patches.
Written for the versions that run.py names; it needs a GPU and was never run where there is none.
"""

import json
import math
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

NAME = "Dataset001_quality"


def main() -> None:
    """Do what the order asks; write predictions and took.json beside it."""
    if not torch.cuda.is_available():
        raise SystemExit("nnunet: no GPU here; nnU-Net v2 is compared on GPU machines only")
    order = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(order["folder"])
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    write_dataset(order, folder / "raw" / NAME)
    torch.manual_seed(order["seed"])
    np.random.seed(order["seed"])
    started, cpu = time.monotonic(), time.process_time()
    trainer = train(order, folder)
    trained, trained_cpu = time.monotonic(), time.process_time()
    predict(trainer, order, folder)
    took = {"train_s": trained - started, "train_cpu_s": trained_cpu - cpu, "predict_s": time.monotonic() - trained}
    (folder / "took.json").write_text(json.dumps(took))


def write_dataset(order: dict, raw: Path) -> None:
    """Write the training volumes in nnU-Net's layout; TIFF with the voxel size beside it."""
    for source, target, ending in (("images", "imagesTr", "_0000"), ("masks", "labelsTr", "")):
        (raw / target).mkdir(parents=True)
        for path in sorted((Path(order["train"]) / source).iterdir()):
            tifffile.imwrite(raw / target / f"{path.stem}{ending}.tif", tifffile.imread(path))
            write_spacing(path, raw / target / f"{path.stem}.json")
    labels = {"background": 0, **{f"class{c}": c for c in range(1, order["num_classes"] + 1)}}
    about = {"channel_names": {"0": "image"}, "labels": labels, "file_ending": ".tif"}
    number = len(order["training"]) + len(order["validation"])
    (raw / "dataset.json").write_text(json.dumps({**about, "numTraining": number}))


def train(order: dict, folder: Path):  # type: ignore[no-untyped-def]
    """Plan, preprocess, train fold 0 of the benchmark's own split; return the trainer."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.run.run_training import get_trainer_from_args

    extract_fingerprints([1])
    plan_experiments([1])
    preprocess([1], configurations=["3d_fullres"], num_processes=[4])
    split = [{"train": order["training"], "val": order["validation"]}]
    (folder / "preprocessed" / NAME / "splits_final.json").write_text(json.dumps(split))
    trainer = get_trainer_from_args("1", "3d_fullres", 0, device=torch.device("cuda"))
    trainer.num_epochs = order["epochs"]
    batch = trainer.configuration_manager.batch_size
    trainer.num_iterations_per_epoch = math.ceil(order["steps"] * order["batch"] / batch)
    trainer.run_training()
    return trainer


def predict(trainer, order: dict, folder: Path) -> None:  # type: ignore[no-untyped-def]
    """Predict the test images with the best epoch and mirrored views."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = Path(trainer.output_folder_base)
    predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cuda"))
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_best.pth")
    source, out = folder / "imagesTs", folder / "predictions"
    source.mkdir()
    for path in sorted(Path(order["test"]).iterdir()):
        shutil.copyfile(path, source / f"{path.stem}_0000.tif")
        write_spacing(path, source / f"{path.stem}.json")
    predictor.predict_from_files(str(source), str(out), overwrite=True)


def write_spacing(image: Path, beside: Path) -> None:
    """Write the voxel size (z, y, x) as nnU-Net reads it beside a TIFF; ones where the image does not tell."""
    with tifffile.TiffFile(image) as file:
        about, tags = file.imagej_metadata or {}, file.pages.first.tags
        size = [1.0, 1.0, 1.0]
        if "spacing" in about:
            y, x = (tags[name].value for name in ("YResolution", "XResolution"))
            size = [float(about["spacing"]), y[1] / y[0], x[1] / x[0]]
    beside.write_text(json.dumps({"spacing": size}))


if __name__ == "__main__":
    main()
