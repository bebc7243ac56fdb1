"""What shared towers gave for one group of videos; apart from ``shared``, so that scorers need no torch to exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


@dataclass
class Memo:
    """Outputs by tower and input row, kept while a group of videos is scored; off otherwise.

    ``answers`` are whole models' scores of all their issues [K], by model, clip and text.
    """

    rows: dict[tuple[int, bytes], torch.Tensor] = field(default_factory=dict)
    answers: dict[tuple[int, str, str], npt.NDArray[np.float64]] = field(default_factory=dict)
    open: int = 0

    @contextmanager
    def group(self) -> Iterator[None]:
        """Keep outputs until the outermost block ends."""
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
            if not self.open:
                self.rows.clear()
                self.answers.clear()
