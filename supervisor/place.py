"""Where one byre works: its configuration, its directories, and the name of its children's owner.

Imported by every command, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datastore.paths import Paths

if TYPE_CHECKING:
    from datastore.schema import Config
    from supervisor.binaries import Binaries


class Place:
    """What `--config` and `--data-dir` name; None for the defaults."""

    def __init__(self, config_file: Path | None, data_dir: Path | None) -> None:
        self.config_file = config_file
        self.data_dir = data_dir

    @property
    def paths(self) -> Paths:
        """The directories."""
        return Paths.default(data_dir=self.data_dir, config_file=self.config_file)

    def load(self) -> Config:
        """Read the configuration; a file that was named must exist."""
        from datastore import config as configuration

        return configuration.load(self.paths.config_file, optional=self.config_file is None)

    def binaries(self, config: Config, progress: Callable[[Any], None] | None = None) -> Binaries:
        """Return the finder of executables, which tells `progress` what it does."""
        from datastore.config import explicit_binaries
        from supervisor.binaries import Binaries
        from supervisor.progress import SILENT

        return Binaries(
            self.paths.cache_dir,
            kubernetes=config.spec.kubernetes.version,
            explicit=explicit_binaries(config),
            progress=progress or SILENT,
        )


def owner(paths: Paths) -> str:
    """Return the name in the environment marker of all children."""
    return str(paths.data_dir)


def log_dir(paths: Paths) -> Path:
    """Return where the components' output goes."""
    return paths.data_dir / "logs"


def admin_kubeconfig(paths: Paths) -> Path:
    """Return the administrator's kubeconfig."""
    return paths.pki_dir / "admin.conf"


def socket_path(run_dir: Path) -> Path:
    """Return where the status API listens."""
    return run_dir / "status.sock"
