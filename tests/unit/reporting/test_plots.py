"""Rows for dvc plots, the picture, and the offline page."""

import io
import json
import re
from hashlib import sha256
from importlib.resources import files

import numpy as np
import pytest
from dvc_render.html import render_html
from dvc_render.vega import VegaRenderer
from PIL import Image

from coefvq.evaluation.metrics import precision_recall_points
from coefvq.evaluation.report import cascade_report
from coefvq.reporting.plots import (
    MAX_ROWS,
    frontier_rows,
    pr_curve_rows,
    pr_curves,
    result_figure,
    score_histogram_rows,
    write_result_figure,
)
from coefvq.reporting.plots_template import LIBRARIES, offline_template, series_template
from tests.unit.scored_world import scores_table

SCORES = scores_table(n=600)
CASCADE = cascade_report(SCORES, "icd", (20.0, 30.0, 50.0), 0.03, None, (60.0, 80.0))


def of(rows: list[dict], series: str) -> list[dict]:
    return [row for row in rows if row["series"] == series]


@pytest.mark.parametrize(
    "rows",
    [
        pr_curve_rows(SCORES),
        pr_curve_rows(SCORES, CASCADE),
        frontier_rows(SCORES),
        frontier_rows(SCORES, CASCADE),
        score_histogram_rows(SCORES),
    ],
)
def test_rows_are_json_with_one_set_of_keys_and_bounded(rows) -> None:
    # DVC drops a file whose rows differ in their keys
    assert len({tuple(row) for row in rows}) == 1
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for series in {row["series"] for row in rows}:
        assert len(of(rows, series)) <= MAX_ROWS


def test_pr_rows_keep_the_ends_of_the_curve() -> None:
    rows = pr_curve_rows(SCORES, CASCADE)
    assert list(dict.fromkeys(row["series"] for row in rows)) == ["base", "mllm", "cascade", "bayes"]
    test = SCORES[SCORES["split"] == "test"]
    curve = precision_recall_points(test["posterior"], test["mllm"])
    drawn = of(rows, "mllm")
    assert drawn[0]["threshold"] == curve.threshold[0]
    assert (drawn[-1]["threshold"], drawn[-1]["recall"]) == (curve.threshold[-1], 100.0)


def test_yardsticks_other_than_the_full_bound_stay_out_of_the_picture() -> None:
    scores = SCORES.assign(shortcut=0.5, posterior_vision=0.5, posterior_vision_text=0.5)
    assert pr_curve_rows(scores, CASCADE) == pr_curve_rows(SCORES, CASCADE)


def test_the_cascade_curve_ends_at_its_ceiling() -> None:
    entry = next(entry for entry in CASCADE["policies"] if entry["selected"])
    scores = SCORES.assign(posterior=np.nan)
    last = of(pr_curve_rows(scores, CASCADE), "cascade")[-1]
    assert last["recall"] == pytest.approx(100 * entry["base_recall_test"])
    assert "bayes" not in pr_curves(scores)


def test_policies_are_points_on_the_frontier() -> None:
    rows = frontier_rows(SCORES, CASCADE)
    points = [row for row in rows if row["mark"] == "point"]
    assert [row["series"] for row in points].count("chosen") == 1
    assert len(points) == 3
    shares = [row["qps_ratio"] for row in of(rows, "F1")]
    assert shares == sorted(shares)
    assert shares[-1] == 100.0
    for point in points:
        assert point["value"] <= max(row["value"] for row in of(rows, "F1")) + 1e-9
    assert {row["series"] for row in frontier_rows(SCORES)} == {"F1", "R@P60"}


def test_histogram_shares_add_up_per_class() -> None:
    rows = score_histogram_rows(SCORES, bins=7)
    for series in ("base, positive", "base, negative", "mllm, positive", "mllm, negative"):
        assert len(of(rows, series)) == 7
        assert sum(row["share"] for row in of(rows, series)) == pytest.approx(100.0)


