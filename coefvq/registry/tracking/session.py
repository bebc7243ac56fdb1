"""The configured store: choose it, talk to it, turn its errors into ours.

MLflow keeps the current store in a process-wide global, so this module does too. Importing MLflow takes
about 2 s and waits until ``configure``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from coefvq.errors import RegistryError
from coefvq.redaction import redact
from coefvq.registry.store import Store, exclusive, locate

T = TypeVar("T")

#: set before MLflow is imported, and only where the user has not decided otherwise
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # our commands print results for people and scripts; "Creating tables…" lines and progress bars hide them
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # requirements are stated explicitly; a uv.lock that happens to lie here must not replace them
    "MLFLOW_UV_AUTO_DETECT": "false",
    # a server that is down is reported after seconds; the default of 7 retries takes minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_active: tuple[Store, str] | None = None


def configure(uri: str | None, experiment: str) -> Store:
    """Choose the store and the experiment; make both where they do not exist.

    Args:
        uri: None takes MLFLOW_TRACKING_URI, else ``sqlite:///mlflow.db`` of the working directory. A
            local database keeps its artifacts in ``mlartifacts/`` beside itself.
        experiment: where training runs and pairs are logged.

    Raises:
        RegistryError: the URI is not usable, or the store does not answer.
    """
    global _active
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    chosen = locate(uri, environment, Path.cwd())
    with quiet():
        import mlflow

        mlflow.set_tracking_uri(chosen.uri)
        # MLflow also writes the variable, which would outlive this choice and win over the next workspace's default
        _restore("MLFLOW_TRACKING_URI", environment)
        # two processes that make the tables of one new database at once break each other
        with exclusive(chosen):
            experiment_id(experiment, chosen)
    _active = (chosen, experiment)
    return chosen


def store() -> Store:
    """The configured store.

    Raises:
        RegistryError: nothing was configured.
    """
    return _configured()[0]


def experiment() -> str:
    """Name of the configured experiment.

    Raises:
        RegistryError: nothing was configured.
    """
    return _configured()[1]


def client() -> Any:
    """An ``MlflowClient`` of the configured store; wrap its calls in ``store_errors``.

    Raises:
        RegistryError: nothing was configured.
    """
    _configured()
    import mlflow

    return mlflow.MlflowClient()


def _configured() -> tuple[Store, str]:
    if _active is None:
        raise RegistryError("no tracking store is configured; call tracking.configure(uri, experiment) first")
    return _active


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def experiment_id(name: str, where: Store | None = None) -> str:
    """Id of an experiment, made on first use.

    Raises:
        RegistryError: it was deleted, or the store does not answer.
    """
    import mlflow

    root = (where or store()).artifact_root
    with store_errors():
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name, artifact_location=(root / name).as_uri() if root else None))
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"experiment {name} was deleted; restore it: mlflow experiments restore -x {found.experiment_id}"
        )
    return str(found.experiment_id)


@contextmanager
def store_errors(about: str = "") -> Iterator[None]:
    """Turn MLflow's exceptions into one-line RegistryErrors that name the store, and first what it is about."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        lines = redact(str(error)).strip().splitlines() or ["no message"]
        raise RegistryError(
            f"{about and about + ': '}tracking store {redact(mlflow.get_tracking_uri())}: {lines[0][:300]}; "
            "check that it is reachable and not damaged"
        ) from error


def or_none(call: Callable[[], T]) -> T | None:
    """The call's result, None where MLflow says that the thing does not exist."""
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            return call()
        except MlflowException as error:
            if error.error_code in _MISSING:
                return None
            raise


@contextmanager
def quiet() -> Iterator[None]:
    """Silence three warnings of MLflow 3.17 that nobody here can act on.

    Two are about its own code: a loader option that SQLAlchemy deprecates, a type hint. One asks for an input
    example, for which it would load the model, weights included, on every log.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy is deprecated")
        warnings.filterwarnings("ignore", message=r".*Any type hint is inferred as AnyType", category=UserWarning)
        warnings.filterwarnings("ignore", message=r".*An input example was not provided", category=UserWarning)
        yield
