"""The bundles of a service and their names in URLs, loaded and run once before requests are taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.fuser import Fuser
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.repository import MODEL_NAME, MODEL_NAME_RULE


def name_bundles(texts: Sequence[str]) -> dict[str, str]:
    """Return the bundles by the names that requests give.

    Args:
        texts: BUNDLE, whose name is that of its folder, or NAME=BUNDLE. What exists as a path is a path.

    Raises:
        InputError: A name cannot stand in a URL, or two bundles have one name.
    """
    named: dict[str, str] = {}
    for text in texts:
        name, mark, path = text.partition("=")
        if not mark or Path(text).exists():
            name, path = Path(text).resolve().name, text
        if not path:
            raise InputError(
                "no bundle; expected its folder, or the name of a ready one: NAME=BUNDLE", subject=repr(text)
            )
        if not MODEL_NAME.fullmatch(name):
            raise InputError(
                f"the name {name!r} cannot stand in a URL; expected {MODEL_NAME_RULE}",
                subject=text,
                remedy="Give it another name: NAME=BUNDLE",
            )
        if name in named:
            raise InputError(
                f"the name {name} is that of {named[name]} already; expected a name for each bundle",
                subject=text,
                remedy="Give it another name: NAME=BUNDLE",
            )
        named[name] = path
    return named


@contextmanager
def loaded_fusers(bundles: Mapping[str, str | Path], options: FuserOptions) -> Iterator[dict[str, Fuser]]:
    """Load bundles for the time of a with-block, and run each once: the first run of a backend takes longer.

    Args:
        bundles: Paths, or names of ready bundles, by name.
        options: How to load and fit.

    Raises:
        BundleError: A bundle must not be loaded.
        MissingError: A backend's package or device is missing.
    """
    with ExitStack() as stack:
        fusers = {}
        for name, path in bundles.items():
            fuser = stack.enter_context(
                Fuser.load(
                    path,
                    options.backend,
                    threads=options.threads,
                    trust_engines=options.trust_engines,
                    fit=options.fit or "auto",
                    percentiles=options.stretch,
                )
            )
            blank = np.zeros((*fuser.size, 3), np.uint8)
            fuser(blank, blank)
            fusers[name] = fuser
        yield fusers
