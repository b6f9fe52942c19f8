"""Frozen dataclasses of what is asked (`PlanRequest`) and decided (`Plan`); the package's one reader of YAML."""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from biom3d.errors import ConfigError
from biom3d.files import write_text

Triple = tuple[int, int, int]
SpacingUm = tuple[float, float, float]
T = TypeVar("T")
MAX_NODES = 1_000_000  # values in a YAML file; a plan has some hundred
NO_FACTS = ("why", "request", "machine", "data")  # of a plan: two that differ in them make equal trainings
MAX_CLASSES = 32767  # labels of patches are 16-bit integers


@dataclass(frozen=True)
class Machine:
    """The device that trains ("cuda", "mps" or "cpu"), the memory it may use, fast 16-bit numbers or not."""

    device: str
    memory_gb: float
    half_precision: bool


@dataclass(frozen=True)
class Preset:
    """A size of network and patch. `memory_gb` is what a training may use; `device` None is that of this machine."""

    width: int
    max_dim: int
    memory_gb: float
    device: str | None
    purpose: str


# By memory of the GPU, as the residual-encoder presets of nnU-Net are (M 9-11 GB, L 24 GB); a fifth of it stays free.
PRESETS = {
    "small": Preset(16, 64, 3.0, None, "a first result, on a CPU or a GPU of 4 GB"),
    "medium": Preset(32, 128, 8.0, "cuda", "a GPU of 10 GB or more; the standard of nnU-Net and Biom3d"),
    "large": Preset(48, 160, 20.0, "cuda", "a GPU of 24 GB or more; for many volumes and long trainings"),
}


@dataclass(frozen=True)
class PlanRequest:
    """What a user may ask of a plan; None lets the planner decide from the data and the machine."""

    preset: str | None = None  # a name of `PRESETS`; what is asked for beside it goes before
    device: str | None = None  # that will train: "cuda", "mps" or "cpu"
    num_classes: int = 1  # objects, background not counted
    folds: int = 5  # cross-validation; 1 trains one model with a fifth of the volumes for validation
    num_epochs: int = 100
    num_steps: int = 250  # training batches an epoch
    max_minutes: float | None = None  # a training may take so long; its start fits the two above to it
    max_dim: int = 128  # the patch never has more than max_dim^3 voxels
    memory_target_gb: float | None = None  # memory of the training device; None: what this machine has
    ct_norm: bool = False  # clip and scale all volumes alike, for calibrated intensities such as CT
    is_2d: bool = False
    patch_size: Triple | None = None  # z, y, x
    batch_size: int | None = None
    width: int | None = None  # features of the first stage of the network
    optimizer: str | None = None  # "sgd" or "adamw"; None: by the length of the training
    learning_rate: float | None = None  # None: what suits optimiser and length
    seed: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "PlanRequest":
        """Return a request for what was given; the limit of a preset replaces the default, never what was given."""
        preset = PRESETS.get(given.get("preset") or "")
        limit = {"max_dim": preset.max_dim} if preset else {}
        return cls(**{**limit, **given})


@dataclass(frozen=True)
class Normalisation:
    """How intensities are brought to a common scale.

    "zscore": every channel of every volume to mean 0 and standard deviation 1.
    "ct": all volumes alike: clip to `low`, `high`, subtract `mean`, divide by `std` (per channel).
    """

    scheme: str = "zscore"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fingerprint:
    """Facts about a data set on which a plan rests (zyx; spacing in µm)."""

    num_volumes: int
    num_channels: int
    is_2d: bool
    median_shape: Triple
    spacing_um: SpacingUm | None
    same_spacing: bool
    class_voxels: tuple[int, ...]
    digest: str = ""  # SHA-256 of the preprocessed arrays: other volumes, another digest
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()  # by `--skip_bad`: volumes that could not be used, and why


@dataclass(frozen=True)
class DataPaths:
    """Where the preprocessed arrays lie."""

    images: str
    masks: str
    foreground: str
    folds: str

    @classmethod
    def below(cls, folder: Path | str) -> "DataPaths":
        """Return the paths inside one folder made by `preprocess --out_dir`."""
        base = Path(folder)
        return cls(str(base / "images"), str(base / "masks"), str(base / "foreground"), str(base / "folds.csv"))


