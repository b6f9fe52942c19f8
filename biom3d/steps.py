"""The number of each step: raised by hand when what the step computes changes.

A new version of ours changes no result by itself; one that changes the numbers of a step raises its number here, and
says so in CHANGELOG.md. The workflow then makes that step's results anew, but never trains again by itself: it says
which models were made by which number. `tests/test_step_numbers.py` fails when a step's figures change and its
number does not.
"""

NUMBERS = {
    "check": 1,
    "preprocess": 1,
    "train": 1,
    "pred": 1,
    "eval": 2,  # means by kinds of scores
    "quality": 1,
    "export labels": 1,
    "export model": 2,  # with who made it
    "report curves": 1,
    "report overlay": 1,
    "report summary": 2,  # kinds of scores
}