def test_picture_is_a_png_of_the_promised_size_with_equal_bytes(tmp_path) -> None:
    picture = result_figure(SCORES, CASCADE)
    image = Image.open(io.BytesIO(picture))
    assert (image.format, image.size) == ("PNG", (1800, 810))
    # only the resolution: neither version nor time
    assert set(image.info) == {"dpi"}
    # both panels are drawn: the cascade's green on the left and on the right
    green = (np.asarray(image.convert("RGB"), int) == [0x00, 0x9E, 0x73]).all(axis=2)
    assert green[:, :900].sum() > 500
    assert green[:, 900:].sum() > 500
    write_result_figure(SCORES, CASCADE, tmp_path / "result.png")
    assert (tmp_path / "result.png").read_bytes() == picture


def test_picture_of_a_cascade_without_reachable_policy() -> None:
    scores = SCORES.assign(base=1.0 - SCORES["base"], posterior=np.nan)
    report = cascade_report(scores, "icd", (90.0,), 0.03, None, ())
    assert report["selected"] is None
    assert result_figure(scores, report).startswith(b"\x89PNG")


def test_offline_page_has_what_dvc_fills_and_loads_nothing() -> None:
    page = offline_template()
    assert re.findall(r"\{(plot_divs|refresh_tag|scripts)\}", page) == ["refresh_tag", "plot_divs"]
    assert not re.findall(r"<script[^>]*\ssrc=|<link|@import|sourceMappingURL", page)
    starts = [page.index(f'<script data-library="{name}">') for name in ("vega", "vega-lite", "vega-embed")]
    assert starts == sorted(starts)
    # a library that closed its own element would spill over the page
    assert page.count("<script") == page.count("</script>") == len(LIBRARIES) + 1
    assert "Redistributions in binary form" in page


def test_dvc_fills_page_and_template(tmp_path) -> None:
    (tmp_path / "series.json").write_text(json.dumps(series_template()), encoding="utf-8")
    (tmp_path / "offline.html").write_text(offline_template(), encoding="utf-8")
    rows = [{**row, "rev": "workspace"} for row in pr_curve_rows(SCORES, CASCADE)]
    renderer = VegaRenderer(
        rows, "curve", template="series", template_dir=tmp_path, x="recall", y="precision", title="a title"
    )
    render_html([renderer], tmp_path / "index.html", html_template=tmp_path / "offline.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    drawn = re.search(r"var spec = (.*);\n", page)
    assert drawn is not None
    spec = json.loads(drawn[1])
    assert spec["data"]["values"] == rows
    assert (spec["title"], spec["encoding"]["y"]["field"]) == ("a title", "precision")
    assert not re.findall(r"<DVC_METRIC|\{plot_divs\}|\{refresh_tag\}|cdn\.jsdelivr", page)


def test_vendored_files_are_the_published_ones_and_small() -> None:
    folder = files("coefvq") / "vendor" / "vega"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for name in LIBRARIES:
        content = (folder / f"{name}.min.js").read_bytes()
        assert len(content) < 2**20
        assert f"`{sha256(content).hexdigest()}`" in readme


def test_series_template_holds_the_anchors_and_fields_of_our_rows() -> None:
    text = json.dumps(series_template())
    anchors = set(re.findall(r"<DVC_METRIC_(\w+)>", text))
    assert anchors == {"DATA", "TITLE", "X", "Y", "X_LABEL", "Y_LABEL"}
    marks = {row["mark"] for row in frontier_rows(SCORES, CASCADE)}
    assert marks == set(re.findall(r"datum\.mark === '(\w+)'", text))


def test_policies_on_one_point_share_a_label() -> None:
    from coefvq.reporting.plots import _by_place

    entries = [
        {"p_base": p_base, "qps_ratio_val": ratio, "val": {"f1": 0.5}}
        for p_base, ratio in ((30, 40.0), (40, 40.0), (50, 20.0))
    ]
    assert [[entry["p_base"] for entry in group] for group in _by_place(entries).values()] == [[30, 40], [50]]
