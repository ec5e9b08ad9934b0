"""Read the configuration file: every problem in one go, and the defaults without a file."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from datastore import registry
from datastore.dsn import (
    HIDDEN,
    Dsn,
    check_sqlite_parameters,
    is_server,
    redact,
    sqlite_path,
    to_target,
)
from datastore.dsn.names import find_nearest
from datastore.errors import ConfigError, Problem, UnusableDsn
from datastore.schema import SERVER_KEYS, UPSTREAM_KEYS, Config

logger = logging.getLogger(__name__)

_LONGEST_VALUE: Final = 60
_SECRET_NAME: Final = re.compile(
    r"pass(word|wd|phrase)?|pwd|secret|token|data_?source$", re.IGNORECASE
)
_STORAGE_FLAGS: Final = frozenset({
    "etcd-servers", "etcd-prefix", "etcd-cafile", "etcd-certfile", "etcd-keyfile",
})  # fmt: skip
_K0S_ONLY: Final = frozenset({
    "ca", "calico", "controlPlaneLoadBalancing", "dualStack", "enabled", "etcdUser", "extensions",
    "featureGates", "images", "k0sApiPort", "konnectivity", "konnectivityUser",
    "kubeAPIserverUser", "kubeProxy", "kubeSchedulerUser", "kuberouter",
    "nodeLocalLoadBalancing", "onlyBindToAddress", "podSecurityPolicy", "provider", "rawArgs",
    "telemetry", "workerProfiles",
})  # fmt: skip

# pydantic's words for a type error, in the words of the file's author.
_EXPECTED: Final[Mapping[str, str]] = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "is_instance_of": "must be text",
    "mapping_type": "must be a mapping",
    "missing": "is required",
    "model_type": "must be a mapping",
    "path_type": "must be a file name",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
}


def load(path: Path | None, *, optional: bool = False) -> Config:
    """Read a configuration file; the defaults for None, or for a missing one that is optional.

    Raises:
        ConfigError: the file cannot be read or used.
    """
    if path is None or (optional and not path.exists()):
        return Config()
    try:
        text = path.read_text(encoding="utf-8")
        is_public = bool(path.stat().st_mode & 0o004)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(str(path), [Problem("", "", f"cannot be read: {reason}")]) from None
    except UnicodeDecodeError as error:
        problem = Problem("", "", f"is not UTF-8 text: byte {error.start} does not fit")
        raise ConfigError(str(path), [problem]) from None
    config = parse(text, str(path), directory=path.absolute().parent)
    kine = config.spec.storage.kine
    sources = [one for one in (kine.data_source, kine.listen_data_source) if one]
    if is_public and any(source.has_password for source in sources):
        logger.warning(
            "the configuration file holds a password and every user can read it",
            extra={"file": str(path), "advice": f"chmod 600 {path}, or use passwordFile"},
        )
    return config


def parse(text: str, source: str = "<text>", *, directory: Path | None = None) -> Config:
    """Check a configuration; relative file names in it are taken from `directory`.

    Raises:
        ConfigError: all problems; none of them shows a secret.
    """
    raw = _yaml(text, source)
    problems = []
    config = Config()
    try:
        config = Config.model_validate(raw, context={"directory": directory or Path.cwd()})
    except ValidationError as error:
        problems = list(_problems(error))
    problems += _cross_checks(raw if isinstance(raw, dict) else {})
    if problems:
        # The validation error holds the raw input: it must not be chained.
        raise ConfigError(source, problems)
    return config


def example() -> str:
    """Return a commented configuration that means the defaults."""
    return resources.files("datastore").joinpath("example.yaml").read_text(encoding="utf-8")


def explicit_binaries(config: Config) -> Mapping[str, Path]:
    """Return the programs whose paths the configuration names."""
    spec = config.spec
    named = {
        "kube-apiserver": spec.api.binary,
        "kube-controller-manager": spec.controller_manager.binary,
        "kube-scheduler": spec.scheduler.binary,
        "etcd": spec.storage.etcd.binary,
        "kine": spec.storage.kine.binary,
    }
    # A bare name (`kine`) asks for the usual search.
    return {name: Path(path) for name, path in named.items() if path and "/" in path}


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, which YAML forbids and PyYAML takes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                what = "given twice" if isinstance(key, Hashable) else "not a plain key"
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} is {what}",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _yaml(text: str, source: str) -> object:
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        # str(error) quotes the line, which may hold a password.
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = f"not valid YAML: {error.problem}"
        raise ConfigError(source, [Problem(where, "", reason)]) from None
    except yaml.YAMLError as error:
        reason = f"not valid YAML: {str(error).partition(chr(10))[0]}"
        raise ConfigError(source, [Problem("", "", reason)]) from None
    return {} if raw is None else raw


def _problems(error: ValidationError) -> Iterator[Problem]:
    details = error.errors(include_url=False)
    places = [item["loc"] for item in details]
    for item in details:
        place = item["loc"]
        # An invalid element already tells why the list counts as empty.
        is_echo = item["type"] == "too_short" and any(
            other[: len(place)] == place and other != place for other in places
        )
        if not is_echo:
            yield _problem(item)


def _problem(item: ErrorDetails) -> Problem:
    place = [part for part in item["loc"] if part != "[key]"]
    path = _dotted(place)
    name = str(place[-1]) if place else ""
    value = "" if item["type"] in {"missing", "is_instance_of"} else _shown(name, item["input"])
    if item["type"] == "extra_forbidden":
        if name in _K0S_ONLY:
            return Problem(path, "", "k0s has this key, byre does not; leave it out")
        return Problem(path, value, "unknown key", find_nearest(name, _keys_at(place[:-1])))
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return Problem(path, value, str(context["error"]))
    if item["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        expected = f"must be {' or '.join(choices)}"
        return Problem(path, value, expected, find_nearest(str(item["input"]), choices))
    if item["type"] in {"greater_than_equal", "less_than_equal"}:
        bound = f"at least {context['ge']}" if "ge" in context else f"at most {context['le']}"
        return Problem(path, value, f"must be {bound}")
    return Problem(path, value, _EXPECTED.get(item["type"], item["msg"].lower()))


def _cross_checks(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Check what spans several keys, on the raw file so that one wrong key hides nothing."""
    storage = _mapping(raw, "spec", "storage")
    kine, external = _mapping(storage, "kine"), _mapping(storage, "etcd", "externalCluster")
    # k0s's default type is etcd, byre's is kine with SQLite: nobody should have to guess.
    if "etcd" in storage and "type" not in storage:
        yield Problem("spec.storage.type", "", "is required beside an etcd section: etcd or kine")
    files = ["caFile", "clientCertFile", "clientKeyFile"]
    lacking = [name for name in files if not external.get(name)]
    if 0 < len(lacking) < len(files):
        yield Problem(
            "spec.storage.etcd.externalCluster",
            "",
            f"{', '.join(files)} must be given together; missing: {', '.join(lacking)}",
        )
    yield from _kine_checks(kine)
    taken = sorted(map(str, _STORAGE_FLAGS & set(_mapping(raw, "spec", "api", "extraArgs"))))
    for flag in taken:
        yield Problem(f"spec.api.extraArgs.{flag}", "", "is decided by spec.storage; leave it out")


