"""The command line: `byre controller` and everything that goes with it.

What only one command needs is imported by that command: `byre kubectl` is to start quickly.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from datastore.errors import CertificateError, DatastoreError, NotReady, UnusablePath
from datastore.kinecli.command import kine
from supervisor.console import own_name, set_up_logging, status_summary, status_table
from supervisor.errors import NotRunning, SupervisorError
from supervisor.logview import component_logs, follow, show
from supervisor.place import Place, admin_kubeconfig, log_dir
from supervisor.release import byre_version

EPILOG = """\b
Exit codes:
  0  done
  1  something failed while running; for `byre status`: not everything is ready
  2  wrong usage of the command line
  3  the configuration cannot be used
  4  the machine is not fit: directories, certificates, ports, another byre
  5  a binary is missing or has the wrong version
  6  a process did not become ready
  7  no byre is running here
  8  the datastore is not the one that this data directory belongs to
"""


def _place_options(function: Callable[..., Any]) -> Callable[..., Any]:
    data_dir = click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="BYRE_DATA_DIR",
        help="Where everything is kept.  [env: BYRE_DATA_DIR; default: /var/lib/byre for root, "
        "~/.local/share/byre for others]",
    )
    config = click.option(
        "--config",
        "-c",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="BYRE_CONFIG",
        help="The configuration file; `byre config create` prints one.  [env: BYRE_CONFIG; "
        "default: /etc/byre/byre.yaml or ~/.config/byre/byre.yaml, if it exists]",
    )
    return config(data_dir(function))


def _place(context: click.Context, config: Path | None, data_dir: Path | None) -> Place:
    outer = context.find_object(Place) or Place(None, None)
    return Place(config or outer.config_file, data_dir or outer.data_dir)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@_place_options
@click.pass_context
def cli(context: click.Context, config: Path | None, data_dir: Path | None) -> None:
    """Run a Kubernetes control plane on the datastore of your choice.

    \b
    byre controller --single      start a control plane on SQLite, in the foreground
    byre kubectl get namespaces   use it, from another terminal
    """  # noqa: D301 (click's mark for text that is not to be wrapped)
    context.obj = Place(config, data_dir)


@cli.command(epilog=EPILOG)
@_place_options
@click.option(
    "--single",
    is_flag=True,
    help="Run the controllers and the scheduler too; on a store that is shared they always run.",
)
@click.option(
    "--adopt-datastore",
    is_flag=True,
    help="Accept the datastore as it is, although it is not the one that was used before.",
)
@click.option("--verbose", "-v", is_flag=True, help="Tell more about what byre does.")
@click.pass_context
def controller(
    context: click.Context,
    config: Path | None,
    data_dir: Path | None,
    *,
    single: bool,
    adopt_datastore: bool,
    verbose: bool,
) -> None:
    """Run a control plane in the foreground.

    Makes certificates, starts the datastore, waits until it answers, starts kube-apiserver and
    keeps them running. Missing binaries are downloaded or built first. SIGTERM or Ctrl-C stops
    everything in reverse order; a second one kills.
    """
    # The C core writes refused handshakes to standard error; a probe that fails says it in words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Else it starts threads in children that run as another user, before they are executed, and
    # some of those crash.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from supervisor.controller import Order, run_controller
    from supervisor.progress import TerminalProgress

    set_up_logging(verbose=verbose)
    place = _place(context, config, data_dir)
    settings = place.load()
    order = Order(settings, place.paths, single, adopt_datastore)

    def on_ready(url: str) -> None:
        click.echo(f"control plane ready: {url}", err=True)
        click.echo(f"  {own_name()} kubectl get namespaces   (in another terminal)", err=True)

    progress = TerminalProgress(Console(stderr=True))
    run_controller(order, place.binaries(settings, progress), progress, on_ready)


@cli.command()
@_place_options
@click.option("--single", is_flag=True, help="The plan of `byre controller --single`.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text")
@click.pass_context
def plan(
    context: click.Context,
    config: Path | None,
    data_dir: Path | None,
    *,
    single: bool,
    output: str,
) -> None:
    """Show what would run, without starting or changing anything; secrets are left out."""
    from supervisor.plan import make_plan
    from supervisor.planview import plan_to_json, plan_to_text

    place = _place(context, config, data_dir)
    settings = place.load()
    finder = place.binaries(settings)

    def binary(name: str) -> Path:
        return finder.find(name) or Path(name)

    result = make_plan(settings, place.paths, single=single, binary=binary)
    click.echo(plan_to_json(result) if output == "json" else plan_to_text(result))


@cli.command()
@_place_options
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text")
@click.pass_context
def status(
    context: click.Context, config: Path | None, data_dir: Path | None, output: str
) -> None:
    """Show how the running control plane is doing.

    Exits with 0 when everything is ready, 1 when something is not, 7 when nothing runs.
    """
    from supervisor.statusclient import ask_status

    answer = ask_status(_place(context, config, data_dir).paths.run_dir)
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
    else:
        console = Console(highlight=False)
        for line in status_summary(answer):
            console.print(line, markup=False, soft_wrap=True)
        console.print()
        console.print(status_table(answer))
    context.exit(0 if answer["ready"] else 1)


@cli.command()
@click.argument("component", required=False)
@_place_options
@click.option("--lines", "-n", default=50, show_default=True, help="How many lines.")
@click.option("--follow", "-f", "is_followed", is_flag=True, help="Go on with what is added.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"]),
    help="Only lines of this level and above; lines without one go with the line before.",
)
@click.pass_context
def logs(
    context: click.Context,
    component: str | None,
    config: Path | None,
    data_dir: Path | None,
    *,
    lines: int,
    is_followed: bool,
    level: str | None,
) -> None:
    """Show what a component, or every component, has said."""
    directory = log_dir(_place(context, config, data_dir).paths)
    files = component_logs(directory, component)
    if not files:
        known = ", ".join(component_logs(directory, None)) or "none"
        raise NotRunning(
            f"no log of {component or 'any component'} in {directory}; there: {known}"
        )
    show(files, lines, level, click.echo)
    if is_followed:
        follow(files, level, click.echo)


@cli.group()
def kubeconfig() -> None:
    """Print the means of access to the cluster."""


@kubeconfig.command("admin")
@_place_options
@click.pass_context
def kubeconfig_admin(context: click.Context, config: Path | None, data_dir: Path | None) -> None:
    """Print the administrator's kubeconfig; whoever has it may do everything."""
    click.echo(_read_kubeconfig(_place(context, config, data_dir)).read_text(), nl=False)


