"""What this machine's CPU computes fast with, as far as oneDNN, the library below torch, may use it."""

import functools
import os


def has_bfloat16() -> bool:
    """Say whether the CPU computes with avx512_bf16 or amx_bf16; False where there is no /proc."""
    return onednn_may_use("bf16") and not _cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})


def has_avx512() -> bool:
    """Say whether the CPU has what oneDNN's kernels for AVX-512 want; False where there is no /proc."""
    return onednn_may_use("avx512") and {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= _cpu_flags()


def onednn_may_use(what: str) -> bool:
    """Say whether oneDNN's own variable ONEDNN_MAX_CPU_ISA leaves "avx512" or "bf16" to it; unset leaves all."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if limit in ("DEFAULT", "ALL") or "AMX" in limit:
        return True
    return "AVX512" in limit and (what == "avx512" or "BF16" in limit or "FP16" in limit)


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """Ask the kernel, once."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return frozenset(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return frozenset()
