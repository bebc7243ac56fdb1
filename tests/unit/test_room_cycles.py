"""No module imports itself by way of others, lazy imports inside functions included."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


def importers(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return importers(grimp.build_graph("coefvq", "tasks", "flows", cache_dir=None))


def test_no_import_circle(graph: dict[str, set[str]]) -> None:
    TopologicalSorter(graph).prepare()


def test_one_lazy_import_back_is_found(graph: dict[str, set[str]]) -> None:
    back = {**graph, "coefvq.compute.workers": graph["coefvq.compute.workers"] | {"coefvq.compute.ray_engine"}}
    with pytest.raises(CycleError, match="ray_engine"):
        TopologicalSorter(back).prepare()
