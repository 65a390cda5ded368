"""Check the GPU code against NVIDIA's real wheels, headers and driver library; needs no GPU.

    python -m proof [--folder build/gpu-proof] [--only calls]

Prints a table. The exit code is 1 when something does not fit. What cannot be checked on this machine is a row with the
reason.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proof import driver_check, header_check, load_check, needed_check, rtx_check, signature_check
from proof.report import Row, SkippedError, format_table
from proof.sources import ROOT
from proof.wheels import Wheels


class Context:
    """What the checks share: the cache of packages, the driver's libraries and the resolved extras."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.wheels = Wheels(self.folder)
        self.installed = needed_check.Resolver(self.wheels)
        self.lock = self.wheels.lock

    def driver(self):
        """Return the folder of the driver's libraries; raises SkippedError."""
        with self.lock("driver"):
            return driver_check.driver_folder(self.folder / "driver")


def pieces(context, only):
    """Yield the checks: piece, subject, and function that returns rows."""
    if only in (None, "engines"):
        try:
            for version in rtx_check.rtx_versions(context):
                yield (
                    "engines",
                    f"TensorRT-RTX {version}",
                    lambda v=version: rtx_check.check_build(context, v),
                )
        except SkippedError as error:
            yield "engines", "TensorRT-RTX", lambda e=error: _skip(e)
    if only in (None, "calls"):
        for library in signature_check.LIBRARIES:
            subject = f"{library.module}, extra {library.extra}"
            yield "calls", subject, lambda x=library: signature_check.check_library(context, x)
    if only in (None, "libraries"):
        for consumer in needed_check.consumers():
            subject = f"{consumer.package}, extras {', '.join(consumer.extras)}"
            yield "libraries", subject, lambda c=consumer: needed_check.check_consumer(context, c)
        yield "libraries", f"{load_check.PACKAGE} loads", lambda: load_check.check_plugin(context)
    if only in (None, "headers"):
        yield "headers", "cuda.h", lambda: header_check.check_headers(context)
    if only in (None, "driver"):
        for subject, check in driver_check.CHECKS.items():
            yield "driver", subject, lambda c=check: c(context)


def _skip(error):
    raise error


def _run(piece, subject, check):
    try:
        return check()
    except SkippedError as error:
        return [Row(piece, subject, "skipped", str(error))]


def main(arguments=None):
    """Run the checks and print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m proof", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=ROOT / "build" / "gpu-proof", help="downloads and what is built")
    parser.add_argument("--only", choices=("calls", "libraries", "headers", "driver", "engines"))
    options = parser.parse_args(arguments)
    start = time.monotonic()
    context = Context(options.folder)
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = [pool.submit(_run, *piece) for piece in pieces(context, options.only)]
        rows = sorted(
            (row for each in running for row in each.result()), key=lambda row: (row.piece, row.subject)
        )
    print(format_table(rows))
    counts = {status: sum(row.status == status for row in rows) for status in ("ok", "FAILED", "skipped")}
    print(
        ", ".join(f"{count} {status}" for status, count in counts.items()),
        f"in {time.monotonic() - start:.0f} s",
    )
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
