import pytest

from biom3d import cpu


@pytest.mark.parametrize(
    ("limit", "avx512", "bf16"),
    [(None, True, True), ("AVX2", False, False), ("AVX512_CORE", True, False), ("avx512_core_bf16", True, True)],
)
def test_the_limit_that_onednn_keeps_is_ours_too(limit, avx512, bf16, monkeypatch):
    flags = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16"})
    monkeypatch.setattr(cpu, "_cpu_flags", lambda: flags)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert (cpu.has_avx512(), cpu.has_bfloat16()) == (avx512, bf16)
