"""Logged models: a folder plus a small source file, written and read without pickle.

No ``from __future__ import annotations`` here: MLflow reads the hints of ``serve``'s predict as objects.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from coefvq.errors import DataError, RegistryError
from coefvq.files import inside, read_yaml
from coefvq.registry.store import user_cache
from coefvq.registry.tracking.session import client, or_none, quiet, store_errors
from coefvq.version import __version__

_RESTORE = "restore the store"
_SOURCE = Path(__file__).parents[1] / "served_model.py"


def log_pyfunc(name: str, artifacts: Mapping[str, Path], outputs: tuple[str, ...], tags: Mapping[str, str]) -> str:
    import mlflow

    with quiet(), store_errors():
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(_SOURCE),
            # as URIs: MLflow would take a folder's "%25" or "?" for URI syntax
            artifacts={key: path.resolve().as_uri() for key, path in artifacts.items()},
            signature=_signature(outputs),
            pip_requirements=[f"coefvq=={__version__}"],
            tags=dict(tags),
        )
    return str(info.model_id)


_COLUMN_TYPES = {"positive": "boolean", "base_score": "double", "mllm_score": "double", "score": "double"}


def _signature(outputs: tuple[str, ...]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    inputs = [
        ColSpec("string", "path"),
        ColSpec("string", "video_id", required=False),
        ColSpec("string", "title", required=False),
        ColSpec("string", "stickers", required=False),
        # integers, or floats where an unknown count made them so; MLflow's own number types take one of both
        ColSpec(AnyType(), "views", required=False),
    ]
    types = {name: "double" for name in outputs if name.startswith("score_")} | _COLUMN_TYPES
    columns = [ColSpec(types.get(name, "string"), name, required=False) for name in outputs]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(columns))


def model_artifact(model_id: str, key: str, cache_dir: Path | None = None) -> Path:
    """Local path of an artifact ("model" or "pair") of a logged model.

    A local store is read in place; from a server the artifacts are fetched once into ``cache_dir``
    (default: the user's cache), named by the model id, which is never reused.

    Raises:
        RegistryError: the model or its files are gone, or the store does not answer.
    """
    uri = f"models:/{model_id}"
    with store_errors(uri):
        try:
            root = _fetched(uri, model_id, cache_dir) if _remote() else _folder(uri)
            # read here: MLflow's own loader would take a "?" or "%25" in the path for URI syntax
            described = read_yaml(root / "MLmodel", missing=_RESTORE, remedy=_RESTORE, error=DataError)
            relative = str(described["flavors"]["python_function"]["artifacts"][key]["path"])
        except (KeyError, TypeError, OSError, DataError) as error:
            raise RegistryError(f"{uri}: its files are missing or damaged ({error}); {_RESTORE}") from error
    return inside(root, relative)


def has_model(model_id: str, key: str) -> bool:
    """Whether a logged model is there; in a local store its files, too. Nothing is read but its description.

    Raises:
        RegistryError: the store does not answer.
    """
    if or_none(lambda: client().get_logged_model(model_id)) is None:
        return False
    if _remote():
        return True
    try:
        return bool(model_artifact(model_id, key).exists())
    except RegistryError:
        return False


def _remote() -> bool:
    import mlflow

    return str(mlflow.get_tracking_uri()).startswith("http")


def _folder(uri: str) -> Path:
    import mlflow

    folder = Path(unquote(urlsplit(mlflow.get_logged_model(uri.removeprefix("models:/")).artifact_location).path))
    if not folder.is_dir():
        raise RegistryError(f"{uri}: its files are gone ({folder} does not exist); restore that folder from a backup")
    return folder


def _fetched(uri: str, model_id: str, cache_dir: Path | None) -> Path:
    import mlflow

    target = (cache_dir or user_cache() / "models") / model_id
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent, prefix=f".{model_id}.") as folder:
            fetched = Path(folder) / "model"
            fetched.mkdir()
            mlflow.artifacts.download_artifacts(uri, dst_path=str(fetched))
            # complete or absent: a killed process leaves no half, and of two at once one wins
            try:
                fetched.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    return target


def serve(open_model: Callable[[Mapping[str, Path]], Callable[[Any], Any]]) -> None:
    """Tell MLflow, from within served_model.py, what that file serves.

    Args:
        open_model: given the artifacts by name, returns the function from input to output DataFrame.
    """
    import mlflow
    import pandas as pd

    with quiet():
        from mlflow.pyfunc import PythonModel

    class Served(PythonModel):
        def load_context(self, context: Any) -> None:
            self._predict = open_model({name: Path(path) for name, path in context.artifacts.items()})

        # without the hint MLflow prints advice; with this one it still goes by the explicit signature
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return self._predict(model_input)

    mlflow.models.set_model(Served())
