"""The actor: a process with one Fuser that fuses units, and reports every pair that it cannot fuse."""

from __future__ import annotations

import pickle
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from tcmoa_runtime.bulk.file_systems import open_storage
from tcmoa_runtime.bulk.pair_jobs import JobReader, PairJob, repeated_name
from tcmoa_runtime.bulk.record import check_owner
from tcmoa_runtime.bulk.results import ResultFolder, StoredImage, check_name
from tcmoa_runtime.bulk.storage import Storage
from tcmoa_runtime.bulk.units import (
    PairFailure,
    PairSlice,
    Unit,
    UnitResult,
    is_outdated,
)
from tcmoa_runtime.cluster.bundle_shipping import BundleReference
from tcmoa_runtime.errors import InputError, TcmoaError, first_line
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.images import IMAGE_FORMATS, encode_image, in_order
from tcmoa_runtime.log_output import show_log_of_worker
from tcmoa_runtime.options.bulk import BulkOptions, Container
from tcmoa_runtime.pair_fusion import Sources, fuse_batch, group_by_shape
from tcmoa_runtime.size_errors import SourceSizesError

if TYPE_CHECKING:
    import pyarrow

UNIT_COLUMN: Final = "unit"
INDEX_COLUMN: Final = "index"
RESULT_COLUMN: Final = "result"
_NUM_READERS: Final = 8
"""Threads that read ahead from remote storage, where a read waits for some 10 ms."""


@dataclass(frozen=True)
class WorkerSettings:
    """What an actor needs to know.

    Attributes:
        bundle: The bundle.
        options: How to load it and fuse with it.
        prompt: Alpha and beta.
        sources: Locations of both sources, for their file systems.
        out: Location of the results.
        container: How results are stored.
        is_resumed: Whether results may be there already.
        run: What identifies the run in the record of its results.
        began_ns: When it began, by the clock of the output folder, in nanoseconds since 1970; None if not known.
    """

    bundle: BundleReference
    options: BulkOptions
    prompt: Prompt
    sources: tuple[str, str]
    out: str
    container: Container
    is_resumed: bool
    run: str
    began_ns: int | None = None


_Loaded: TypeAlias = tuple[PairJob, Sources]