@cli.command(
    "kubectl",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Run kubectl as administrator of this cluster.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def kubectl(place: Place, arguments: tuple[str, ...]) -> NoReturn:
    """Run kubectl as administrator of this cluster; all arguments are kubectl's own.

    Another data directory is chosen before the command: byre --data-dir DIR kubectl ...
    """
    from supervisor.progress import TerminalProgress

    path = _read_kubeconfig(place)
    with TerminalProgress(Console(stderr=True)) as progress:
        binary = place.binaries(place.load(), progress).obtain("kubectl")
    environment = {**os.environ, "KUBECONFIG": str(path)}
    os.execve(binary, ["kubectl", *arguments], environment)  # noqa: S606 (it takes byre's place)


@cli.command()
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text")
def version(output: str) -> None:
    """Show the version of byre and of the Kubernetes that it runs by default."""
    from datastore.schema import KUBERNETES_VERSION

    known = {"byre": byre_version(), "kubernetes": KUBERNETES_VERSION}
    if output == "json":
        click.echo(json.dumps(known))
    else:
        click.echo(f"byre {known['byre']} (Kubernetes {known['kubernetes']})")


@cli.command()
@_place_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_context
def reset(
    context: click.Context, config: Path | None, data_dir: Path | None, *, yes: bool
) -> None:
    """Remove everything that byre keeps here: certificates, data, logs.

    A database or an etcd that someone else runs is left as it is.
    """
    from supervisor.removal import remove

    paths = _place(context, config, data_dir).paths
    if not yes:
        click.confirm(f"remove the cluster in {paths.data_dir} for good?", abort=True)
    removed = remove(paths)
    click.echo("\n".join(f"removed {path}" for path in removed) or "nothing to remove")


@cli.group("datastore")
def datastore_group() -> None:
    """Look after the datastore."""


@datastore_group.command("accept-loss")
@_place_options
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_context
def datastore_accept_loss(
    context: click.Context, config: Path | None, data_dir: Path | None, *, yes: bool
) -> None:
    """Accept that the database has lost commits that were served, and serve what it has.

    For a datastore that is refused because a replica that lagged was promoted, or a backup was
    restored. The revision jumps far ahead, so that every cache is read anew. Run it once: all
    controllers on this database go on by themselves.
    """
    from datastore.acceptance import accept
    from datastore.resolve import resolve
    from datastore.sql import ShimDatastore

    place = _place(context, config, data_dir)
    datastore = resolve(place.load(), place.paths)
    if not isinstance(datastore, ShimDatastore):
        raise NotReady(f"{datastore.kind} is not served by byre: see how its own tools restore it")
    confirmed = accept(
        datastore.dsn.text,
        datastore.access,
        datastore.position_file,
        tell=click.echo,
        confirm=(lambda _: True) if yes else click.confirm,
    )
    context.exit(0 if confirmed else 1)


@cli.group("config")
def config_group() -> None:
    """Make and check configuration files."""


@config_group.command("create")
def config_create() -> None:
    """Print a configuration with every default in it."""
    from datastore.config import example

    click.echo(example(), nl=False)


@config_group.command("validate")
@_place_options
@click.pass_context
def config_validate(context: click.Context, config: Path | None, data_dir: Path | None) -> None:
    """Check a configuration and show every problem in it; nothing is started."""
    from datastore.resolve import resolve
    from datastore.sql import ShimDatastore

    place = _place(context, config, data_dir)
    datastore = resolve(place.load(), place.paths)
    if isinstance(datastore, ShimDatastore) and datastore.warning:
        click.echo(f"warning: {datastore.warning}", err=True)
    click.echo(f"{place.config_file or place.paths.config_file}: valid")


def _read_kubeconfig(place: Place) -> Path:
    path = admin_kubeconfig(place.paths)
    try:
        path.open().close()
    except PermissionError as error:
        raise NotRunning(f"cannot read {path}: permission denied; try as root") from error
    except OSError as error:
        raise NotRunning(
            f"no cluster in {place.paths.data_dir}; start one with `byre controller --single`, or "
            "name its directory: byre --data-dir DIR kubectl ..."
        ) from error
    return path


def _binary_error() -> type[Exception]:
    from supervisor.binaries import BinaryError

    return BinaryError


cli.add_command(kine)


def main() -> NoReturn:
    """Run the command line; foreseeable failures are a message and an exit code."""
    try:
        cli(standalone_mode=True)
    except SystemExit:
        raise  # the usual end; nothing more is imported to compare it with
    except (UnusablePath, CertificateError) as error:
        _fail(str(error), 4)
    except DatastoreError as error:
        _fail(str(error), 3)
    except SupervisorError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # `byre logs | head`: the reader has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except _binary_error() as error:
        _fail(str(error), 5)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"byre: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
