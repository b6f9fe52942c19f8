"""How long a training is where it has a limit of time: measured speed -> number of epochs and batches.

A plan with `max_minutes` that no machine has been measured for is *open*; `fit_length` closes it. A closed plan is
trained as it is, so a resumed training, or another one from the plan in a model folder, is equal whatever the speed.
"""

import dataclasses
import hashlib
import json
from typing import Any

from biom3d.config import NO_FACTS, Plan
from biom3d.planning.plan import plan_again

MIN_EPOCHS = 10  # fewer, and the learning rate falls in too coarse steps; rather fewer batches in each
TOLERANCE = 1.1  # a training that will end so much after its limit is shortened
FIRST, FIRST_TOLERANCE = 3, 1.3  # the same of the first epochs, whose times scatter: what is cut off stays off
LEARNING = ("optimizer", "learning_rate", "weight_decay")
FITTED = (
    "num_epochs",
    "num_steps",
    "num_val_steps",
    "fitted_from",
    "earlier_lengths",
    *LEARNING,
)


@dataclasses.dataclass(frozen=True)
class Speed:
    """What a batch costs on the machine that trains, in seconds."""

    training_s: float
    validation_s: float

    def epoch_s(self, num_steps: int, num_val_steps: int) -> float:
        """Return what an epoch costs."""
        return num_steps * self.training_s + num_val_steps * self.validation_s


def is_open(plan: Plan) -> bool:
    """Say whether the plan has a limit of time to which its length is not fitted yet."""
    return plan.max_minutes is not None and not plan.fitted_from


def digest(plan: Plan) -> str:
    """Return a hash of what must be equal in two plans for their trainings to be equal."""
    facts = {
        key: value
        for key, value in dataclasses.asdict(plan).items()
        if key not in ("why", "request", "machine", "data")
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fit_length(plan: Plan, speed: Speed) -> Plan:
    """Close an open plan: as many epochs as fit its limit, at most those it has; of few, with fewer batches each."""
    assert plan.max_minutes is not None
    limit_s = plan.max_minutes * 60
    steps, val_steps = plan.num_steps, plan.num_val_steps
    least = min(plan.num_epochs, MIN_EPOCHS)
    share = limit_s / least / speed.epoch_s(steps, val_steps)
    if share < 1:
        steps, val_steps = max(1, round(steps * share)), max(1, round(val_steps * share))
    epochs = max(1, min(plan.num_epochs, int(limit_s / speed.epoch_s(steps, val_steps))))
    reason = (
        f"{plan.max_minutes:g} minutes were asked for; a batch takes {speed.training_s:.2g} s where it is trained: "
        f"{epochs} of {plan.num_epochs} epochs of {steps} batches fit"
    )
    fitted = dataclasses.replace(
        plan,
        num_epochs=epochs,
        num_steps=steps,
        num_val_steps=val_steps,
        fitted_from=digest(plan),
        why=plan.why | {"num_epochs": reason},
    )
    return _with_optimizer_of_length(plan, fitted)


def _with_optimizer_of_length(plan: Plan, fitted: Plan) -> Plan:
    """Choose the optimiser anew for the new length, where the old one was chosen for the old length."""
    if plan.fingerprint is None or plan.request is None or plan.machine is None:
        return fitted
    before = plan_again(plan)
    if any(getattr(before, name) != getattr(plan, name) for name in LEARNING):
        return fitted  # somebody has set it
    request = dataclasses.replace(plan.request, num_epochs=fitted.num_epochs, num_steps=fitted.num_steps)
    after = plan_again(dataclasses.replace(plan, request=request))
    why = fitted.why | {name: after.why[name] for name in LEARNING if name in after.why}
    return dataclasses.replace(fitted, **{name: getattr(after, name) for name in LEARNING}, why=why)


def epochs_in_time(plan: Plan, done: int, used_s: float, epoch_s: float) -> int:
    """Return how many epochs a training may have now that the machine has its present speed, at most those of its plan.

    Args:
        plan: closed, with a limit.
        done: epochs that are trained.
        used_s: what they took.
        epoch_s: what one takes now.
    """
    assert plan.max_minutes is not None
    limit_s, left = plan.max_minutes * 60, plan.num_epochs - done
    if used_s + left * epoch_s <= limit_s * (TOLERANCE if done >= FIRST else FIRST_TOLERANCE):
        return plan.num_epochs
    return min(plan.num_epochs, done + max(0, round((limit_s - used_s) / epoch_s)))


def shortened(plan: Plan, done: int, num_epochs: int) -> Plan:
    """Return the plan with fewer epochs from now on, after `done`; it remembers what the earlier ones reckoned with."""
    earlier = (*plan.earlier_lengths, (done, plan.num_epochs))
    return dataclasses.replace(plan, num_epochs=num_epochs, earlier_lengths=earlier)


def continued(plan: Plan, facts: dict[str, Any]) -> Plan | None:
    """Return the plan as it goes on with a training whose plan `facts` tell; None where that differs or is longer.

    The optimiser stays that of the shorter one, unless the plan was asked for another: it may have been chosen for
    the number of epochs.
    """
    length = facts.get("num_epochs")
    if plan.max_minutes is not None or facts.get("max_minutes") is not None or not isinstance(length, int):
        return None
    may_differ = ("num_epochs", "earlier_lengths", *LEARNING)
    wanted = {key: value for key, value in dataclasses.asdict(plan).items() if key not in (*NO_FACTS, *may_differ)}
    asked = [name for name in LEARNING if getattr(plan.request, name, None) is not None]
    if length > plan.num_epochs or any(facts[name] != getattr(plan, name) for name in asked):
        return None
    if any(facts.get(key) != value for key, value in wanted.items()):
        return None
    earlier = tuple((until, before) for until, before in facts["earlier_lengths"])
    if length < plan.num_epochs:
        earlier = (*earlier, (length, length))
    first = earlier[-1][0] if earlier else length
    reason = f"{plan.num_epochs} were asked for; the first {first} are those of a finished training"
    learning = {name: facts[name] for name in LEARNING}
    return dataclasses.replace(plan, earlier_lengths=earlier, why=plan.why | {"num_epochs": reason}, **learning)


def length_at(plan: Plan, epoch: int) -> int:
    """Return how many epochs the training was to have when `epoch` (0-based) was trained."""
    return next((length for until, length in plan.earlier_lengths if epoch < until), plan.num_epochs)


def restored(plan: Plan, saved: dict[str, object]) -> Plan | None:
    """Return an open plan closed as the saved one of a checkpoint is; None where that one comes from another plan."""
    if saved.get("fitted_from") != digest(plan):
        return None
    values = {name: saved[name] for name in FITTED}
    values["earlier_lengths"] = tuple((until, length) for until, length in saved["earlier_lengths"])  # type: ignore[attr-defined]
    return dataclasses.replace(plan, **values)  # type: ignore[arg-type]
