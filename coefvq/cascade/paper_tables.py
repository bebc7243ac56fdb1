"""The tables of the COEF-VQ paper as data, in percent, typed as printed.

Source: Dong, Jia, Xiong, "COEF-VQ: Cost-Efficient Video Quality Understanding through a Cascaded Multimodal
LLM Framework", section 3.2. Table 1: models alone. Table 2: the cascade; "QPS Ratio" is MLLM calls per 100
videos, and the row without a P_base is the MLLM on every video. Tables 3 to 6 (section 3.3) are about UCC; they
have no R@P90, and Table 6 replaces Whisper-small by Whisper-base.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TARGETS = (60.0, 70.0, 80.0, 90.0)
#: half of the last printed digit: F1 and recalls carry one decimal
ROUNDING = 0.05


@dataclass(frozen=True)
class ModelRow:
    """One line of a table of models; ``recalls`` are R@P60 … R@P90, or end at R@P80."""

    name: str
    f1: float
    recalls: tuple[float, ...]

    def recall_at(self) -> dict[float, float]:
        """P -> R@P, both in percent."""
        return dict(zip(TARGETS, self.recalls, strict=False))


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

ABLATIONS: Mapping[str, tuple[ModelRow, ...]] = {
    "3": (
        ModelRow("Early fusion", 79.9, (93.2, 88.2, 78.7)),
        ModelRow("Late fusion", 80.5, (92.3, 87.8, 79.3)),
    ),
    "4": (
        ModelRow("0, 0", 65.6, (69.7, 60.3, 48.2)),
        ModelRow("2, 4", 79.7, (92.4, 86.9, 79.5)),
        ModelRow("8, 16", 79.9, (92.8, 87.4, 77.3)),
        ModelRow("32, 64", 80.5, (92.3, 87.8, 79.3)),
        ModelRow("128, 256", 79.7, (92.6, 86.8, 79.1)),
        ModelRow("512, 1024", 79.6, (92.7, 88.6, 78.8)),
    ),
    "5": (
        ModelRow("20 %, base", 73.5, (85.2, 77.4, 64.1)),
        ModelRow("20 %, MLLM", 77.8, (90.6, 84.3, 74.4)),
        ModelRow("40 %, base", 74.5, (86.3, 78.5, 67.4)),
        ModelRow("40 %, MLLM", 78.4, (91.1, 86.1, 76.1)),
        ModelRow("60 %, base", 76.3, (87.9, 81.8, 72.2)),
        ModelRow("60 %, MLLM", 79.5, (91.6, 87.1, 78.0)),
        ModelRow("100 %, base", 77.6, (89.8, 84.5, 74.8)),
        ModelRow("100 %, MLLM", 80.5, (92.3, 87.8, 79.3)),
    ),
    "6": (
        ModelRow("MLLM", 80.5, (92.3, 87.8, 79.3)),
        ModelRow("w/o Whisper", 78.8, (92.3, 86.5, 76.1)),
        ModelRow("w/o video text", 78.7, (91.9, 84.8, 77.2)),
        ModelRow("smaller Whisper", 79.7, (92.4, 88.3, 77.9)),
    ),
}


def paper_figures(table: str, issue: str, name: str) -> dict[str, float]:
    """Figures of one row of a table of models, in percent, by the keys of a summary (``f1``, ``r_at_p60``).

    Empty where the paper has no such row. Table 1 knows the names base, SigLIP and MLLM.
    """
    if table == "1" and issue in PAPER:
        both = PAPER[issue]
        rows = {"base": both.base, "SigLIP": both.siglip, "MLLM": both.mllm}
    else:
        rows = {row.name: row for row in ABLATIONS.get(table, ()) if issue == "ucc"}
    row = rows.get(name)
    if row is None:
        return {}
    return {"f1": row.f1, **{f"r_at_p{target:g}": value for target, value in row.recall_at().items()}}


def paper_cascade(issue: str, p_base: float | None) -> dict[str, float]:
    """Figures of one row of Table 2, as :func:`paper_figures`, with ``qps_ratio``; None: the MLLM on every video."""
    if issue not in PAPER:
        return {}
    if p_base is None:
        recalls, ratio = PAPER[issue].mllm.recall_at(), 100.0
    else:
        found = next((row for row in PAPER[issue].cascade if row.p_base == p_base), None)
        if found is None:
            return {}
        recalls, ratio = found.recall_at(), found.qps_ratio
    return {"qps_ratio": ratio, **{f"r_at_p{target:g}": value for target, value in recalls.items()}}
