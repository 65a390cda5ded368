"""The fields of the custom resources that the chart writes, as the references of their operators list them.

Their schemas are in no package, and Kubernetes drops a misspelled field without a word. A dict holds the fields of an
object, a list those of each item; ANY is not looked into, POD is a template of pods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

ANY: Final = "any"
POD: Final = "pod"


def _fields(names: str, **others: object) -> dict[str, object]:
    return {**dict.fromkeys(names.split(), ANY), **others}


_CLUSTER: Final = _fields(
    "suspend managedBy headServiceAnnotations enableInTreeAutoscaling gcsFaultToleranceOptions rayVersion",
    authOptions=_fields("mode secretName"),
    autoscalerOptions=_fields(
        "resources image imagePullPolicy securityContext idleTimeoutSeconds upscalingMode version env envFrom "
        "volumeMounts"
    ),
    headGroupSpec=_fields("headService enableIngress rayStartParams serviceType", template=POD),
    workerGroupSpecs=[
        _fields(
            "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds rayStartParams scaleStrategy "
            "numOfHosts",
            template=POD,
        )
    ],
)

CUSTOM_KINDS: Final = {
    ("ray.io/v1", "RayCluster"): _CLUSTER,
    ("ray.io/v1", "RayService"): _fields(
        "serveService serveConfigV2 excludeHeadPodFromServeSvc",
        upgradeStrategy=_fields("type"),
        rayClusterConfig=_CLUSTER,
    ),
    ("ray.io/v1", "RayJob"): _fields(
        "activeDeadlineSeconds backoffLimit metadata clusterSelector managedBy entrypoint runtimeEnvYAML jobId "
        "submissionMode entrypointResources entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished "
        "shutdownAfterJobFinishes suspend",
        submitterConfig=_fields("backoffLimit"),
        submitterPodTemplate=POD,
        rayClusterSpec=_CLUSTER,
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _fields(
        "targetLabels podTargetLabels jobLabel",
        selector=_fields("matchLabels matchExpressions"),
        endpoints=[
            _fields(
                "port path scheme interval scrapeTimeout relabelings metricRelabelings",
                authorization=_fields("type", credentials=_fields("name key optional")),
            )
        ],
    ),
}
"""Fields of `spec` by API version and kind."""


def find_unknown_fields(value: object, fields: object, path: str) -> Iterator[str]:
    """Yield what is unknown to a kind, or no object or list where one is due."""
    if isinstance(fields, list):
        if not isinstance(value, list):
            yield f"{path}: {value!r}; expected a list"
            return
        for index, item in enumerate(value):
            yield from find_unknown_fields(item, fields[0], f"{path}.{index}")
    elif isinstance(fields, dict):
        if not isinstance(value, dict):
            yield f"{path}: {value!r}; expected an object"
            return
        for name, item in value.items():
            if name in fields:
                yield from find_unknown_fields(item, fields[name], f"{path}.{name}")
            else:
                yield f"{path}.{name}: unknown; expected {', '.join(fields)}"


def find_pods(value: object, fields: object) -> Iterator[dict]:
    """Yield the templates of pods in a custom object whose fields are known."""
    if fields is POD:
        yield value
    elif isinstance(fields, list):
        for item in value:
            yield from find_pods(item, fields[0])
    elif isinstance(fields, dict):
        for name in fields.keys() & value.keys():
            yield from find_pods(value[name], fields[name])
