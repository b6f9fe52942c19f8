"""One network per file; `build_network` is the only place that knows the names a plan may use."""

from biom3d.config import Plan
from biom3d.models.unet import UNet

__all__ = ["UNet", "build_network"]

NETWORKS = {"UNet3D": UNet}


def build_network(plan: Plan) -> UNet:
    """Return the untrained network of a plan; one output per class and the background."""
    return NETWORKS[plan.network](plan.num_channels, plan.num_classes + 1, plan.num_pools, plan.width)