def _kine_checks(kine: Mapping[str, Any]) -> Iterator[Problem]:
    for keys in (
        ("dataSource", "dataSourceFile"),
        ("passwordFile", "passwordEnv", "passwordCommand"),
    ):
        given = [key for key in keys if kine.get(key)]
        if len(given) > 1:
            yield Problem("spec.storage.kine", "", f"{' and '.join(given)} exclude each other")
    upstream = bool(kine.get("binary"))
    for key in SERVER_KEYS if upstream else ():
        if kine.get(key) and key not in UPSTREAM_KEYS:
            advice = "is for byre's own server; upstream kine takes everything in dataSource"
            yield Problem(f"spec.storage.kine.{key}", "", advice)
    source = kine.get("dataSource")
    if isinstance(source, str):
        dsn = Dsn(source.strip())
        if not upstream:
            yield from _scheme_problem(dsn)
        yield from _data_source_problem(dsn, upstream=upstream)


def _scheme_problem(dsn: Dsn) -> Iterator[Problem]:
    known = registry.schemes()
    if not dsn.scheme or dsn.scheme in known:
        return
    path = "spec.storage.kine.dataSource"
    if dsn.scheme in {"http", "https", "unix", "unixs"}:
        advice = "is an etcd; use spec.storage.type: etcd with etcd.externalCluster.endpoints"
        yield Problem(path, str(dsn), advice)
        return
    expected = f"{dsn.scheme} is not supported yet; supported: {', '.join(known)}"
    advice = ", or any of kine's with spec.storage.kine.binary"
    yield Problem(path, str(dsn), expected + advice, find_nearest(dsn.scheme, known))


def _data_source_problem(dsn: Dsn, *, upstream: bool) -> Iterator[Problem]:
    """Check what a data source says; kine's parameters are kine's business."""
    try:
        if dsn.scheme == "sqlite":
            sqlite_path(dsn, Path("/"))
            if not upstream:
                check_sqlite_parameters(dsn)
        elif is_server(dsn) and not upstream:
            to_target(dsn)
    except UnusableDsn as error:
        yield Problem("spec.storage.kine.dataSource", "", str(error))


def _mapping(raw: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        below = raw.get(key)
        raw = below if isinstance(below, dict) else {}
    return raw


def _keys_at(place: Sequence[int | str]) -> Sequence[str]:
    model: type[BaseModel] = Config
    for part in place:
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        kind = fields[str(part)].annotation if str(part) in fields else None
        choices = [kind, *getattr(kind, "__args__", ())]
        below = [one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)]
        if not below:
            return []
        model = below[0]
    return [info.alias or name for name, info in model.model_fields.items()]


def _shown(name: str, value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = redact(str(value))
    # A DSN shows its harmless part; anything else under such a name shows nothing.
    if _SECRET_NAME.search(name) and not Dsn(text).scheme:
        return HIDDEN
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _dotted(place: Sequence[int | str]) -> str:
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f"{'.' if path else ''}{part}"
    return path
