"""The machine a plan is made for: its training device and memory, found without loading torch."""

import os
import shutil
import subprocess
import sys
from importlib import metadata

from biom3d.config import Machine as Machine
from biom3d.cpu import has_bfloat16

GPU_SHARE = 0.8  # of its memory; the rest is for the CUDA context and cuDNN's workspaces
RAM_SHARE = 0.4  # of the machine's memory: other programs live there too
RAM_LIMIT_GB = 8.0


def describe_machine() -> Machine:
    """Return what a training on this machine will have."""
    gpu_gb = _smallest_gpu_gb()
    if gpu_gb is not None:
        return Machine("cuda", gpu_gb * GPU_SHARE, True)
    ram_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    memory_gb = min(ram_gb * RAM_SHARE, RAM_LIMIT_GB)
    if sys.platform == "darwin" and os.uname().machine == "arm64":
        return Machine("mps", memory_gb, False)
    return Machine("cpu", memory_gb, has_bfloat16())


def _smallest_gpu_gb() -> float | None:
    """Return the memory of the smallest NVIDIA GPU that this process may use, None without one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or _torch_is_cpu_build():
        return None
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    sizes = [int(line) for line in answer.stdout.split() if line.isdigit()]
    return min(sizes) * 2**20 / 1e9 if answer.returncode == 0 and sizes else None


def _torch_is_cpu_build() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False
