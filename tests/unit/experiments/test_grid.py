"""The grid that ships: it parses, names exist, teachers come before their pupils."""

from __future__ import annotations

import copy

import pytest
import yaml

from coefvq.cascade.paper_tables import ABLATIONS, paper_figures
from coefvq.errors import ConfigError
from coefvq.experiments.grid import Cell, cells_of, parse_grid, shipped_grid, table_seeds
from coefvq.shipped_recipes import RECIPES


@pytest.fixture(scope="module")
def raw(repository):
    return yaml.safe_load((repository / "coefvq" / "experiments" / "grid.yaml").read_text(encoding="utf-8"))


def test_the_six_tables_and_all_recipes():
    grid = shipped_grid()
    assert tuple(grid.tables) == ("1", "2", "3", "4", "5", "6")
    assert set(grid.data) == set(RECIPES)
    assert grid.chosen("all") == tuple(grid.tables)
    assert grid.chosen("2") == ("2",)
    with pytest.raises(ConfigError, match=r"tables '7': unknown table; expected one of 1, 2, 3, 4, 5, 6 or all"):
        grid.chosen("7")


def test_a_table_has_each_cell_once():
    cells = cells_of(shipped_grid().tables["2"], ("icd", "ucc"), (0, 1))
    assert len(set(cells)) == len(cells) == 16
    assert Cell("distilled", "icd", 1) in cells


def test_every_row_of_the_paper_that_is_named_exists_and_none_of_its_ablations_is_forgotten():
    named = {}
    for number, table in shipped_grid().tables.items():
        for row in table.rows:
            if row.paper is not None:
                assert paper_figures(number, table.issues[-1], row.paper), (number, row.paper)
                named.setdefault(number, set()).add(row.paper)
    left = {number: {row.name for row in rows} - named[number] for number, rows in ABLATIONS.items()}
    # the largest rank is optional
    assert left == {"3": set(), "4": {"512, 1024"}, "5": set(), "6": set()}


def test_the_paper_s_row_is_as_the_paper_says():
    changes = shipped_grid().models["mllm-paper"].changes("icd", "starter")
    assert (changes["fusion"], changes["pooling"], changes["audio"]) == ("late", "last", False)
    assert (changes["lora"], changes["alignment"], changes["description_weight"]) == (
        {"rank": 32, "alpha": 64},
        None,
        0,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda grid: grid["tables"]["1"]["rows"][0].update(model="none"), "model 'none' is not in models"),
        (lambda grid: grid["tables"]["3"]["claims"][0].update(better="none"), "claim about 'none'"),
        (lambda grid: grid["tables"]["3"].update(colour="red"), "tables.3.colour"),
        (lambda grid: grid["models"]["base-20"].update(train_share=1.5), r"models.base-20.train_share"),
        (
            lambda grid: grid["models"]["base"].update(shared=True),
            "shared is for an MLLM that learns from all of train",
        ),
        (lambda grid: grid["models"]["mllm-20"].update(shared=True), "shared is for an MLLM"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(raw, change, message):
    damaged = copy.deepcopy(raw)
    change(damaged)
    with pytest.raises(ConfigError, match=message):
        parse_grid(damaged)


def test_seeds_are_the_grid_s_unless_asked_for():
    grid = shipped_grid()
    assert len(table_seeds(grid.tables["1"], grid.data["starter"], None)) == 1
    assert len(table_seeds(grid.tables["1"], grid.data["starter"], 3)) == 3
    assert len(table_seeds(grid.tables["4"], grid.data["starter"], None)) == 1
    assert len(table_seeds(grid.tables["4"], grid.data["starter"], 2)) == 2
