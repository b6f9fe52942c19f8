"""Learning rate as a function of the epoch."""


def polynomial_decay(start: float, epoch: int, num_epochs: int, power: float = 0.9) -> float:
    """Return the learning rate of `epoch` (0-based): `start` x (1 - epoch / num_epochs)^power."""
    return start * (1 - epoch / num_epochs) ** power
