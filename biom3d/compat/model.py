"""What a model folder of Biom3d 0.1.2 says about its network and how it predicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biom3d.compat.read import Values, read_biom3d_config
from biom3d.config import DataPaths, Normalisation, Plan, SpacingUm, check_plan
from biom3d.errors import ConfigError

NETWORK = "UNet3DVGGDeep"
BLOCKS = {"MODEL": NETWORK, "PREPROCESSOR": "Seg", "PREDICTOR": "SegPatch", "POSTPROCESSOR": "Seg"}
METRE_LIMIT = 1e-3  # spacings below it are metres: Biom3d multiplies those of plain TIFF by 1e-6
MOMENTUM, STEPS, VAL_STEPS = 0.99, 250, 50  # what it does where its configuration does not tell


@dataclass(frozen=True)
class Biom3dModel:
    """A model of Biom3d. `plan` describes its network; the rest is how Biom3d predicts with it.

    `spacing` (z, y, x) is in the unit of the files it was trained on; images of another one are resampled to it.
    `keep` is a name in `postprocess.KEEP`. With `softmax` the network has an output for the background.
    """

    plan: Plan
    num_outputs: int
    spacing: SpacingUm | None
    clip: tuple[float, float] | None
    moments: tuple[float, float] | None
    softmax: bool
    mirror: bool
    keep: str


def read_model(run: Path) -> Biom3dModel:
    """Return what `run`/log/config.yaml says; ConfigError where we have no such network or step."""
    path = run / "log" / "config.yaml"
    values = read_biom3d_config(path)
    where = str(path)
    network, before, window, after = (_block(values, name, fct, where) for name, fct in BLOCKS.items())
    _refuse_other_network(network, where)
    plan = read_plan(path, values)
    softmax = bool(after.get("use_softmax", True))
    outputs = _number(network.get("num_classes"), int, f"{where}: MODEL: num_classes")
    if softmax and outputs != plan.num_classes + 1:
        raise ConfigError(f"{where}: a softmax over {outputs} outputs for {plan.num_classes} classes; wanted one more")
    return Biom3dModel(
        plan=plan,
        num_outputs=outputs,
        spacing=_spacing(before.get("median_spacing"), where),
        clip=_pair(before.get("clipping_bounds"), f"{where}: clipping_bounds"),
        moments=_pair(before.get("intensity_moments"), f"{where}: intensity_moments"),
        softmax=softmax,
        mirror=bool(window.get("tta", False)),
        keep="centred" if after.get("keep_biggest_only") else "big_biom3d" if after.get("keep_big_only") else "none",
    )


def read_plan(path: Path, values: Values | None = None) -> Plan:
    """Return the plan that stands for a configuration of Biom3d; ConfigError names the key and what is wrong."""
    values = read_biom3d_config(path) if values is None else values
    where = str(path)
    network = values.get("MODEL") or {}
    kwargs = network.get("kwargs", {}) if isinstance(network, Mapping) else {}

    def number(key: str, kind: type, default: Any = None) -> Any:
        return _number(values.get(key, default), kind, f"{where}: {key}")

    classes, channels = number("NUM_CLASSES", int), number("NUM_CHANNELS", int, kwargs.get("in_planes", 1))
    spacing = _spacing(values.get("MEDIAN_SPACING"), where)
    clip = _pair(values.get("CLIPPING_BOUNDS"), f"{where}: CLIPPING_BOUNDS")
    moments = _pair(values.get("INTENSITY_MOMENTS"), f"{where}: INTENSITY_MOMENTS")
    metres = spacing is not None and max(spacing) < METRE_LIMIT
    plan = Plan(
        desc=str(values.get("DESC", "unet")),
        num_classes=classes,
        num_channels=channels,
        is_2d=str(values.get("IS_2D", False)).lower() == "true",
        spacing_um=(spacing[0] * 1e6, spacing[1] * 1e6, spacing[2] * 1e6) if spacing and metres else spacing,
        patch_size=_triple(values["PATCH_SIZE"], f"{where}: PATCH_SIZE"),
        batch_size=number("BATCH_SIZE", int, 2),
        num_pools=_triple(values["NUM_POOLS"], f"{where}: NUM_POOLS"),
        width=_number(kwargs.get("factor", 32), int, f"{where}: MODEL: factor"),
        normalisation=_normalisation(clip, moments, channels),
        folds=2,
        num_epochs=number("NB_EPOCHS", int, 1000),
        num_steps=_steps(values, "TRAIN_DATASET", STEPS, where),
        num_val_steps=_steps(values, "VAL_DATASET", VAL_STEPS, where),
        optimizer="sgd",
        learning_rate=number("LR_START", float, 0.01),
        momentum=MOMENTUM,
        data=_paths(values),
        why={"all": f"taken from the configuration of Biom3d '{path.name}'"},
    )
    return check_plan(plan, where)


def _block(values: Values, name: str, wanted: str, where: str) -> Mapping[str, Any]:
    """Return the `kwargs` of a block; ConfigError where it names another function than the one we know."""
    block = values.get(name)
    if name == "POSTPROCESSOR" and block is None:  # models of old versions
        return {"use_softmax": bool(values.get("USE_SOFTMAX", True))}
    if not isinstance(block, Mapping) or "fct" not in block:
        raise ConfigError(f"{where}: {name} is missing; give a model folder trained by Biom3d 0.1.2")
    if block["fct"] != wanted:
        raise ConfigError(f"{where}: {name} is '{block['fct']}', we have '{wanted}'; predict with Biom3d itself")
    kwargs = block.get("kwargs") or {}
    if not isinstance(kwargs, Mapping):
        raise ConfigError(f"{where}: {name}: kwargs is {type(kwargs).__name__}; wanted keys and values")
    return kwargs


def _refuse_other_network(network: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError for options of the network that change its strides, since weights would fit all the same."""
    pools = set(network.get("num_pools") or [])
    for key, usual in (("flip_strides", False), ("roll_strides", True)):
        if len(pools) > 1 and bool(network.get(key, usual)) != usual:
            raise ConfigError(
                f"{where}: MODEL: {key} is {network[key]} (a model of before August 2023), which orders the strides "
                "another way than our network; predict with Biom3d itself, or train anew"
            )


