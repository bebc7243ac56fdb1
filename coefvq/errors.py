"""Every error a user can cause, as one tree.

    CoefVQError                 exit code 1
    ├── ConfigError             2   params.yaml: unknown key, wrong type, unreadable file
    ├── DataError               3   a file, row or column of the user's data
    │   ├── MediaError          3   one clip cannot be probed or decoded
    │   ├── ValidationFailedError    4   the manifest does not meet its expectations
    │   └── SplitError          3   a split would be empty or hold one class only
    ├── ModelError              5   weights or a saved model do not fit
    └── RegistryError           6   tracking store, aliases, approvals

A message is one line: what (file/row/key), what was expected, what to do.
"""

from __future__ import annotations


class CoefVQError(Exception):
    """Base class; ``exit_code`` is what the command line returns."""

    exit_code = 1


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


class ValidationFailedError(DataError):
    """The manifest does not meet its expectations."""

    exit_code = 4


class ModelError(CoefVQError):
    """Weights, a preset or a saved model do not fit."""

    exit_code = 5


class RegistryError(CoefVQError):
    """The tracking store, an alias or an approval refuses the request."""

    exit_code = 6
