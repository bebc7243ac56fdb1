"""Tables 1 and 2 of the COEF-VQ paper as data, in percent, typed as printed.

Source: Dong, Jia, Xiong, "COEF-VQ: Cost-Efficient Video Quality Understanding through a Cascaded Multimodal
LLM Framework", section 3.2. Table 1: models alone. Table 2: the cascade; "QPS Ratio" is MLLM calls per 100
videos, and the row without a P_base is the MLLM on every video.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TARGETS = (60.0, 70.0, 80.0, 90.0)
#: half of the last printed digit: F1 and recalls carry one decimal
ROUNDING = 0.05


@dataclass(frozen=True)
class ModelRow:
    """One line of Table 1; ``recalls`` are R@P60 … R@P90."""

    name: str
    f1: float
    recalls: tuple[float, ...]

    def recall_at(self) -> dict[float, float]:
        """P -> R@P, both in percent."""
        return dict(zip(TARGETS, self.recalls, strict=True))


@dataclass(frozen=True)
class CascadeRow:
    """One line of Table 2; ``digit`` is the last printed digit of the QPS ratio."""

    p_base: float
    qps_ratio: float
    recalls: tuple[float, ...]
    digit: float

    def recall_at(self) -> dict[float, float]:
        """P -> R@P, both in percent."""
        return dict(zip(TARGETS, self.recalls, strict=True))


@dataclass(frozen=True)
class PaperIssue:
    """What both tables say of one issue; ``test_videos`` is the size of the test set (section 3.1.1)."""

    base: ModelRow
    siglip: ModelRow
    mllm: ModelRow
    cascade: tuple[CascadeRow, ...]
    test_videos: int


PAPER: Mapping[str, PaperIssue] = {
    "icd": PaperIssue(
        base=ModelRow("base", 59.1, (57.6, 44.1, 27.9, 20.2)),
        siglip=ModelRow("SigLIP", 64.5, (68.7, 58.3, 42.9, 29.3)),
        mllm=ModelRow("MLLM (w/o audio)", 67.8, (72.4, 62.2, 53.1, 39.4)),
        cascade=(
            CascadeRow(10.0, 4.45, (71.0, 62.4, 52.0, 39.2), 0.01),
            CascadeRow(20.0, 2.06, (70.4, 62.7, 53.1, 38.8), 0.01),
            CascadeRow(30.0, 1.27, (59.6, 57.6, 55.7, 38.6), 0.01),
        ),
        test_videos=100_000,
    ),
    "ucc": PaperIssue(
        base=ModelRow("base", 77.6, (89.8, 84.5, 74.8, 54.1)),
        siglip=ModelRow("SigLIP", 75.8, (87.4, 80.1, 71.1, 51.2)),
        mllm=ModelRow("MLLM", 80.5, (92.3, 87.8, 79.3, 62.2)),
        cascade=(
            CascadeRow(50.0, 16.7, (91.2, 86.9, 79.8, 62.6), 0.1),
            CascadeRow(60.0, 13.3, (89.6, 85.4, 79.9, 62.3), 0.1),
            CascadeRow(70.0, 10.8, (88.4, 83.1, 77.7, 62.8), 0.1),
        ),
        test_videos=18_000,
    ),
}
