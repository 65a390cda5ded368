"""The supervisor of a fleet: it makes the actors what the file says, and knows the state of each.

The actors need it only for changes: their streams run, and are restarted, without one. A new supervisor takes the
actors over as they are.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fleet.actor import LEASE_S
from tcmoa_runtime.fleet.backoff import Backoff
from tcmoa_runtime.fleet.pool import ActorPool, NameTakenError, StopOutcome, Work
from tcmoa_runtime.fleet.reconcile import Changes, find_changes
from tcmoa_runtime.fleet.report import PairReport, PairState, SupervisorInfo
from tcmoa_runtime.fleet.runner import STOP_S
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.typing import OnMessage

POLL_S: Final = 1.0
"""Time between two questions to each actor."""
CHANGE_S: Final = 0.25
"""The same while streams are being stopped, because others wait for their names."""
LOST_S: Final = 4.0
"""An actor that has not answered for this long is lost, until it answers again."""
UNKNOWN_S: Final = 30.0
"""An actor that was there before the supervisor and has not answered for this long is replaced."""
NOTIFY_S: Final = 2.5 * POLL_S
"""How long actors of a fleet that ends are kept, so that its supervisor reads it from a report."""
ENDING_S: Final = STOP_S + 5.0
"""How long an actor may take to stop before it is killed."""
OPENING_S: Final = 3.0
"""The same for one that still opens its sources, and has no file to complete: that may take long."""
SILENT_S: Final = 10.0
"""The same for one that does not answer: on a busy machine late, or as Ray has to start its process again, which names
the files that the one before has left."""
KILL_S: Final = 5.0
"""An actor that is there for this long after it was killed is killed again."""

_log = get_logger("fleet")


@dataclass
class _Entry:
    """What is known of one actor."""

    seen_at: float
    digest: str | None = None
    report: PairReport | None = None
    reported_at: float = 0.0
    ending_at: float | None = None
    is_fleet_stopping: bool = False
    killed_at: float | None = None


@dataclass(frozen=True)
class PairStatus:
    """A pair as it is shown: its state, and the last report of its actor.

    Attributes:
        name: Name of the pair.
        state: Its state as the supervisor sees it.
        message: What it waits for, or is doing.
        state_s: Seconds since its last report, if it is lost; else as it reports.
        report: Its last report; None if there was none.
    """

    name: str
    state: PairState
    message: str | None
    state_s: float
    report: PairReport | None


@dataclass(frozen=True)
class FleetStatus:
    """A fleet as it is shown.

    Attributes:
        fleet: Name of the fleet.
        pairs: Its pairs: those of the file in its order, and then those that are being removed.
        file_error: Why the file that is there now was refused; None if it was not.
        supervisor: Who watches the fleet; None if no one does.
        age_s: Seconds since this was so: more than a few while Ray does not answer.
    """

    fleet: str
    pairs: tuple[PairStatus, ...]
    file_error: str | None = None
    supervisor: SupervisorInfo | None = None
    age_s: float = 0.0

    def counts(self) -> dict[PairState, int]:
        """Return the number of pairs in each state that occurs."""
        return dict(Counter(pair.state for pair in self.pairs))


class FleetStoppingError(Exception):
    """Somebody stops the whole fleet; its supervisor is to end."""


@dataclass
class Supervisor:
    """Makes the actors of a fleet what its file says. All methods but `status` and `picture` belong to one thread.

    Attributes:
        fleet: Name of the fleet.
        pool: Its actors.
        me: This supervisor.
        on_message: Takes a line for each change of a state.
        is_fleet_stopping: Whether another process stops the fleet.
    """

    fleet: str
    pool: ActorPool
    me: SupervisorInfo
    on_message: OnMessage
    clock: Callable[[], float] = time.monotonic
    is_fleet_stopping: bool = False
    _work: Mapping[str, Work] = field(default_factory=dict)
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _states: dict[str, PairState] = field(default_factory=dict)
    _backoffs: dict[str, Backoff] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _status: FleetStatus | None = None
    _published_at: float = field(init=False)
    _file_error: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._published_at = self.clock()

    def take_over(self, pause: Callable[[float], object] = time.sleep) -> int:
        """Ask the actors that are there already, and wait for an earlier supervisor to end.

        Args:
            pause: Waits for some seconds.

        Returns:
            The number of actors that were there.

        Raises:
            InputError: Another supervisor watches the fleet.
        """
        deadline = self.clock() + 2 * LEASE_S
        self._see(self.pool.names())
        while True:
            other = next(filter(None, (report["supervisor"] for report in self._poll(POLL_S).values())), None)
            if other is None:
                return len(self._entries)
            if self.clock() > deadline:
                raise self._watched_by(other)
            pause(POLL_S)

    def set_work(self, work: Mapping[str, Work]) -> None:
        """Set what the actors are to run; the next steps bring it about."""
        self._work, self._file_error = dict(work), None

    def refuse_file(self, line: str) -> None:
        """Show why the file that is there now was not taken."""
        self._file_error = line

    def changes(self) -> Changes:
        """Return what is to be done, by what is known of the actors."""
        present = {name: entry.digest for name, entry in self._entries.items() if entry.ending_at is None}
        ending = {name for name, entry in self._entries.items() if entry.ending_at is not None}
        wanted = {name: work.digest for name, work in self._work.items() if name not in ending}
        return find_changes(wanted, present)

    @property
    def is_changing(self) -> bool:
        """Whether streams are being stopped."""
        return any(entry.ending_at is not None for entry in self._entries.values())

    def step(self) -> None:
        """Ask the actors, and do what is to be done; takes about a tenth of a second.

        Raises:
            FleetStoppingError: Somebody stops the fleet.
            InputError: Another supervisor watches the fleet.
        """
        self._see(self.pool.names())
        for report in self._poll(0.1).values():
            if report["is_fleet_stopping"]:
                self.is_fleet_stopping = True
                raise FleetStoppingError
            if report["supervisor"] is not None:
                raise self._watched_by(report["supervisor"])
        changes = self.changes()
        for name in changes.start:
            if self._not_before.get(name, 0.0) <= self.clock():
                self._start(self._work[name])
        for name in (*changes.stop, *changes.restart):
            self._end(name)
        self._replace_unknown()
        self._finish_endings()
        self._publish()

    def status(self) -> FleetStatus:
        """Return the fleet as it was after the last step; from any thread."""
        with self._lock:
            age_s = max(0.0, self.clock() - self._published_at)
            return replace(self._status or FleetStatus(self.fleet, ()), age_s=age_s)

    def picture(self, name: str, width: int, timeout: float) -> bytes | None:
        """Return the newest frame of a pair as a JPEG; None without one. Waits; from any thread."""
        return self.pool.picture(name, width, timeout)

    def look(self, seconds: float = LOST_S) -> FleetStatus:
        """Return the fleet as a visitor sees it, who asks each actor and changes nothing.

        Args:
            seconds: How long actors may take to answer.
        """
        self._see(self.pool.names())
        missing, watcher, deadline = set(self._entries), None, self.clock() + seconds
        while missing and self.clock() < deadline:
            for name, report in self._poll(0.1).items():
                missing.discard(name)
                watcher = report["supervisor"] or watcher
        return FleetStatus(self.fleet, tuple(map(self._status_of, sorted(self._entries))), None, watcher)

    def stop_all(
        self, pause: Callable[[float], object] = time.sleep, *, is_fleet_stopping: bool = False
    ) -> bool:
        """Stop all streams with complete files, and end their actors.

        Args:
            pause: Waits for some seconds.
            is_fleet_stopping: Whether another supervisor is to be notified.

        Returns:
            Whether all streams have completed their files.
        """
        self._work = {}
        self._see(self.pool.names())
        for name in list(self._entries):
            self._end(name, is_fleet_stopping=is_fleet_stopping)
        is_complete, requested_at = True, self.clock()
        while self._entries:
            # Actors that notify a supervisor are kept until it has asked once more.
            if not is_fleet_stopping or self.clock() - requested_at > NOTIFY_S:
                is_complete = self._finish_endings() and is_complete
            if self.clock() - requested_at > 2 * ENDING_S:
                return False
            self._publish()
            pause(0.1)
            self._see(self.pool.names())
            self._poll(0.1)
        self._publish()
        return is_complete

    def _see(self, names: set[str]) -> None:
        """Follow which actors are there."""
        now = self.clock()
        for name in self._entries.keys() - names:
            entry = self._entries.pop(name)
            if entry.ending_at is None:  # Ray has given it up, e.g. because its node lacks a package
                pause = self._backoffs.setdefault(name, Backoff()).pause_after(now - entry.seen_at)
                self._not_before[name] = now + pause
        for name in names - self._entries.keys():
            self._entries[name] = _Entry(now)

    def _poll(self, timeout: float) -> Mapping[str, PairReport]:
        reports, now = self.pool.poll(timeout), self.clock()
        for name, report in reports.items():
            entry = self._entries.get(name)
            if entry is not None:
                entry.report, entry.reported_at, entry.digest = report, now, report["digest"]
        return reports

    def _start(self, work: Work) -> None:
        try:
            self.pool.start(work)
        except NameTakenError:  # its actor is still ending; the next step tries again
            return
        self._entries[work.pair.name] = _Entry(self.clock(), digest=work.digest)

    def _end(self, name: str, *, is_fleet_stopping: bool = False) -> None:
        """Begin to end an actor: one that has run may complete its files."""
        entry = self._entries[name]
        if entry.ending_at is None:
            entry.ending_at, entry.is_fleet_stopping = self.clock(), is_fleet_stopping
            if entry.report is not None:
                self.pool.request_stop(name, is_fleet_stopping=is_fleet_stopping)

    def _finish_endings(self) -> bool:
        """Kill the actors that have stopped, do not answer or take too long; returns whether files are complete."""
        now, is_complete = self.clock(), True
        for name, entry in self._entries.items():
            if entry.killed_at is not None:
                if now - entry.killed_at > KILL_S:  # it is still there: Ray has not taken the call
                    self.pool.kill(name)
                    entry.killed_at = now
                continue
            if entry.ending_at is None:
                continue
            outcome, is_late = self.pool.stop_outcome(name), self._is_late(entry, entry.ending_at)
            if outcome is StopOutcome.DIED and not is_late:
                self.pool.request_stop(name, is_fleet_stopping=entry.is_fleet_stopping)
            elif is_late or outcome is not StopOutcome.PENDING:
                if outcome not in (StopOutcome.NOT_ASKED, StopOutcome.COMPLETE) and not _is_opening(entry):
                    _log.warning(
                        "%s: did not complete its files in %.0f s; its process is ended",
                        name,
                        now - entry.ending_at,
                    )
                    is_complete = False
                self.pool.kill(name)
                entry.killed_at = now
        return is_complete

    def _is_late(self, entry: _Entry, ending_at: float) -> bool:
        """Whether an actor has had the time that it may take to stop."""
        now = self.clock()
        limit = OPENING_S if _is_opening(entry) else ENDING_S
        return now - ending_at > limit or now - max(entry.reported_at, ending_at) > SILENT_S

    def _replace_unknown(self) -> None:
        """End actors of an earlier supervisor of which it is not known what they are to run."""
        for name, entry in self._entries.items():
            is_unknown = entry.digest is None and self.clock() - entry.seen_at > UNKNOWN_S
            if is_unknown and entry.ending_at is None:
                self._end(name)

    def _publish(self) -> None:
        names = [*self._work, *(name for name in self._entries if name not in self._work)]
        status = FleetStatus(self.fleet, tuple(map(self._status_of, names)), self._file_error, self.me)
        with self._lock:
            self._status, self._published_at = status, self.clock()
        for pair in status.pairs:
            if self._states.get(pair.name) != pair.state:
                self._states[pair.name] = pair.state
                self.on_message(_describe_change(pair))
        for name in self._states.keys() - set(names):
            del self._states[name]
            self.on_message(f"{name}: stopped")

    def _status_of(self, name: str) -> PairStatus:
        entry, now = self._entries.get(name), self.clock()
        if entry is None:
            problem = self.pool.problem_of(name)
            return PairStatus(name, "lost" if problem else "pending", problem, 0.0, None)
        report = entry.report
        if entry.ending_at is not None:
            return PairStatus(name, "stopping", "completing its files", now - entry.ending_at, report)
        if report is None:
            work, waited = self._work.get(name), now - entry.seen_at
            if work is None:
                return PairStatus(name, "pending", "its process does not answer", waited, None)
            why = self.pool.why_pending(work.pair) if waited > LOST_S else "starting a process"
            return PairStatus(name, "pending", why, waited, None)
        silence = now - entry.reported_at
        if silence > LOST_S:
            message = "its process or node does not answer; Ray restarts it"
            return PairStatus(name, "lost", message, silence, report)
        return PairStatus(name, report["state"], report["message"], report["state_s"], report)

    def _watched_by(self, other: SupervisorInfo) -> InputError:
        return InputError(
            f"is watched by process {other['pid']} on {other['host']} already; expected one supervisor",
            subject=f"fleet {self.fleet}",
            remedy="End that one first, or give this fleet another name",
        )


def _is_opening(entry: _Entry) -> bool:
    """Whether an actor that is to end has said since that it still opens its sources."""
    is_recent = entry.ending_at is not None and entry.reported_at >= entry.ending_at
    return is_recent and entry.report is not None and entry.report["state"] == "starting"


def _describe_change(pair: PairStatus) -> str:
    """Describe the state of a pair that has changed, in one line."""
    report, where = pair.report, ""
    if report is not None and pair.state == "running":
        where = f" on {report['node']['host']} ({report['node']['ip']})"
        if report["page"] is not None:
            where += f", page {report['page']}"
    reason = pair.message
    if report is not None and pair.state in ("waiting", "failed"):
        again = None if report["retry_s"] is None else f"again in {math.ceil(report['retry_s'])} s"
        reason = "; ".join(text for text in (report["error"], again) if text)
    return f"{pair.name}: {pair.state}{where}" + (f": {reason}" if reason else "")
