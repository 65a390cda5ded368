"""What `tcmoa doctor` says of a bundle and its engines: load, rebuild or refuse."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tcmoa_runtime.backends.pick import load_backend
from tcmoa_runtime.bundle import Bundle
from tcmoa_runtime.engine import FLAVORS, LOCAL, PRECISIONS, Engine, engine_stem, find_engines
from tcmoa_runtime.errors import BundleError, TcmoaError
from tcmoa_runtime.gpu.cuda import Device

_STEM: Final = re.compile(rf"({'|'.join(FLAVORS)})-([^-]+)-([^-]+)-({'|'.join(PRECISIONS)})")
_AGAIN: Final = re.compile(r"build it again with `[^`]*`")


@dataclass(frozen=True)
class Flavor:
    """A flavor of TensorRT on this machine; `version` is None when it cannot be imported.

    `targets`: compute capabilities that it builds for, as `sm89`; none when it does not tell. `crashes`: it ends
    the process that imports it.
    """

    name: str
    version: str | None = None
    targets: tuple[str, ...] = ()
    builds: bool = False
    runs: bool = False
    why: str | None = None
    crashes: bool = False

    def to_json(self) -> dict[str, Any]:
        """`version`, `builds`, `runs` and `why` not."""
        return {"version": self.version, "builds": self.builds, "runs": self.runs, "why": self.why}


@dataclass
class _Verdict:
    """On one engine. `blocks`: a bundle with it is not loaded by `auto`, whatever else is in it."""

    path: Path
    verdict: str
    why: str
    blocks: bool = False
    engine: Engine | None = None

    def to_json(self) -> dict[str, str]:
        return {"file": self.path.name, "verdict": self.verdict, "why": self.why}


def verdict(
    path: Path, flavors: Mapping[str, Flavor], gpu: Device | None, problems: list[str]
) -> dict[str, Any]:
    """`verdict` on the bundle, `why`, and `engines` with `file`, `verdict` and `why` each.

    `refuse`: the bundle is damaged, or nothing here runs it. `rebuild`: the bundle is sound, an engine is not, or
    was built by another version or for another GPU; `why` has the command and what runs the bundle until
    then. `load`: `why` names the backend that `auto` takes. An engine is refused, too, when only this machine is
    to blame, which needs no rebuilding. Faults of libraries are added to `problems`.
    """
    engines: list[_Verdict] = []
    try:
        bundle = Bundle.open(path)
        engines = _judge_engines(bundle, flavors, gpu)
        bundle.check()
    except BundleError as error:
        return _report("refuse", str(error), engines)
    loaded, failure = _try_backends(bundle, flavors, engines, problems)
    stale = [e for e in engines if e.verdict == "rebuild"]
    if stale:
        until = f"until then {loaded} runs it" if loaded else f"nothing else here runs it ({failure})"
        more = f" ({len(stale)} engines in all)" if len(stale) > 1 else ""
        return _report("rebuild", f"{stale[0].path.name}: {stale[0].why}{more}; {until}", engines)
    if loaded and not failure:
        return _report("load", f"hashes and contract are right, {loaded} runs it", engines)
    if loaded:
        return _report("refuse", f"`auto` fails: {failure}; {loaded} runs it", engines)
    return _report("refuse", failure, engines)


def _report(what: str, why: str, engines: list[_Verdict]) -> dict[str, Any]:
    return {"verdict": what, "why": why, "engines": [engine.to_json() for engine in engines]}


def _try_backends(
    bundle: Bundle, flavors: Mapping[str, Flavor], engines: list[_Verdict], problems: list[str]
) -> tuple[str, str]:
    """What runs the bundle, empty when nothing does, and why `auto` does not, empty when it does."""
    crashing = [flavors[e.engine.flavor] for e in engines if e.engine is not None]
    crashing = [flavor for flavor in crashing if flavor.crashes]
    if crashing:  # `auto` would import it
        name, failure = _try(bundle, "onnxruntime", problems)
        return (f"`--backend onnxruntime`, {name},", f"{crashing[0].why}") if name else ("", failure)
    name, failure = _try(bundle, "auto", problems)
    if name:
        return name, ""
    for engine in engines:
        # TensorRT itself found fault with it, although its hash is right.
        if engine.verdict == "load" and failure.startswith(f"{engine.path}: "):
            engine.verdict, engine.why = "rebuild", failure.removeprefix(f"{engine.path}: ")
    if not engines:
        return "", failure
    name, _ = _try(bundle, "onnxruntime", problems)
    return (f"`--backend onnxruntime`, {name}," if name else ""), failure


def _try(bundle: Bundle, backend: str, problems: list[str]) -> tuple[str, str]:
    """Name of the backend when it loads, else why not."""
    try:
        loaded = load_backend(bundle, backend)
        name = loaded.name
        loaded.close()
    except BundleError as error:
        return "", str(error)
    except TcmoaError as error:
        return "", f"no backend can run it here: {error}"
    except Exception as error:  # a broken library fails with anything
        line = (str(error).strip().splitlines() or [""])[0][:200]
        problems.append(f"backend {backend} failed: {type(error).__name__}: {line}")
        return "", f"no backend can run it here: {type(error).__name__}: {line}"
    return name, ""


def _judge_engines(bundle: Bundle, flavors: Mapping[str, Flavor], gpu: Device | None) -> list[_Verdict]:
    verdicts = [_judge(bundle, path, flavors, gpu) for path in find_engines(bundle)]
    runs = {
        (v.engine.flavor, v.engine.precision): v.path.name
        for v in verdicts
        if v.verdict == "load" and v.engine is not None
    }
    for found in verdicts:
        if found.verdict != "rebuild" or found.blocks or found.engine is None:
            continue
        other = runs.get((found.engine.flavor, found.engine.precision))
        if other is not None:  # as after an upgrade, or in a bundle for several machines
            found.verdict = "refuse"
            found.why = f"{found.why.partition('; ')[0]}; {other} takes its place here"
    return verdicts


def _judge(bundle: Bundle, path: Path, flavors: Mapping[str, Flavor], gpu: Device | None) -> _Verdict:
    engine: Engine | None = None
    try:
        engine = Engine.open(bundle, path)
        engine.read()
        if engine.weights is not None:
            engine.read_weights()
    except BundleError as error:
        command = _rebuilding(bundle, path, engine, flavors, blocks=True)
        why = _AGAIN.sub(lambda _: command, str(error).removeprefix(f"{path}: "))
        return _Verdict(path, "rebuild", why, blocks=True, engine=engine)
    flavor = flavors[engine.flavor]
    if flavor.version is None:
        return _Verdict(path, "refuse", f"{flavor.why}", engine=engine)
    if flavor.version != engine.version:  # counts without a GPU, too: it may be built anew here
        why = f"it was built by {engine.flavor} {engine.version}, installed is {flavor.version}"
        return _Verdict(
            path, "rebuild", f"{why}; {_rebuilding(bundle, path, engine, flavors)}", engine=engine
        )
    if gpu is None or not flavor.runs:
        return _Verdict(path, "refuse", f"{flavor.why}", engine=engine)
    unfit = engine.fits(engine.flavor, flavor.version, gpu.compute_capability)
    if unfit is None:
        return _Verdict(path, "load", f"runs on {gpu.name}", engine=engine)
    command = _rebuilding(bundle, path, engine, flavors, gpu)
    return _Verdict(path, "rebuild", f"{unfit}; {command}", engine=engine)


def _rebuilding(
    bundle: Bundle,
    path: Path,
    engine: Engine | None,
    flavors: Mapping[str, Flavor],
    gpu: Device | None = None,
    *,
    blocks: bool = False,
) -> str:
    """What to run for an engine in the place of this one; for `gpu`, too, when that is given.

    A file that `blocks` loading, and that the new engine does not replace, is removed first.
    """
    match = _STEM.fullmatch(path.stem)
    options: dict[str, Any] = {}
    if engine is not None:
        name, precision, targets = engine.flavor, engine.precision, list(engine.targets)
        options = engine.manifest["options"]
    elif match is not None:
        name, precision = match[1], match[4]
        targets = [] if match[3] == LOCAL else match[3].split("+")
    else:
        remove, build = shlex.join(["rm", str(path)]), shlex.join(["tcmoa", "build", str(bundle.path)])
        return f"remove it with `{remove}`, and build an engine with `{build}`"
    if gpu is not None and name == "rtx":
        targets.append("sm" + gpu.compute_capability.replace(".", ""))
    words = ["tcmoa", "build", str(bundle.path), "--flavor", name, "--precision", precision]
    if targets and name == "rtx":
        words += ["--target", ",".join(targets)]
    if engine is not None and engine.manifest["hardware_compatibility"] != "none":
        words += ["--hardware-compatibility", engine.manifest["hardware_compatibility"]]
    if isinstance(options.get("workspace_mb"), int):
        words += ["--workspace", str(options["workspace_mb"])]
    if engine is not None and engine.stripped:
        words.append("--strip")
    if options.get("allow_unfused") is True:
        words.append("--allow-unfused")
    command = shlex.join(words)
    if blocks and path.stem != engine_stem(name, f"{flavors[name].version}", targets, precision):
        command = f"{shlex.join(['rm', str(path)])} && {command}"
    return f"build it again with `{command}`"
