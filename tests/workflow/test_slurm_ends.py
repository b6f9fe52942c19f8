"""How Slurm's own words at the end of a job are told."""

import pytest
from biom3d_workflow import slurm

LINES = {  # what Slurm 22.05 wrote in such cases; those of preemption, nodes and oom_kill were not seen
    "slurmstepd-n1: error: *** JOB 3 ON n1 CANCELLED AT 2026-11-29T20:55:31 DUE TO TIME LIMIT ***": "more runtime",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=7.batch.": "more mem_mb",
    "slurmstepd-n1: error: StepId=1.0 exceeded memory limit (408891392 > 104857600), being killed\n"
    "slurmstepd-n1: error: *** STEP 1.0 ON n1 CANCELLED AT 2026-11-29T20:54:08 ***": "more mem_mb",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T20:40:00 DUE TO PREEMPTION ***": "run again",
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T20:40:00 DUE TO NODE FAILURE ***": "its node failed",
    "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T20:40:00 ***": "somebody cancelled it",
    "train: error: the loss became nan": "",
}


@pytest.mark.parametrize(("line", "meaning"), LINES.items())
def test_what_slurm_writes_at_an_end_is_told_in_plain_words(tmp_path, monkeypatch, line, meaning):
    monkeypatch.chdir(tmp_path)
    log = slurm.LOGS / "rule_train/m_0/7.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"epoch 1\n{line}\n")
    told = slurm.explain_end("train m/fold_0", [])
    assert meaning in told
    assert bool(told) == bool(meaning)


def test_a_log_of_an_earlier_run_explains_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = slurm.LOGS / "rule_summary/7.log"
    log.parent.mkdir(parents=True)
    log.write_text("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-29T20:40:00 ***")
    assert slurm.explain_end("summary all", []) != ""
    assert slurm.explain_end("summary all", slurm.list_logs()) == ""
