"""Obtain the Kubernetes programs the end-to-end tests run, the way byre itself does."""

from __future__ import annotations

import sys

from rich.console import Console

from datastore.paths import Paths
from supervisor.binaries import Binaries, BinaryError
from supervisor.progress import TerminalProgress

NAMES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


def main() -> int:
    """Obtain all of them; a second time this is quick."""
    with TerminalProgress(Console(stderr=True)) as progress:
        try:
            Binaries(Paths.default().cache_dir, progress=progress).obtain_all(NAMES)
        except BinaryError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