class BulkWorker:
    """Fuses units; Ray Data makes one in each process of its pool."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Keep the settings: the Fuser is loaded with the first unit, so that its errors are results."""
        show_log_of_worker()
        self._settings = settings
        self._fuser: Fuser | None = None
        self._storages: dict[str, Storage] = {}

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Fuse the units of a block: one row each, with its number and the unit."""
        import pyarrow

        units = map(_unpack_unit, batch[UNIT_COLUMN].to_pylist())
        results = [pickle.dumps(self.fuse(unit)) for unit in units]
        return pyarrow.table(
            {INDEX_COLUMN: batch[INDEX_COLUMN], RESULT_COLUMN: pyarrow.array(results, pyarrow.binary())}
        )

    def fuse(self, unit: Unit) -> UnitResult:
        """Fuse the pairs of a unit; no exception escapes."""
        result = UnitResult()
        start, cpu = time.perf_counter(), time.process_time()
        try:
            fuser = self._load()
            result.backend = fuser.backend.name
            x, y = map(self._storage_of, self._settings.sources)
            _Run(fuser, self._settings, self._results, (x, y), result).fuse(unit)
        except TcmoaError as error:
            result.fatal = error
        except MemoryError:
            result.fatal = TcmoaError(
                "out of memory", subject="a Fuser", remedy="Use fewer {actors}", settings={"actors": ...}
            )
        except Exception as error:
            result.fatal = TcmoaError(f"{type(error).__name__}: {first_line(error)}", subject="a Fuser")
        result.seconds = time.perf_counter() - start
        result.cpu_seconds = time.process_time() - cpu
        return result

    def _storage_of(self, location: str) -> Storage:
        if location not in self._storages:
            self._storages[location] = open_storage(location)[0]
        return self._storages[location]

    def _load(self) -> Fuser:
        """Load the bundle, and open the output."""
        if self._fuser is None:
            import cv2

            options = self._settings.options
            threads = options.threads or 1
            cv2.setNumThreads(threads)
            storage, path = open_storage(self._settings.out)
            self._results = ResultFolder(storage, path, self._settings.container, options.format)
            self._fuser = Fuser.load(
                self._settings.bundle.open_path(),
                options.backend,
                threads=threads,
                trust_engines=options.trust_engines,
                fit=options.fit or "auto",
                percentiles=options.stretch,
            )
        return self._fuser


def pack_unit(unit: Unit) -> bytes:
    """Return a unit as bytes: the names of a slice take a tenth of the object store when they are compressed."""
    return zlib.compress(pickle.dumps(unit), 1)


def _unpack_unit(data: bytes) -> Unit:
    unit: Unit = pickle.loads(zlib.decompress(data))
    return unit


class _Run:
    """Fusing one unit."""

    def __init__(
        self,
        fuser: Fuser,
        settings: WorkerSettings,
        out: ResultFolder,
        sources: tuple[Storage, Storage],
        result: UnitResult,
    ) -> None:
        self._fuser, self._settings, self._out, self._result = fuser, settings, out, result
        self._reader = JobReader(sources, settings.options.columns)
        self._is_remote = any(source.is_remote for source in sources)

    def fuse(self, unit: Unit) -> None:
        """Fuse the pairs that have no result yet, and write the results.

        An error of writing is not that of a pair, but ends the run: all others would meet it.
        """
        is_part = self._out.container != "files"
        check_owner(self._out, self._settings.run)
        there = self._list_there(unit) if is_part and self._settings.is_resumed else {}
        images: dict[str, bytes] = {}
        for job, image in self._encoded(self._pending(unit, there)):
            images[job.name] = image if is_part else b""
            if not is_part:
                self._out.storage.write(self._out.image_path(job.name), image)
        if images and is_part:
            # Old results stay in the file with their times: those that no new one replaces are outdated as before.
            before = self._out.read_part(unit.part) if there.keys() - images.keys() else {}
            check_owner(self._out, self._settings.run)
            new = {name: StoredImage(image) for name, image in images.items()}
            self._out.write_part(unit.part, {**before, **new})
        self._result.num_fused += len(images)

    def _list_there(self, unit: Unit) -> dict[str, bool]:
        """Return the pairs in the files of a unit, and of its pieces of earlier runs, and whether they are outdated."""
        there: dict[str, bool] = {}
        for path, modified_ns in self._out.parts_of(unit):
            for name, time_ns in self._out.read_times(path, modified_ns).items():
                there[name] = there.get(name, True) and self._is_old(unit, time_ns)
        return there

    def _is_old(self, unit: Unit, time_ns: int | None) -> bool:
        """Whether a result is older than the file of its unit; of image files, than the run, which compared them."""
        return is_outdated(
            time_ns, self._settings.began_ns if isinstance(unit, PairSlice) else unit.modified_ns
        )

    def _pending(self, unit: Unit, there: Mapping[str, bool]) -> Iterator[PairJob]:
        """Yield the pairs of a unit without a result; with `update`, also those whose result is outdated."""
        is_slice = isinstance(unit, PairSlice)
        # A run knows which images are there when it begins. Those of a unit whose process died came later.
        looks_up = self._settings.is_resumed and (not is_slice or unit.whole is not None)
        updates = self._settings.options.update or is_slice
        seen: set[str] = set()
        for job in self._reader.read(unit):
            if isinstance(job, PairFailure):
                self._result.failures.append(job)
                continue
            try:
                check_name(job.name, self._out.container)
                if job.name in seen:
                    raise repeated_name(job.name)
            except InputError as error:
                self._fail(job, error)
                continue
            seen.add(job.name)
            is_old = there.get(job.name)
            if looks_up and self._out.container == "files":
                found = self._out.storage.find(self._out.image_path(job.name))
                is_old = None if found is None else self._is_old(unit, found.modified_ns)
            if is_old is None or (is_old and updates):
                yield job
            elif is_slice:  # by this run: a slice has the pairs that it had no result of when it began
                self._result.num_fused += 1
            else:
                self._result.num_skipped += 1
                self._result.num_outdated += is_old

    def _encoded(self, jobs: Iterator[PairJob]) -> Iterator[tuple[PairJob, bytes]]:
        """Yield the encoded result of each pair that can be fused, in the batches of the bundle."""
        bundle = self._fuser.bundle
        image_format = IMAGE_FORMATS[f".{self._settings.options.format}"]
        for batch in group_by_shape(self._load(jobs), bundle.contract.batch):
            try:
                fused = fuse_batch(self._fuser, [sources for _, sources in batch], self._settings.prompt)
            except InputError as error:
                for job, _ in batch:
                    self._fail(job, error)
                continue
            for (job, _), frame in zip(batch, fused, strict=True):
                try:
                    yield job, encode_image(in_order(frame, bundle.channel_order), image_format, job.name)
                except InputError as error:
                    self._fail(job, error)

    def _load(self, jobs: Iterator[PairJob]) -> Iterator[_Loaded]:
        """Yield the sources of each pair that can be read; from remote storage, some are read ahead."""
        if not self._is_remote:
            for job in jobs:
                try:
                    yield job, self._read(job)
                except InputError as error:
                    self._fail(job, error)
            return
        with ThreadPoolExecutor(_NUM_READERS) as readers:
            waiting: list[tuple[PairJob, Future[Sources]]] = []
            for job in jobs:
                waiting.append((job, readers.submit(self._read, job)))
                if len(waiting) > 2 * _NUM_READERS:
                    yield from self._take(*waiting.pop(0))
            for item in waiting:
                yield from self._take(*item)

    def _take(self, job: PairJob, sources: Future[Sources]) -> Iterator[_Loaded]:
        try:
            yield job, sources.result()
        except InputError as error:
            self._fail(job, error)

    def _read(self, job: PairJob) -> Sources:
        order = self._fuser.bundle.channel_order
        x, y = in_order(job.read_x(), order), in_order(job.read_y(), order)
        if self._fuser.bundle.alignment is None and x.shape[:2] != y.shape[:2]:
            raise SourceSizesError((x.shape[0], x.shape[1]), (y.shape[0], y.shape[1]), job.x, job.y)
        return x, y

    def _fail(self, job: PairJob, error: TcmoaError) -> None:
        self._result.failures.append(PairFailure(job.name, job.x, job.y, error))