@dataclass(frozen=True)
class Plan:
    """All that training and prediction need to know; written as `plan.yaml`, may be edited and fed back."""

    desc: str
    num_classes: int
    num_channels: int
    is_2d: bool
    spacing_um: SpacingUm | None  # voxels are resampled to this; None: used as they are
    patch_size: Triple
    batch_size: int
    num_pools: Triple
    width: int
    normalisation: Normalisation
    folds: int
    num_epochs: int
    num_steps: int
    num_val_steps: int
    optimizer: str
    learning_rate: float
    weight_decay: float = 3e-5
    momentum: float = 0.99  # of SGD
    foreground_rate: float = 0.5  # share of patches centred on a voxel of an object
    prior_correction: bool = True  # predictions of the model allow for patches that hold another share of objects
    deep_supervision: bool = True
    augmentation: bool = True
    network: str = "UNet3D"
    seed: int = 0
    max_minutes: float | None = None  # see planning/length.py, as for the next two
    fitted_from: str = ""  # hash of the plan whose length was fitted to max_minutes
    earlier_lengths: tuple[tuple[int, int], ...] = ()  # (epoch, num_epochs before it), where it was shortened later
    fingerprint: Fingerprint | None = None
    request: PlanRequest | None = None  # with the fingerprint and the machine: what the plan follows from
    machine: Machine | None = None
    data: DataPaths | None = None
    label_values: tuple[int, ...] = ()  # of the classes 1, 2, ... in masks and predictions; (): 1, 2, ...
    why: dict[str, str] = field(default_factory=dict)  # the reason of each choice, in words


def load_plan(path: Path | str) -> Plan:
    """Read a plan; ConfigError names the file, the key, the value and what is allowed."""
    return check_plan(from_mapping(Plan, read_yaml(path), str(path)), str(path))


