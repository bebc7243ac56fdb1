"""Every error a user can cause, as one tree.

    CoefVQError                 exit code 1; also an error of ours that nobody foresaw
    ├── ConfigError             2   params.yaml: unknown key, wrong type, unreadable file
    ├── DataError               3   a file, row or column of the user's data
    │   ├── MediaError          3   one clip cannot be probed or decoded
    │   ├── ValidationFailedError    4   the manifest does not meet its expectations
    │   ├── SplitError          3   a split would be empty or hold one class only
    │   ├── ScoresError         3   columns given to the stand-alone estimator do not fit
    │   └── InfeasibleError     3   no pair of thresholds meets the constraints
    ├── ModelError              5   weights or a saved model do not fit
    │   └── MLLMUnavailableError    5   the MLLM does not answer now
    ├── RegistryError           6   tracking store, aliases, approvals
    ├── StorageError            7   a disk is full, a file may not be read or written
    └── TrainingError           8   a training cannot go on: loss, checkpoints, ranks

A message is one line: what (file/row/key), what was expected, what to do. It may quote ids, titles, names and URLs of
strangers: an error holds it clean (``terminal.clean``), so that it may be printed, logged or kept anywhere.
"""

from __future__ import annotations

from coefvq.terminal import clean


class CoefVQError(Exception):
    """Base class; ``exit_code`` is what the command line returns."""

    exit_code = 1

    def __init__(self, *parts: object) -> None:
        super().__init__(*(clean(part) if isinstance(part, str) else part for part in parts))


class ConfigError(CoefVQError):
    """params.yaml is missing, unreadable or does not fit the schema."""

    exit_code = 2


class DataError(CoefVQError):
    """A file, row or column of the data is not usable as given."""

    exit_code = 3


class MediaError(DataError):
    """One clip cannot be probed or decoded; ``reason`` is one word from records.REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SplitError(DataError):
    """A split would be empty or hold one class only."""


class InfeasibleError(DataError):
    """No pair of thresholds meets what was asked; the message says which constraint fails and by how much."""


class ScoresError(DataError, ValueError):
    """Columns given to the stand-alone estimator do not fit; a ValueError too, as scikit-learn expects it."""


class ValidationFailedError(DataError):
    """The manifest does not meet its expectations."""

    exit_code = 4


class ModelError(CoefVQError):
    """Weights, a preset or a saved model do not fit."""

    exit_code = 5


class MLLMUnavailableError(ModelError):
    """The MLLM gives no answer now; the policy's ``mllm_down`` says what becomes of the videos waiting for it."""


class RegistryError(CoefVQError):
    """The tracking store, an alias or an approval refuses the request."""

    exit_code = 6


class StorageError(CoefVQError):
    """A disk is full, or a file may not be read or written; nothing half-written is left."""

    exit_code = 7


class TrainingError(CoefVQError):
    """A training cannot go on: its loss is not finite, its checkpoint is another's, a rank failed."""

    exit_code = 8
