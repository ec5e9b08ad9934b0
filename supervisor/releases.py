"""The programs that byre can obtain: their versions, downloads, recipes and version output."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

KUBERNETES_VERSION: Final = "1.37.2"
ETCD_VERSION: Final = "3.7.3"
KINE_VERSION: Final = "0.17.5"

KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NAMES: Final = (*KUBERNETES, "etcd", "kine")

_VERSION: Final = re.compile(r"\bv?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)")


@dataclass(frozen=True, slots=True)
class Download:
    """An official release: a file, where its digest is published, and what is inside."""

    url: str
    digest_url: str
    member: str = ""
    """The program's path in a tar archive; empty when the file is the program."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the program is built: a folder of `recipes/` with pinned modules, and flags."""

    folder: str
    package: str
    ldflags: str
    tags: str = ""
    is_cgo: bool = False
    cost: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """One program at one version."""

    name: str
    version: str
    download: Download
    recipe: Recipe | None
    version_argv: tuple[str, ...] = ("--version",)
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Digests of official downloads that are known here, by ``os-arch``."""


def program(name: str, kubernetes: str = KUBERNETES_VERSION) -> Program:
    """Return what is known about a program; `name` is one of NAMES."""
    if name == "etcd":
        return _etcd()
    if name == "kine":
        return _kine()
    return _kubernetes(name, kubernetes)


def target() -> str:
    """Return the platform as Go writes it: ``linux-amd64``."""
    machine = platform.machine().lower()
    names = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
    return f"{platform.system().lower()}-{names.get(machine, machine)}"


def parse_version(output: str) -> str | None:
    """Return the first version in the output of ``--version``, without the leading v."""
    found = _VERSION.search(output)
    return found[1] if found else None


def _kubernetes(name: str, version: str) -> Program:
    url = f"https://dl.k8s.io/release/v{version}/bin/{target().replace('-', '/')}/{name}"
    return Program(
        name=name,
        version=version,
        download=Download(url, f"{url}.sha256"),
        # Another version has other modules: the pinned ones build one version only.
        recipe=_kubernetes_recipe(name, version) if version == KUBERNETES_VERSION else None,
        version_argv=("version", "--client", "-o", "json")
        if name == "kubectl"
        else ("--version",),
    )


def _kubernetes_recipe(name: str, version: str) -> Recipe:
    major, minor, _ = version.split(".")
    values = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [f"-X {package}.{key}={values[key]}" for package in packages for key in values]
    return Recipe(
        folder="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        ldflags=f"-s -w {' '.join(settings)}",
        tags="selinux,notest,grpcnotrace",
        cost="5 to 10 minutes on 2 cores, 110 MB of modules, 4 GB of build cache, 3 GB of memory",
    )


def _etcd() -> Program:
    folder = f"etcd-v{ETCD_VERSION}-{target()}"
    base = f"https://github.com/etcd-io/etcd/releases/download/v{ETCD_VERSION}"
    return Program(
        name="etcd",
        version=ETCD_VERSION,
        download=Download(f"{base}/{folder}.tar.gz", f"{base}/SHA256SUMS", f"{folder}/etcd"),
        recipe=Recipe("etcd", "go.etcd.io/etcd/server/v3", "-s -w", cost="1 to 3 minutes"),
    )


def _kine() -> Program:
    architecture = target().partition("-")[2]
    base = f"https://github.com/k3s-io/kine/releases/download/v{KINE_VERSION}"
    package = "github.com/k3s-io/kine"
    return Program(
        name="kine",
        version=KINE_VERSION,
        download=Download(f"{base}/kine-{architecture}", f"{base}/sha256sum-{architecture}.txt"),
        recipe=Recipe(
            folder="kine",
            package=package,
            ldflags=f"-s -w -X {package}/pkg/version.Version=v{KINE_VERSION}",
            is_cgo=True,
            cost="2 to 5 minutes and a C compiler",
        ),
    )