def save_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan as YAML, atomically."""
    write_text(path, "# Plan of a training: edit values here, then give the file to `--config`.\n" + dump(plan))


def dump(value: Any) -> str:
    """Return a dataclass or a mapping as YAML: keys in order, short lists on one line."""
    plain = dataclasses.asdict(value) if not isinstance(value, Mapping) else value
    return yaml.dump(_plain(plain), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class BoundedLoader(yaml.SafeLoader):
    """SafeLoader that refuses a text whose aliases stand for endlessly many values ("billion laughs")."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the document as nodes."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _written_out(node, {}) > MAX_NODES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_NODES} values; write out what you need")
        return node


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node holds, aliases written out; infinity for one that holds itself."""
    # Its twin in the workflow's settings.py says why there are two.
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        items = node.value if isinstance(node, yaml.SequenceNode) else [item for pair in pairs for item in pair]
        known[id(node)] = 1 + sum(_written_out(item, known) for item in items)
    return known[id(node)]


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping; object tags are refused."""
    path = Path(path)
    try:
        value = BoundedLoader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise ConfigError(f"cannot read '{path}': {error.strerror}; give an existing plan file") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"'{path}' is not valid YAML: {reason}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"'{path}' holds {type(value).__name__}; wanted a mapping `key: value`")
    return value


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `cls` from `mapping`, checking names and types; `where` opens each message."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(fields)}"
            raise ConfigError(f"{where}: unknown key '{key}'; {hint}")
    required = [
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in mapping]
    if missing:
        raise ConfigError(f"{where}: missing key(s) {', '.join(missing)}; is this a plan file?")
    return cls(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in mapping.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return `value` as type `hint`, or raise a ConfigError that says what was wanted."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in typing.get_args(hint) if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(typing.cast(type, hint), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = typing.get_args(hint)
        if kinds[-1] is not Ellipsis and len(kinds) != len(value):
            raise ConfigError(f"{where}: got {list(value)}; wanted {len(kinds)} values")
        return tuple(_convert(kinds[0], item, where) for item in value)
    if hint is float and not isinstance(value, bool):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)  # also of text: YAML takes 1e-3 for one
            if math.isfinite(number):
                return number
        raise ConfigError(f"{where}: got {value!r}; wanted a number")
    expected = origin or hint
    if isinstance(value, expected) and (expected is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{where}: got {value!r}; wanted {getattr(hint, '__name__', hint)}")


def check_plan(plan: Plan, where: str) -> Plan:
    """Return `plan`; ConfigError for values no training could work with, `where` opens the message."""
    check_name(plan.desc, f"{where}: desc")
    normal, spacing = plan.normalisation, plan.spacing_um or (1.0, 1.0, 1.0)
    per_channel = (normal.low, normal.high, normal.mean, normal.std)
    rules = [
        (1 <= plan.num_classes <= MAX_CLASSES, f"num_classes is {plan.num_classes}; wanted 1 to {MAX_CLASSES}"),
        (plan.num_channels >= 1, f"num_channels is {plan.num_channels}; wanted at least 1"),
        (all(p > 0 for p in plan.patch_size), f"patch_size {plan.patch_size} holds a value below 1"),
        (all(0 <= p <= 5 for p in plan.num_pools), f"num_pools {plan.num_pools}; each must be 0 to 5"),
        (
            max(plan.num_pools) >= 1,
            f"num_pools are all 0 for patch_size {list(plan.patch_size)}; wanted an axis that can be halved, such as 8 "
            "or 16 voxels; give a larger --patch_size, or larger volumes",
        ),
        (plan.batch_size >= 1, f"batch_size is {plan.batch_size}; wanted at least 1"),
        (plan.width >= 1, f"width is {plan.width}; wanted at least 1"),
        (plan.num_epochs >= 1, f"num_epochs is {plan.num_epochs}; wanted at least 1"),
        (
            plan.max_minutes is None or plan.max_minutes > 0,
            f"max_minutes is {plan.max_minutes}; wanted more than 0",
        ),
        (plan.num_steps >= 1, f"num_steps is {plan.num_steps}; wanted at least 1"),
        (plan.num_val_steps >= 1, f"num_val_steps is {plan.num_val_steps}; wanted at least 1"),
        (plan.folds >= 1, f"folds is {plan.folds}; wanted at least 1"),
        (plan.seed >= 0, f"seed is {plan.seed}; wanted at least 0"),
        (min(spacing) > 0, f"spacing_um is {list(spacing)}; wanted three values above 0"),
        (plan.learning_rate > 0, f"learning_rate is {plan.learning_rate}; wanted more than 0"),
        (plan.weight_decay >= 0, f"weight_decay is {plan.weight_decay}; wanted at least 0"),
        (0 <= plan.momentum < 1, f"momentum is {plan.momentum}; wanted 0 to below 1"),
        (0 <= plan.foreground_rate <= 1, f"foreground_rate is {plan.foreground_rate}; wanted 0 to 1"),
        (plan.optimizer in ("sgd", "adamw"), f"optimizer is '{plan.optimizer}'; allowed: sgd, adamw"),
        (plan.network == "UNet3D", f"network is '{plan.network}'; allowed: UNet3D"),
        (
            normal.scheme in ("zscore", "ct"),
            f"normalisation is '{normal.scheme}'; allowed: zscore, ct",
        ),
        (
            normal.scheme != "ct" or all(len(values) == plan.num_channels for values in per_channel),
            f"normalisation ct needs low, high, mean and std for each of {plan.num_channels} channel(s)",
        ),
    ]
    for ok, message in rules:
        if not ok:
            raise ConfigError(f"{where}: {message}")
    check_patch(plan.patch_size, plan.num_pools, where)
    return plan


def check_name(name: str, where: str) -> None:
    """Refuse the name of a model that cannot be part of a file name, or that hides or moves the file."""
    if not name or re.search(r"^[.\s]|[/\\\x00-\x1f]|\s$", name):
        raise ConfigError(
            f"{where} is {name!r}; wanted a name without slash, backslash and line break that begins neither with "
            "a dot nor a space"
        )


def check_patch(patch_size: Triple, num_pools: Triple, where: str) -> None:
    """Refuse a patch that the network cannot halve `num_pools` times per axis."""
    for axis, size, pools in zip("zyx", patch_size, num_pools, strict=True):
        step = 2**pools
        if size % step:
            below, above = size // step * step, (size // step + 1) * step
            allowed = f"{below} or {above}" if below else f"{above}"
            raise ConfigError(
                f"{where}: patch_size {list(patch_size)}: axis {axis} is {size} but is halved {pools} times; "
                f"use {allowed}"
            )
    if all(size == 2**pools for size, pools in zip(patch_size, num_pools, strict=True)):
        raise ConfigError(f"{where}: patch_size {list(patch_size)} shrinks to one voxel; use a larger patch")


class _Dumper(yaml.SafeDumper):
    """Lists of plain numbers on one line."""


def _represent_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.Node:
    flat = all(isinstance(item, int | float) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(list, _represent_list)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
