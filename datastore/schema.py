"""The configuration file as types: k0s's key names where k0s has them, checked strictly."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel

from datastore.dsn import Dsn
from datastore.dsn.parse import check_prefix, check_schema

KUBERNETES_VERSION: Final = "1.37.2"


class Section(BaseModel):
    """A mapping of the file; unknown keys are refused and values never show in an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        # `storage:` with nothing below it is null in YAML and means the defaults.
        return {} if value is None else value


def _argument_text(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return value


def _argument_name(name: str) -> str:
    if name.startswith("-"):
        raise ValueError(f"must be written without leading dashes: {name.lstrip('-')}")
    if not name or "=" in name or any(character.isspace() for character in name):
        raise ValueError("must be the name of a flag")
    return name


Arguments = Mapping[
    Annotated[str, AfterValidator(_argument_name)],
    Annotated[str, BeforeValidator(_argument_text)],
]


def _host(value: str) -> str:
    if not value or "/" in value or any(character.isspace() for character in value):
        raise ValueError("must be an IP address or a host name, without scheme or port")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("must be an IP address") from None


def _network(value: str) -> str:
    try:
        return ",".join(str(ipaddress.ip_network(part.strip())) for part in value.split(","))
    except ValueError:
        raise ValueError("must be a network such as 10.96.0.0/12") from None


def _version(value: str) -> str:
    parts = value.removeprefix("v").split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        raise ValueError(f"must be a version such as {KUBERNETES_VERSION}")
    return value.removeprefix("v")


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme == "unix" and parts.path:
        return value
    try:
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port
    except ValueError:
        fits = False
    if not fits or parts.path not in {"", "/"} or parts.query:
        raise ValueError("must be a URL such as https://10.0.0.5:2379")
    if parts.username is not None:
        raise ValueError("must not hold credentials; etcd takes client certificates")
    return value.rstrip("/")


def _prefix(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must begin with a slash")
    return value


def _beside_the_configuration(value: Path, info: ValidationInfo) -> Path:
    """Take a relative file name from the directory that the configuration file is in."""
    context: Mapping[str, Path] = info.context or {}
    return context.get("directory", Path()) / value


def _data_source(value: object) -> object:
    if not isinstance(value, str):
        return value
    dsn = Dsn(value.strip())
    if not dsn.scheme:
        raise ValueError("must be a URL such as sqlite:///var/lib/byre/db/state.db")
    return dsn


Host = Annotated[str, AfterValidator(_host)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
Version = Annotated[str, AfterValidator(_version)]
ClientUrl = Annotated[str, AfterValidator(_endpoint)]
DataSource = Annotated[InstanceOf[Dsn], BeforeValidator(_data_source)]
Prefix = Annotated[str, AfterValidator(_prefix)]
TablePrefix = Annotated[str, AfterValidator(check_prefix)]
SchemaName = Annotated[str, AfterValidator(check_schema)]
File = Annotated[Path, AfterValidator(_beside_the_configuration)]
Program = Annotated[str, Field(min_length=1)]
"""A path, or a bare name that byre looks for, downloads or builds."""
Name = Annotated[str, Field(min_length=1)]
TlsModeName = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class ExternalCluster(Section):
    """spec.storage.etcd.externalCluster: an etcd that someone else runs."""

    endpoints: tuple[ClientUrl, ...] = Field(min_length=1)
    etcd_prefix: Prefix = "/registry"
    ca_file: File | None = None
    client_cert_file: File | None = None
    client_key_file: File | None = None


class Etcd(Section):
    """spec.storage.etcd: managed by byre unless externalCluster is given."""

    external_cluster: ExternalCluster | None = None
    peer_address: Address = "127.0.0.1"
    binary: Program | None = None
    extra_args: Arguments = Field(default_factory=dict)


class Kine(Section):
    """spec.storage.kine: a SQL database, served by byre's shim or by upstream kine."""

    data_source: DataSource | None = None
    data_source_file: File | None = None
    listen_data_source: DataSource | None = None
    prefix: TablePrefix | None = None
    # A field called schema would hide one of pydantic's.
    schema_name: SchemaName | None = Field(default=None, alias="schema")
    ca_file: File | None = None
    client_cert_file: File | None = None
    client_key_file: File | None = None
    tls_mode: TlsModeName | None = None
    password_file: File | None = None
    password_env: Name | None = None
    password_command: tuple[str, ...] | None = Field(default=None, min_length=1)
    binary: Program | None = None
    extra_args: Arguments = Field(default_factory=dict)


SERVER_KEYS: Final = (
    "listenDataSource", "prefix", "schema", "caFile", "clientCertFile", "clientKeyFile", "tlsMode",
    "passwordFile", "passwordEnv", "passwordCommand",
)  # fmt: skip
"""Keys of spec.storage.kine that say how a database server is reached."""

UPSTREAM_KEYS: Final = ("caFile", "clientCertFile", "clientKeyFile")
"""Those of them that upstream kine can be told."""


class Storage(Section):
    """spec.storage."""

    type: Literal["kine", "etcd"] = "kine"
    etcd: Etcd = Field(default_factory=Etcd)
    kine: Kine = Field(default_factory=Kine)


class Api(Section):
    """spec.api: kube-apiserver."""

    address: Address | None = None
    external_address: Host | None = None
    port: int = Field(default=6443, ge=1, le=65535, strict=True)
    sans: tuple[Host, ...] = ()
    binary: Program | None = None
    extra_args: Arguments = Field(default_factory=dict)


class Component(Section):
    """spec.controllerManager and spec.scheduler."""

    binary: Program | None = None
    extra_args: Arguments = Field(default_factory=dict)


class ClusterNetwork(Section):
    """spec.network."""

    service_cidr: Network = Field(default="10.96.0.0/12", alias="serviceCIDR")
    pod_cidr: Network = Field(default="10.244.0.0/16", alias="podCIDR")
    cluster_domain: Host = "cluster.local"


class Kubernetes(Section):
    """spec.kubernetes: which release the binaries are."""

    version: Version = KUBERNETES_VERSION


class Users(Section):
    """spec.installConfig.users: who owns the processes when byre is root."""

    kine_user: Name | None = None


class InstallConfig(Section):
    """spec.installConfig."""

    users: Users = Field(default_factory=Users)


class Spec(Section):
    """spec."""

    api: Api = Field(default_factory=Api)
    controller_manager: Component = Field(default_factory=Component)
    scheduler: Component = Field(default_factory=Component)
    network: ClusterNetwork = Field(default_factory=ClusterNetwork)
    kubernetes: Kubernetes = Field(default_factory=Kubernetes)
    storage: Storage = Field(default_factory=Storage)
    install_config: InstallConfig = Field(default_factory=InstallConfig)


class Config(Section):
    """The whole file; apiVersion, kind and metadata are k0s's and mean nothing here."""

    api_version: str = ""
    kind: str = ""
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    spec: Spec = Field(default_factory=Spec)
