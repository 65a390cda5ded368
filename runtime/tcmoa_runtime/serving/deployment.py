"""The service as a deployment of Ray Serve, which starts and stops replicas by the requests that wait.

Each replica is the application of `make_application`, unchanged: with its own queue, counts and checks of access.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from tcmoa_runtime.cluster.bundle_shipping import BundleReference
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.given_prompt import Prompt
from tcmoa_runtime.options.fuser import FuserOptions
from tcmoa_runtime.options.serve import ReplicaOptions, ServeOptions
from tcmoa_runtime.options.toml_table import field_value, unknown_key
from tcmoa_runtime.serving.application import make_application
from tcmoa_runtime.serving.bundles import loaded_fusers, name_bundles
from tcmoa_runtime.serving.local import service_access
from tcmoa_runtime.web.access import Access
from tcmoa_runtime.web.address import Address

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.applications import Starlette

DEPLOYMENT: Final = "Fusion"
"""Name of the deployment, by which a configuration of Ray Serve may set its replicas."""
SHUTDOWN_CHECK_SECONDS: Final = 0.2
"""Time between two looks of a replica that stops for requests that have not ended."""
TOKEN_VARIABLE: Final = "TCMOA_TOKEN"

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True, kw_only=True)
class ReplicaSpec:
    """What a replica serves; it can be pickled.

    Attributes:
        bundles: Bundles by name: references, paths on every node, or names of ready bundles.
        options: Limits of each replica.
        fuser_options: How to load and fit.
        prompt: Prompt of requests that give none.
        access: Who may connect.
    """

    bundles: Mapping[str, BundleReference | str]
    options: ServeOptions
    fuser_options: FuserOptions
    prompt: Prompt
    access: Access

    def build(self) -> Starlette:
        """Load the bundles in this process and return the application; they stay loaded until it ends."""
        _listen_on_node_address()
        paths = {
            name: bundle.open_path() if isinstance(bundle, BundleReference) else bundle
            for name, bundle in self.bundles.items()
        }
        fusers = _loaded.enter_context(loaded_fusers(paths, self.fuser_options))
        return make_application(fusers, self.options, access=self.access, prompt=self.prompt)


_loaded: Final = ExitStack()
"""Keeps the fusers of a replica."""


def make_deployment(spec: ReplicaSpec, replica_options: ReplicaOptions, num_cpus: float) -> Application:
    """Return the application of Ray Serve, to run it or to deploy it.

    Args:
        spec: What a replica serves.
        replica_options: Number of replicas, and GPUs of each.
        num_cpus: CPUs that each replica takes.
    """
    from ray import serve

    def build() -> Starlette:
        return spec.build()

    low, high = replica_options.bounds
    places = spec.options.concurrency + spec.options.max_queue
    scaling: dict[str, Any] = {"num_replicas": low}
    if high > low:
        scaling = {
            "autoscaling_config": {
                "min_replicas": low,
                "max_replicas": high,
                # One request more than is fused keeps a replica busy; more wait, and bring another one.
                "target_ongoing_requests": spec.options.concurrency + 1,
            }
        }
    deployment: Any = serve.deployment(  # annotated as a decorator's factory
        serve.ingress(build)(),
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": replica_options.gpus},
        max_ongoing_requests=places,
        max_queued_requests=max(1, spec.options.max_queue),
        graceful_shutdown_timeout_s=spec.options.grace,
        graceful_shutdown_wait_loop_s=SHUTDOWN_CHECK_SECONDS,
        **scaling,
    )
    bound: Application = deployment.bind()
    return bound


def build_application(args: dict[str, object]) -> Application:
    """Build the service from a configuration file of Ray Serve, e.g. of a RayService on Kubernetes.

        import_path: tcmoa_runtime.serving.deployment:build_application
        args: {bundles: [nano-vif], threads: 4}

    The proxies' host is not known here, so a token is required: the variable TCMOA_TOKEN of the replicas and of the
    process that builds.

    Args:
        args: `bundles`, a list of [NAME=]BUNDLE, each a path on every node or the name of a ready bundle; and fields of
            `ServeOptions`, `FuserOptions` and `ReplicaOptions`.

    Raises:
        InputError: A name is unknown, a value is wrong, or there is no token.
    """
    chosen = dict(args)
    bundles = chosen.pop("bundles", None)
    if not isinstance(bundles, list) or not bundles or not all(isinstance(b, str) for b in bundles):
        raise InputError("missing; expected a list of bundles, e.g. [nano-vif]", subject="bundles")
    options = _take_options(chosen, ServeOptions)
    fuser_options = _take_options(chosen, FuserOptions)
    replica_options = _take_options(chosen, ReplicaOptions)
    for name in chosen:
        known = [
            field.name for kind in (ServeOptions, FuserOptions, ReplicaOptions) for field in fields(kind)
        ]
        raise unknown_key(name, ["bundles", *known], subject="args", what="option")
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise InputError(
            "not set; expected the token that clients need",
            subject=TOKEN_VARIABLE,
            remedy="Set it in the environment",
        )
    address = Address("0.0.0.0", 0)
    spec = ReplicaSpec(
        bundles=name_bundles(bundles),
        options=options,
        fuser_options=fuser_options,
        prompt=Prompt.read(fuser_options.prompt_scale, fuser_options.prompt_shift),
        access=service_access(address, token, 0),
    )
    return make_deployment(spec, replica_options, fuser_options.threads or 1)


def _take_options(chosen: dict[str, object], kind: type[OptionsT]) -> OptionsT:
    """Take the fields of an options class out of a table."""
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind) if field.name in chosen]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: field_value(chosen.pop(name), hints[name], name) for name in names})


def _listen_on_node_address() -> None:
    """Let the server that Ray Serve starts in a replica, for calls of other deployments, listen on the node's address.

    Ray Serve binds it to all addresses of the machine, also where Ray itself is on loopback only.
    """
    import ray
    from ray.serve._private import replica

    add_port = vars(replica).get("add_port_to_grpc_server")
    if add_port is None:  # other versions of Ray
        return
    host = ray.util.get_node_ip_address()

    def add_node_port(server: object, address: str) -> object:
        port = address.rpartition(":")[2]
        return add_port(server, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    vars(replica)["add_port_to_grpc_server"] = add_node_port
