"""From a configuration to the processes that would run: values only, nothing is started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from datastore.launch import ProcessSpec
from datastore.paths import Paths
from datastore.registry import Datastore
from datastore.resolve import resolve
from datastore.schema import Config
from supervisor import apiserver, controllers
from supervisor.certificates import ClusterPki, api_url


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one byre runs, in the order of its start."""

    datastore: Datastore
    stores: Sequence[ProcessSpec]
    components: Sequence[ProcessSpec]
    api_url: str

    @property
    def processes(self) -> Sequence[ProcessSpec]:
        """All of them: the datastore's first."""
        return (*self.stores, *self.components)


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP address that a component will bind."""

    component: str
    host: str
    port: int


def component_names(datastore: Datastore, *, single: bool) -> Sequence[str]:
    """Return the Kubernetes components that run on this controller.

    Controllers that share a store are equals: each runs everything, and leaders are elected.
    """
    if single or datastore.shared:
        return (apiserver.NAME, controllers.CONTROLLER_MANAGER, controllers.SCHEDULER)
    return (apiserver.NAME,)


def make_plan(
    config: Config, paths: Paths, *, single: bool, binary: Callable[[str], Path] = Path
) -> Plan:
    """Return what would run.

    Args:
        config: The user's choices.
        paths: Where the files are.
        single: Whether the controllers and the scheduler run beside a store that only this
            controller has; on a store that others may share they always do, and elect leaders.
        binary: Finds an executable by its name.
    """
    datastore = resolve(config, paths, binary=binary)
    pki = ClusterPki(paths.pki_dir)
    components = [
        apiserver.describe_apiserver(config, datastore.endpoint, pki, binary(apiserver.NAME))
    ]
    elects = datastore.shared
    if controllers.CONTROLLER_MANAGER in component_names(datastore, single=single):
        components += [
            controllers.describe_controller_manager(
                config, pki, binary(controllers.CONTROLLER_MANAGER), elects=elects
            ),
            controllers.describe_scheduler(
                config, pki, binary(controllers.SCHEDULER), elects=elects
            ),
        ]
    return Plan(datastore, tuple(datastore.processes()), tuple(components), api_url(config))


def listeners(plan: Plan) -> Sequence[Listener]:
    """Return the TCP addresses that the plan's processes will bind."""
    found = []
    for spec in plan.components:
        port = _flag(spec, "secure-port")
        if port:
            found.append(Listener(spec.name, _flag(spec, "bind-address") or "", int(port)))
    for spec in plan.stores:
        for name in ("listen-client-urls", "listen-peer-urls", "listen-metrics-urls"):
            found += [
                Listener(spec.name, host, port)
                for host, port in map(_host_port, (_flag(spec, name) or "").split(","))
                if host and port
            ]
    return tuple(found)


def _flag(spec: ProcessSpec, name: str) -> str | None:
    for index, argument in enumerate(spec.argv):
        if argument == f"--{name}" and index + 1 < len(spec.argv):
            return spec.argv[index + 1]
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return None


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        return "", 0
    return parts.hostname or "", parts.port or 0
