"""Which feature stores a stream asks, as settings (docs/engines.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from coefvq.config.reading import validated
from coefvq.config.values import Section
from coefvq.documents import parse_yaml
from coefvq.errors import ConfigError
from coefvq.files import read_text
from coefvq.vmp.features.values import KINDS, Kind
from coefvq.vmp.readonly import url_below
from coefvq.vmp.records import STATUS
from coefvq.vmp.rules import FEATURE_NAME, WORDS, Rules, condition_kind, is_feature

_REMEDY = "docs/engines.md has an example"


def _not_status(name: str) -> str:
    if name == STATUS:
        raise ValueError(f"{STATUS!r} says how the store answered; choose another name")
    return name


Name = Annotated[str, Field(pattern=f"^{FEATURE_NAME}$")]
FieldName = Annotated[Name, AfterValidator(_not_status)]
_Sql = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
_Seconds = Annotated[float, Field(gt=0, le=3600)]


class ThriftSource(Section):
    """A service of features.thrift."""

    kind: Literal["thrift"]
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]
    #: connections that are kept open
    pool: Annotated[int, Field(ge=1, le=64)] = 4


class SqlSource(Section):
    """A table of a database, by a URL of SQLAlchemy; the password belongs into ~/.pgpass."""

    kind: Literal["sql"]
    url: Annotated[str, Field(pattern="^(sqlite|postgresql|mysql|mariadb)[+a-z0-9]*://")]
    table: _Sql
    key_column: _Sql
    #: field -> column, where the names differ
    columns: Annotated[dict[str, _Sql], Field(default_factory=dict)]

    def below(self, folder: Path) -> Self:
        """The same with the file of SQLite below a folder."""
        return self.model_copy(update={"url": url_below(self.url, folder)})


class RedisSource(Section):
    """JSON objects under PREFIX + key; with ``behind`` a cache of that source."""

    kind: Literal["redis"]
    url: Annotated[str, Field(pattern="^(redis|rediss|unix)://")]
    #: default: coefvq:NAME: and, for a cache, a digest of its fields
    prefix: Annotated[str, Field(min_length=1)] | None = None
    behind: Annotated[ThriftSource | SqlSource, Field(discriminator="kind")] | None = None
    #: with ``behind``: how long a row is kept, and how long that there is none
    ttl_s: Annotated[int, Field(ge=1)] = 300
    absent_ttl_s: Annotated[int, Field(ge=1)] = 30

    def below(self, folder: Path) -> Self:
        """The same with the file of SQLite behind it below a folder."""
        behind = self.behind.below(folder) if isinstance(self.behind, SqlSource) else self.behind
        return self.model_copy(update={"behind": behind})


Source = Annotated[ThriftSource | SqlSource | RedisSource, Field(discriminator="kind")]


class Store(Section):
    """One store: where it is, which fields it gives, and what happens where it does not."""

    name: Name
    source: Source
    #: the event's field that is looked up; another tenant than the default one stands before it, with U+001F between
    key: Literal["video_id", "creator_id"] = "video_id"
    fields: Annotated[dict[FieldName, Kind], Field(min_length=1)]
    #: mark: rules see it; dead_letter: the video counts as unscored; hold: a store that is down is waited for
    missing: Literal["mark", "dead_letter", "hold"] = "mark"
    deadline_s: _Seconds = 0.5
    #: retries per question, as a share of all questions
    retry_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    #: so many failures in a row stop the questions, for so many seconds
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_seconds: _Seconds = 10.0


class FeatureSettings(Section):
    """All stores of a stream."""

    stores: Annotated[tuple[Store, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [store.name for store in self.stores]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]!r} is used twice")
        return self

    def below(self, folder: Path) -> Self:
        """The same with files below a folder."""
        stores = [
            store if isinstance(store.source, ThriftSource)
            else store.model_copy(update={"source": store.source.below(folder)})
            for store in self.stores
        ]  # fmt: skip
        return self.model_copy(update={"stores": tuple(stores)})

    @property
    def kinds(self) -> dict[str, type]:
        """STORE.FIELD -> type of its value, as rules see it."""
        made: dict[str, type] = {}
        for store in self.stores:
            made |= {f"{store.name}.{field}": KINDS[kind] for field, kind in store.fields.items()}
            made[f"{store.name}.{STATUS}"] = str
        return made


def load_features(path: Path) -> FeatureSettings:
    """Read a features file; relative paths start in its folder.

    Raises:
        ConfigError: it is missing or does not fit; names file, key and remedy.
    """
    text = read_text(path, missing=_REMEDY, remedy=_REMEDY, error=ConfigError, limit=2**20)
    found = validated(FeatureSettings, parse_yaml(text, str(path), _REMEDY, ConfigError), str(path), _REMEDY)
    return found.below(path.parent.resolve())


def check_rules(rules: Rules, features: FeatureSettings | None) -> None:
    """Refuse a rule that names a feature which no store gives, or compares it with a value of another type.

    Raises:
        ConfigError: names rule, feature and what there is.
    """
    kinds: Mapping[str, type] = features.kinds if features else {}
    for rule in rules.rules:
        for condition in rule.when:
            if not is_feature(condition.field):
                continue
            if condition.field not in kinds:
                known = ", ".join(sorted(kinds)) or "none; name the stores with --features FILE"
                raise ConfigError(f"rule '{rule.name}': no store gives {condition.field} (there are: {known})")
            kind = kinds[condition.field]
            if condition.op != "missing" and condition_kind(condition) is not kind:
                raise ConfigError(f"rule '{rule.name}': {condition.field} is {WORDS[kind]}; correct the value")
