"""The nodes of a cluster: which take work, and whether each has this version of tcmoa."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tcmoa_runtime._version import __version__
from tcmoa_runtime.errors import MissingError, TcmoaError, first_line

CHECK_TIMEOUT_S: Final = 60.0
"""Time in which all nodes must start a process each and answer."""


@dataclass(frozen=True)
class ClusterNode:
    """A node that takes work.

    Attributes:
        node_id: Ray's name of it.
        address: Its IP address.
        num_cpus: Logical CPUs that it offers.
        num_gpus: GPUs that it offers.
    """

    node_id: str
    address: str
    num_cpus: float
    num_gpus: float


def list_nodes() -> tuple[ClusterNode, ...]:
    """Return the nodes that are alive and offer CPUs, by address."""
    import ray

    found = [
        ClusterNode(
            node["NodeID"],
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0
    ]
    return tuple(sorted(found, key=lambda node: (node.address, node.node_id)))


def free_cpus() -> float:
    """Return the logical CPUs of all nodes that no actor and no task takes now."""
    import ray

    return float(ray.available_resources().get("CPU", 0.0))


def on_each_node(
    function: Callable[..., object], nodes: Sequence[ClusterNode], *arguments: object
) -> list[object]:
    """Call a function once on each node, in a process there, whatever runs there already.

    Args:
        function: What to call; a nested function goes to nodes without this package too.
        nodes: Where.
        arguments: Its arguments.

    Returns:
        The results in the order of the nodes; for a node that died meanwhile, None.

    Raises:
        TcmoaError: A node does not answer in time.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(function)
    calls = [
        remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(*arguments)
        for node in nodes
    ]
    _done, late = ray.wait(calls, num_returns=len(calls), timeout=CHECK_TIMEOUT_S) if calls else ([], [])
    if late:
        silent = [node.address for node, call in zip(nodes, calls, strict=True) if call in late]
        raise TcmoaError(
            f"no answer in {CHECK_TIMEOUT_S:g} s; expected every node to start a process",
            subject=f"node {', '.join(silent)}",
            remedy="Look at its log, or remove it from the cluster",
        )
    results: list[object] = []
    for call in calls:
        try:
            results.append(ray.get(call))
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            results.append(None)
        except ray.exceptions.WorkerCrashedError:
            results.append(None)
    return results


def check_nodes() -> tuple[ClusterNode, ...]:
    """Return the nodes that take work, after comparing their version of tcmoa with that of this process.

    Raises:
        MissingError: A node has no tcmoa, or another version.
        TcmoaError: A node does not answer.
    """

    def read_version() -> str:  # nested, so that it goes to nodes without this package by value
        try:
            import tcmoa_runtime
        except ImportError as error:
            return f"!{error.name}"
        return str(tcmoa_runtime.__version__)

    nodes = list_nodes()
    try:
        versions = on_each_node(read_version, nodes)
    except (ImportError, RuntimeError) as error:
        raise TcmoaError(f"cannot run a task: {first_line(error)}", subject="Ray") from error
    for node, version in zip(nodes, versions, strict=True):
        if version is not None and version != __version__:
            text = str(version)
            arrived = f"the package {text[1:]} is not installed" if text[0] == "!" else f"tcmoa {text}"
            raise MissingError(
                f"{arrived}; expected tcmoa {__version__} as here",
                subject=f"node {node.address}",
                remedy=f"Install tcmoa {__version__} with its extra ray on every node of the cluster",
            )
    return nodes
