"""What the facts of a server mean, one line a check, with what to do."""

from dataclasses import dataclass

from biom3d.server.survey import DRIVERS, NEEDED, Facts

OK, WARN, FAIL = "ok", "warn", "FAIL"
LITTLE_GB, TOO_LITTLE_GB = 20, 1
GB = 2**30


@dataclass(frozen=True)
class Finding:
    """What a check found: `state` is OK, WARN or FAIL."""

    state: str
    what: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.state:<4} {self.what}: {self.text}" + (f"; fix: {self.fix}" if self.fix else "")


def judge(facts: Facts) -> tuple[Finding, ...]:
    """Return what the facts mean, one line a check, with what to do."""
    return (
        *_judge_account(facts),
        _judge_sshd(facts),
        _judge_tools(facts),
        _judge_disk(facts),
        _judge_engine(facts),
        _judge_gpus(facts),
    )


def _judge_account(facts: Facts) -> tuple[Finding, ...]:
    if facts.user != "root":
        return ()
    fix = "run this as the account that users will log in to"
    return (Finding(WARN, "account", "this is root, and users should not log in as root", fix),)


def _judge_sshd(facts: Facts) -> Finding:
    if facts.is_sshd_answering:
        return Finding(OK, "sshd", f"answers at port {facts.port}, {facts.host_keys[0]}")
    if facts.host_keys:
        fix = "start it (sudo systemctl start ssh), or say where it listens: --port"
        return Finding(WARN, "sshd", f"does not answer at port {facts.port}; its keys are those of /etc/ssh", fix)
    fix = "sudo apt-get install openssh-server, or say where it listens: --port (behind a router: --inner-port)"
    return Finding(FAIL, "sshd", f"does not answer at port {facts.port}", fix)


def _judge_tools(facts: Facts) -> Finding:
    lacking = [tool for tool in NEEDED if tool not in facts.tools]
    lacking += [] if {"openssl", "sha256sum"} & set(facts.tools) else ["openssl"]
    if lacking:
        return Finding(FAIL, "tools", f"missing: {', '.join(lacking)}", f"sudo apt-get install {' '.join(lacking)}")
    if "zstd" not in facts.tools:
        return Finding(WARN, "tools", "no zstd, so nothing is compressed on the way", "sudo apt-get install zstd")
    return Finding(OK, "tools", "all there")


def _judge_disk(facts: Facts) -> Finding:
    free = facts.free_bytes / GB
    state = FAIL if free < TOO_LITTLE_GB else WARN if free < LITTLE_GB else OK
    fix = "" if state == OK else "free some space, or choose a folder on a larger disk"
    return Finding(state, "disk", f"{free:.0f} GB free in '{facts.workdir}'", fix)


def _judge_engine(facts: Facts) -> Finding:
    if not facts.engine:
        fix = "install rootless Podman or Docker, or make an environment: --env"
        return Finding(WARN, "engine", "neither Docker nor Podman is there", fix)
    name = facts.engine.capitalize()
    if facts.engine_error:
        fix = "start it; for a rootless one see docs/server.md; or make an environment: --env"
        return Finding(WARN, "engine", f"{name} does not answer ({facts.engine_error})", fix)
    if facts.is_rootless:
        return Finding(OK, "engine", f"{name} {facts.engine_version}, rootless")
    if facts.engine == "podman":
        return Finding(WARN, "engine", f"Podman {facts.engine_version} as root", "run it as the account, without root")
    return Finding(
        WARN,
        "engine",
        f"Docker {facts.engine_version}, not rootless: whoever may use it is root on this machine",
        "rootless Docker or Podman, or give people keys with the gate only (biom3d server authorize)",
    )


def _judge_gpus(facts: Facts) -> Finding:
    if not facts.gpus:
        return Finding(WARN, "gpus", "no NVIDIA GPU, or no driver: predictions take minutes, trainings days")
    text = f"{'; '.join(facts.gpus)}; driver {facts.driver}"
    if facts.torch_build == "cpu":
        return Finding(WARN, "gpus", f"{text} is too old", f"update the NVIDIA driver to {DRIVERS[-1][1]} or newer")
    if facts.engine and not facts.engine_error and not facts.can_give_gpus:
        fix = "install nvidia-container-toolkit, then: nvidia-ctk runtime configure (Docker) or cdi generate (Podman)"
        return Finding(WARN, "gpus", f"{text}; but {facts.engine} cannot give them to containers", fix)
    return Finding(OK, "gpus", text)
