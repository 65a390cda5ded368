"""`tcmoa fleet`: many streams of camera pairs, on one machine or on the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcmoa_runtime.cli.extras import require
from tcmoa_runtime.cli.options import JsonOption, takes_options
from tcmoa_runtime.cli.printing import print_json, print_line, print_message
from tcmoa_runtime.cli.token import check_token_is_known
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.options.cluster import ClusterOptions
from tcmoa_runtime.options.fleet import FLEET_PAGE_GROUP, FleetOptions
from tcmoa_runtime.stop_signals import REPEAT_S, handled_stop_signals

if TYPE_CHECKING:
    from tcmoa_runtime.fleet.run import FleetRun
    from tcmoa_runtime.fleet.status import FleetJson, PairJson


@takes_options(ClusterOptions, name="cluster")
@takes_options(FleetOptions)
def fleet(
    options: FleetOptions,
    cluster: ClusterOptions,
    file: Annotated[Path, typer.Argument(metavar="FLEET.toml", help="File with the pairs of cameras.")],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TCMOA_TOKEN",
            help="Token that browsers need for the page; generated if the address is not on loopback.",
            rich_help_panel=FLEET_PAGE_GROUP,
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Show the fleet on a cluster, and end.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the fleet on a cluster: its streams complete their files.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Run the streams of many camera pairs: one process for each, restarted when it fails.

    A change of the file, or SIGHUP, adds, removes and restarts only what has changed. On one machine, Ctrl-C ends all
    streams with complete files. On a cluster it ends only the supervisor: the streams run on, and the same command
    takes them over again.

    Examples:

        tcmoa fleet fleet.toml
        tcmoa fleet fleet.toml --address auto
        tcmoa fleet fleet.toml --address auto --status
    """
    if status and stop:
        raise InputError("both status and stop; expected one of them", subject="tcmoa fleet")
    if as_json and not status:
        raise InputError(
            "only the status has a result",
            subject="--json",
            remedy="Add {status}, or leave it out.",
            settings={"status": True},
        )
    require("ray", "fleet", "ray")
    require("tcmoa_runtime.fleet.page.server", "fleet", "ray")
    if not (status or stop):
        return _run(file, cluster.address, options, token)
    if cluster.address is None:
        raise InputError(
            "no cluster; expected the one on which the fleet runs",
            subject="address",
            remedy="Give {address}. A fleet on this machine alone ends with Ctrl-C, and its page shows it.",
            settings={"address": "auto"},
        )
    return _show(file, cluster.address, as_json=as_json) if status else _stop(file, cluster.address)


def _run(file: Path, address: str | None, options: FleetOptions, token: str | None) -> int:
    from tcmoa_runtime.fleet.claim import claimed_fleet
    from tcmoa_runtime.fleet.page.server import FleetPage
    from tcmoa_runtime.fleet.run import open_fleet

    ending, reading = threading.Event(), threading.Event()
    ended_at = 0.0

    def handle(received: signal.Signals) -> None:
        nonlocal ended_at
        if received == getattr(signal, "SIGHUP", None):
            reading.set()
        elif not ending.is_set():
            ending.set()
            ended_at = time.monotonic()
        elif time.monotonic() - ended_at > REPEAT_S:
            raise KeyboardInterrupt

    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(claimed_fleet(file))  # before the page, whose port the other one has
        page, page_address = None, options.page_address
        if page_address is not None:
            check_token_is_known(token, page_address)
            page = stack.enter_context(contextlib.closing(FleetPage(page_address, token)))
        run = stack.enter_context(open_fleet(file, address, print_message))
        if page is not None:
            page.start(run.supervisor)
            print_message(f"page: {page.url}")
        with handled_stop_signals(handle):
            run.watch(ending, reading)
            _end(run, file)
    return 0


def _end(run: FleetRun, file: Path) -> None:
    """Stop the streams of a private Ray, which ends with this process; leave those of a cluster."""
    count = len(run.supervisor.status().pairs)
    if run.session.is_private:
        one = count == 1
        print_message(
            f"stopping {_streams(count)}, which {'completes its' if one else 'complete their'} files"
        )
        _check_complete(run.supervisor.stop_all(), run.supervisor.fleet)
    elif not run.supervisor.is_fleet_stopping:
        print_message(
            f"{_streams(count)} left running without this supervisor; "
            f"`tcmoa fleet {file} --address {run.session.address}` takes them over, and with --stop ends them"
        )


def _show(file: Path, address: str, *, as_json: bool) -> int:
    from tcmoa_runtime.fleet.run import visit_fleet
    from tcmoa_runtime.fleet.status import describe_fleet

    with visit_fleet(file, address) as visitor:
        found = describe_fleet(visitor.look())
    if as_json:
        print_json(found)
    else:
        for line in _format_fleet(found):
            print_line(line)
    return 0


def _stop(file: Path, address: str) -> int:
    from tcmoa_runtime.fleet.run import visit_fleet
    from tcmoa_runtime.fleet.supervisor import SILENT_S

    with visit_fleet(file, address) as visitor:
        count = len(visitor.look(SILENT_S).pairs)  # those that never answer are ended at once
        is_complete = visitor.stop_all(is_fleet_stopping=True)
    _check_complete(is_complete, visitor.fleet)
    if not count:
        print_line(f"fleet {visitor.fleet}: no stream runs")
    else:
        print_line(f"fleet {visitor.fleet}: {_streams(count)} stopped")
    return 0


def _check_complete(is_complete: bool, fleet: str) -> None:
    """Raise TcmoaError if a stream was ended before it had completed its files."""
    if not is_complete:
        raise TcmoaError(
            "a stream did not complete its files in time; expected all to",
            subject=f"fleet {fleet}",
            remedy="The log names it. Its video file can be played, and gets its name when the pair starts again",
        )


def _streams(count: int) -> str:
    return f"{count} stream" if count == 1 else f"{count} streams"


def _format_fleet(found: FleetJson) -> list[str]:
    """Format a fleet as lines: a summary, and one line for each pair."""
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items()) or "no stream runs"
    watcher = found["supervisor"]
    watched = (
        "no supervisor" if watcher is None else f"supervisor: process {watcher['pid']} on {watcher['host']}"
    )
    return [f"fleet {found['fleet']}: {counts}; {watched}", *map(_format_pair, found["pairs"])]


def _format_pair(pair: PairJson) -> str:
    parts = [f"{pair['name']}: {pair['state']}"]
    if pair["node"] is not None:
        parts.append(f"on {pair['node']['host']} ({pair['node']['ip']})")
    if pair["rate"] is not None:
        parts.append(f"{pair['rate']:.1f}/s")
    if pair["age_ms"] is not None:
        parts.append(f"age {pair['age_ms']:.0f} ms")
    if pair["page"] is not None:
        parts.append(pair["page"])
    parts += [text for text in (pair["message"], pair["error"]) if text is not None]
    return ", ".join(parts)