def _normalisation(
    clip: tuple[float, float] | None, moments: tuple[float, float] | None, channels: int
) -> Normalisation:
    if moments is None:
        return Normalisation()
    low, high = clip or (-3.0e38, 3.0e38)  # any value of a float32
    mean, std = moments
    parts = ((value,) * channels for value in (low, high, mean, std))
    return Normalisation("ct", *parts)


def _paths(values: Values) -> DataPaths | None:
    images, masks, folds = (values.get(key) for key in ("IMG_PATH", "MSK_PATH", "CSV_DIR"))
    if not all(isinstance(path, str) and path for path in (images, masks, folds)):
        return None
    return DataPaths(str(images), str(masks), str(values.get("FG_PATH") or ""), str(folds))


def _steps(values: Values, block: str, default: int, where: str) -> int:
    found = values.get(block)
    kwargs = found.get("kwargs", {}) if isinstance(found, Mapping) else {}
    return int(_number(kwargs.get("nbof_steps", default), int, f"{where}: {block}: nbof_steps"))


def _spacing(value: Any, where: str) -> SpacingUm | None:
    """Return (z, y, x) of a spacing that Biom3d keeps as x, y, z; 0, [] and None mean that there is none."""
    if not value:
        return None
    x, y, z = (_number(v, float, f"{where}: MEDIAN_SPACING") for v in _items(value, 3, f"{where}: MEDIAN_SPACING"))
    if min(x, y, z) <= 0:
        raise ConfigError(f"{where}: MEDIAN_SPACING is {value}; wanted three values above 0, or none")
    return z, y, x


def _pair(value: Any, where: str) -> tuple[float, float] | None:
    if not value:
        return None
    first, second = (_number(v, float, where) for v in _items(value, 2, where))
    return first, second


def _triple(value: Any, where: str) -> tuple[int, int, int]:
    z, y, x = (_number(v, int, where) for v in _items(value, 3, where))
    return z, y, x


def _items(value: Any, count: int, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise ConfigError(f"{where} is {value!r}; wanted {count} values")
    return value


def _number(value: Any, kind: type, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or kind(value) != value:
        raise ConfigError(f"{where} is {value!r}; wanted a {'whole ' if kind is int else ''}number")
    return kind(value)
