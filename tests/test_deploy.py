"""The compose files, the Helm chart and what containers run, as far as they can be checked without them.

`make deploy-lint` compares rendered objects with Kubernetes' schemas; these tests read what is rendered.
"""

import hashlib
import http.server
import json
import re
import shlex
import socket
import subprocess
import sys
import tarfile
import threading
from functools import cache
from pathlib import Path

import pytest

import tcmoa_runtime
from tcmoa_runtime import Bundle
from tcmoa_runtime.ready_bundles import resolve_bundle
from test_documents import check_parses

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "tcmoa"
TOOLS = ROOT / "build" / "tools" / "bin"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
HEALTHCHECK = "/opt/tcmoa-healthcheck.py"
TOKEN = "a-token-of-yours"
VARIABLES = {
    "TCMOA_TOKEN": TOKEN,
    "TCMOA_X": "rtsp://user:word@camera/1?a=1&b=2",
    "TCMOA_Y": "rtsp://camera/2",
    "TCMOA_DATA": "/data",
    "RAY_AUTH_TOKEN": TOKEN,
}
DEVICES = {**VARIABLES, "TCMOA_X": "/dev/video0", "TCMOA_Y": "/dev/video2"}
COMPOSE = (
    (("try.yaml",), VARIABLES),
    (("stream.yaml",), VARIABLES),
    (("stream.yaml", "devices.yaml"), DEVICES),
    (("stream.yaml", "gpu.yaml"), VARIABLES),
    (("service.yaml",), VARIABLES),
    (("service.yaml", "gpu.yaml"), VARIABLES),
    (("ray.yaml",), VARIABLES),
)
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; `pip install 'tcmoa[ray]'` runs this")
sys.path.insert(0, str(DEPLOY))
from custom_resources import CUSTOM_KINDS, find_unknown_fields  # noqa: E402


def run_tool(name, *arguments, variables=None):
    if not (TOOLS / name).exists():
        pytest.skip(f"build/tools/bin/{name} is absent; `make deploy-lint` fetches it, and this runs")
    return subprocess.run(
        [TOOLS / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=variables or {"HOME": "/"},
    )


def compose(names, variables):
    files = [word for name in names for word in ("-f", DEPLOY / "compose" / name)]
    return run_tool("docker-compose", *files, "config", "--format", "json", variables=variables)


@pytest.fixture(scope="module", params=COMPOSE, ids=lambda case: "+".join(case[0]))
def services(request):
    done = compose(*request.param)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_services_run_commands_that_exist(services):
    for service in services.values():
        program, command = service["entrypoint"] or ["tcmoa"], service["command"]
        if program == ["tcmoa"]:
            check_parses(command)
        else:
            assert program == ["ray"]
            check_ray_parses(command)
        check = service.get("healthcheck", {}).get("test")
        if check:
            assert check[:2] == ["CMD", "ray"]
            check_ray_parses(check[2:])


def check_ray_parses(words):
    scripts = pytest.importorskip("ray.scripts.scripts", reason="`pip install 'tcmoa[ray]'` runs this")
    scripts.cli.commands[words[0]].make_context(words[0], list(words[1:]))


def test_services_have_no_rights_that_they_do_not_need(services):
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1"


def test_a_source_with_a_query_is_one_word():
    command = json.loads(compose(("stream.yaml",), VARIABLES).stdout)["services"]["tcmoa"]["command"]
    assert command[:4] == ["stream", "nano-vif", VARIABLES["TCMOA_X"], VARIABLES["TCMOA_Y"]]


@pytest.mark.parametrize("name", ["try.yaml", "stream.yaml", "service.yaml", "ray.yaml"])
def test_nothing_starts_without_a_token(name):
    without = {key: value for key, value in VARIABLES.items() if not key.endswith("TOKEN")}
    done = compose((name,), without)
    assert done.returncode == 1
    assert re.search(r"required variable (TCMOA|RAY_AUTH)_TOKEN is missing a value: the token ", done.stderr)


def test_health_is_asked_of_routes_that_exist(services):
    from tcmoa_runtime.serving.routes import API as SERVICE_API
    from tcmoa_runtime.streams.page.routes import API as PAGE_API

    paths = {route.path for route in (*SERVICE_API.routes, *PAGE_API.routes)}
    for service in services.values():
        url = service.get("environment", {}).get("TCMOA_HEALTH_URL")
        if url is not None:
            port, path = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.+)", url).groups()
            assert path in paths
            assert port == str(service["ports"][0]["target"])


# The health check


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 200 if self.path == "/open" else 503 if self.path == "/busy" else 401
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            status = 200
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def check_health(*urls, **variables):
    program = ROOT / "docker" / "healthcheck.py"
    done = subprocess.run(
        [sys.executable, "-S", program, *urls], capture_output=True, text=True, check=False, env=variables
    )
    return done.returncode, done.stdout + done.stderr


def test_health_is_good_if_every_url_answers(url):
    assert check_health() == (0, "")
    assert check_health(f"{url}/open", http_proxy="http://127.0.0.1:9") == (0, "")
    assert check_health(TCMOA_HEALTH_URL=f"{url}/open", TCMOA_TOKEN="") == (0, "")
    assert check_health(f"{url}/open", f"{url}/closed", TCMOA_TOKEN=TOKEN) == (0, "")
    assert check_health("--alive", f"{url}/busy", f"{url}/closed") == (0, "")


def test_health_is_bad_in_one_line(url):
    assert check_health(f"{url}/open", f"{url}/busy") == (1, f"{url}/busy: status 503; expected 200\n")
    assert check_health(f"{url}/closed", TCMOA_TOKEN="wrong") == (
        1,
        f"{url}/closed: status 401; expected 200\n",
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code, line = check_health(f"http://127.0.0.1:{port}/")
    assert (code, line.count("\n")) == (1, 1)
    assert line.startswith(f"http://127.0.0.1:{port}/: ")
    assert "Connection refused" in line
    code, line = check_health("--alive", f"http://127.0.0.1:{port}/")
    assert (code, "Connection refused" in line) == (1, True)
    assert check_health("nothing") == (1, "nothing: unknown url type: 'nothing'; expected an answer\n")


# The Helm chart


@cache
def template(*arguments):
    return run_tool("helm", "template", "release", CHART, *arguments)


def render(*arguments):
    done = template(*arguments)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def objects(request):
    return render("--values", request.param)


def named(objects, kind, end=""):
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(end))
    return found


def pods(found):
    """Every specification of a pod in an object."""
    if isinstance(found, dict):
        if "containers" in found:
            yield found
        for value in found.values():
            yield from pods(value)
    elif isinstance(found, list):
        for value in found:
            yield from pods(value)


def test_pods_run_commands_that_exist(objects):
    count = 0
    for pod in pods(objects):
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            words = container.get("args", [])
            if container.get("command") == ["/bin/sh", "-c"] and words[1:2] == ["tcmoa"]:
                words = words[2:]
            elif "command" in container or not words:  # of Ray's pods, the operator sets it
                continue
            check_parses([word.replace("$(TCMOA_CPUS)", "2") for word in words])
            assert words[1].startswith("/bundles/") or resolve_bundle(words[1]).is_dir()
            count += 1
    for found in objects:
        if found["kind"] == "RayJob":
            program, *words = shlex.split(found["spec"]["entrypoint"])
            assert program == "tcmoa"
            check_parses(words)
            count += 1
    assert count or named(objects, "RayService")


def test_pods_have_no_rights_that_they_do_not_need(objects):
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False  # a Service of this name would set TCMOA_PORT and others
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "resources" in container
            written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert "/tmp" in written


def test_volumes_that_are_mounted_exist(objects):
    for pod in pods(objects):
        volumes = [volume["name"] for volume in pod["volumes"]]
        assert len(volumes) == len(set(volumes))
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)


def test_selectors_find_the_pods_and_names_are_unique(objects):
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(names) == len(set(names))
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in objects if o["kind"] == "Deployment"]
    for found in objects:
        if found["kind"] == "Service":
            assert sum(found["spec"]["selector"].items() <= one.items() for one in labels) == 1
        if found["kind"] in ("Deployment", "PodDisruptionBudget"):
            selector = found["spec"]["selector"]["matchLabels"]
            assert sum(selector.items() <= one.items() for one in labels) == 1


def test_what_is_named_elsewhere_is_a_service_of_the_chart(objects):
    """The backends of an Ingress, and the pages and services that `helm test` asks."""
    services = {
        (o["metadata"]["name"], port["port"]): o["spec"]["ports"]
        for o in objects
        if o["kind"] == "Service"
        for port in o["spec"]["ports"]
    }
    for found in objects:  # KubeRay makes this one
        if found["kind"] == "RayService":
            services[f"{found['metadata']['name']}-serve-svc", 8000] = []
        if found["kind"] == "Ingress":
            for rule in found["spec"]["rules"]:
                backend = rule["http"]["paths"][0]["backend"]["service"]
                assert (backend["name"], backend["port"]["number"]) in services
    test = named(objects, "Pod")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = test["spec"]["containers"]
    assert container["command"] == ["python", HEALTHCHECK]
    asked = {tuple(re.match(r"http://([a-z-]+):(\d+)/", url).groups()) for url in container["args"]}
    assert {(name, int(port)) for name, port in asked} == set(services)


@pytest.mark.parametrize("values", EXAMPLES, ids=lambda path: path.name)
def test_the_notes_name_what_there_is(values):
    notes = run_tool("helm", "install", "release", CHART, "--dry-run=client", "--values", values).stdout
    notes = notes[notes.index("NOTES:") :]
    names = {found["metadata"]["name"] for found in render("--values", values)}
    said = re.findall(r"(?:service|job)/([a-z-]+)", notes)
    assert said
    for name in (*said, re.search(r"get secret (\S+)", notes)[1]):
        assert re.sub("-(serve|head)-svc$", "", name) in names or name == "fusion-token"
    for command in re.findall(r"-- tcmoa (.+)", notes):
        check_parses(shlex.split(command))


def test_versions_are_those_of_the_package_and_of_the_lock():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == tcmoa_runtime.__version__
    version = yaml.safe_load((CHART / "values.yaml").read_text())["ray"]["version"]
    assert re.search(
        rf"^ray(\[.*\])?=={re.escape(version)} ", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )


def test_the_probes_of_a_stream_run_the_script_of_the_image():
    for path in (ROOT / "docker").glob("*.Dockerfile"):
        assert f"COPY docker/healthcheck.py {HEALTHCHECK}\n" in path.read_text()
    (container,) = named(render("--values", CHART / "examples" / "pairs.yaml"), "Deployment", "-gate")[
        "spec"
    ]["template"]["spec"]["containers"]
    command = ["python", HEALTHCHECK]
    assert container["startupProbe"]["exec"]["command"] == [
        *command,
        "http://localhost:8080/api/frame.jpg?width=64",
    ]
    assert container["livenessProbe"]["exec"]["command"] == [
        *command,
        "--alive",
        "http://localhost:8080/api/stats",
    ]
    assert container["readinessProbe"]["exec"] == container["startupProbe"]["exec"]
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] == 300


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "RollingUpdate"),
        ({"outputs": ["rtsp://server/a"]}, "Recreate"),
        ({"gpu": 1}, "Recreate"),
        ({"resources": {"limits": {"cameras.example/video0": 1}}}, "Recreate"),
        ({"gpu": 1, "strategy": "RollingUpdate"}, "RollingUpdate"),
    ],
    ids=["network cameras", "an output", "a GPU", "a device", "as stated"],
)
def test_a_new_pod_waits_for_the_old_one_only_where_both_cannot_be(values, expected):
    pair = {"name": "a", "source_x": "rtsp://c/1", "source_y": "rtsp://c/2", **values}
    strategy = named(render("--set-json", f"pairs={json.dumps([pair])}"), "Deployment")["spec"]["strategy"]
    assert strategy["type"] == expected
    assert ("rollingUpdate" in strategy) == (expected == "RollingUpdate")


def test_a_pod_of_the_service_has_time_to_end():
    spec = named(
        render("--set", "service.enabled=true,service.drainSeconds=7,service.stopSeconds=40"), "Deployment"
    )["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "7"]
    assert "--grace=40" in container["args"]
    assert container["livenessProbe"]["exec"]["command"][2:] == [
        "--alive",
        "http://localhost:8000/v2/health/live",
    ]
    assert pod["terminationGracePeriodSeconds"] > 7 + 40
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_passwords_of_cameras_and_tokens_come_from_secrets():
    objects = render("--values", CHART / "examples" / "pairs.yaml", "--set", f"token.value={TOKEN}")
    secret = named(objects, "Secret")
    assert secret["stringData"] == {"token": TOKEN}
    assert TOKEN not in json.dumps([found for found in objects if found is not secret])
    (container,) = named(objects, "Deployment", "-yard")["spec"]["template"]["spec"]["containers"]
    assert container["args"][2:4] == ["$(TCMOA_SOURCE_X)", "$(TCMOA_SOURCE_Y)"]
    found = {
        variable["name"]: variable.get("valueFrom", {}).get("secretKeyRef") for variable in container["env"]
    }
    assert found["TCMOA_TOKEN"] == {"name": secret["metadata"]["name"], "key": "token"}
    assert found["TCMOA_SOURCE_Y"] == {"name": "yard-cameras", "key": "source_y"}


@pytest.mark.parametrize(
    "bundle", [{}, {"claim": "bundles", "path": "fleet/night-640x480"}], ids=["ready", "claim"]
)
def test_ray_serve_understands_its_configuration(bundle, monkeypatch):
    schema = pytest.importorskip("ray.serve.schema", reason="`pip install 'tcmoa[ray]'` runs this")
    from tcmoa_runtime.serving import deployment

    values = ("--values", CHART / "examples" / "ray.yaml", "--set-json", f"bundle={json.dumps(bundle)}")
    spec = named(render(*values), "RayService")["spec"]
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = config.applications
    module, _, function = application.import_path.partition(":")
    assert (module, function) == (deployment.__name__, deployment.build_application.__name__)
    monkeypatch.setenv("TCMOA_TOKEN", TOKEN)
    built = deployment.build_application(application.args)._bound_deployment
    assert built.name == "Fusion"
    assert built.ray_actor_options == {"num_cpus": 2.0, "num_gpus": 0.0}
    scaling = built._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 16)
    assert built._deployment_config.graceful_shutdown_timeout_s == 30
    for group in (spec["rayClusterConfig"]["headGroupSpec"], *spec["rayClusterConfig"]["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "serve", "containerPort": config.http_options.port} in container["ports"]
        assert any(variable["name"] == "TCMOA_TOKEN" for variable in container["env"])


def test_what_is_stored_in_a_cluster_has_no_token():
    """KubeRay makes the token of a cluster, and that of the service comes from the Secret."""
    objects = render("--values", CHART / "examples" / "ray.yaml", "--set", f"token.value={TOKEN}")
    for found in objects:
        if found["kind"] in ("RayService", "RayJob"):
            cluster = found["spec"].get("rayClusterConfig") or found["spec"]["rayClusterSpec"]
            assert cluster["authOptions"] == {"mode": "token"}
            assert TOKEN not in json.dumps(found)


PAIR = "pairs[0].name=a,pairs[0].source_x=x,pairs[0].source_y=y"


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("pair[0].name=a", "additional properties 'pair' not allowed"),
        ("service.enable=true", "at '/service': additional properties 'enable' not allowed"),
        (f"{PAIR},pairs[0].deflicker=1", "at '/pairs/0': additional properties 'deflicker' not allowed"),
        ("pairs[0].name=a,pairs[0].source_x=x", "missing property 'source_y'"),
        (f"{PAIR},pairs[0].sourcesFrom=b", "at '/pairs/0': 'oneOf' failed"),
        (f"{PAIR},pairs[0].outputs={{/video/a.mkv}}", "pairs: a: each start would overwrite /video/a.mkv; "),
        ("service.enabled=true,service.options.max_queue=3", "service.options: options of the engine ray; "),
        ("service.enabled=true,service.engine=ray,service.args={--fit}", "service.args: arguments of the command"),
        ("pairs[0].name=A", "at '/pairs/0/name': 'A' does not match pattern"),
        ("bundle.claim=a", "missing property 'path'"),
        ("bundle.claim=a,bundle.path=../b", "at '/bundle/path': 'not' failed"),
        (f"{PAIR},ingress.enabled=true", "ingress.domain: missing; expected the domain"),
        ("token.value=short", "at '/token/value': 'short' does not match pattern"),
        ("service.engine=knative", "at '/service/engine': value must be one of 'deployment', 'ray'"),
        (f"{PAIR},pairs[1].name=a,pairs[1].source_x=x,pairs[1].source_y=z", "pairs: two of the name a; expected one."),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_refused(setting, line):
    done = template("--set", setting)
    assert done.returncode == 1
    assert line in done.stderr


def test_no_key_of_a_file_is_read_as_true_or_false():
    files = [
        CHART / "values.yaml",
        *EXAMPLES,
        *(DEPLOY / "compose").glob("*.yaml"),
    ]
    for path in files:
        check_keys(yaml.safe_load(path.read_text()), path.name)


def check_keys(value, place):
    if isinstance(value, dict):
        for key, item in value.items():
            assert isinstance(key, str), f"{place}: {key!r}"
            check_keys(item, f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            check_keys(item, place)


def test_the_schema_and_the_values_have_the_same_names():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    check_names(schema, values, schema["definitions"], "")


def check_names(schema, values, definitions, place):
    schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if schema.get("additionalProperties") is not False:
        return
    names = set(schema["properties"]) - ({"global"} if not place else {"claims"})
    assert names == set(values), place
    for name in names:
        if isinstance(values[name], dict):
            check_names(schema["properties"][name], values[name], definitions, f"{place}.{name}")


def test_a_misspelled_field_of_a_custom_object_is_found():
    (found,) = (
        o for o in render("--values", CHART / "examples" / "bundles.yaml") if o["kind"] == "RayCluster"
    )
    fields = CUSTOM_KINDS[found["apiVersion"], found["kind"]]
    assert list(find_unknown_fields(found["spec"], fields, "spec")) == []
    spec = {**found["spec"], "headGroupSpecs": {}, "workerGroupSpecs": [{"replica": 1}], "authOptions": []}
    lines = list(find_unknown_fields(spec, fields, "spec"))
    assert [line.partition("; expected")[0] for line in lines] == [
        "spec.authOptions: []",
        "spec.workerGroupSpecs.0.replica: unknown",
        "spec.headGroupSpecs: unknown",
    ]


# Bundles that are downloaded


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Serve an archive with a ready bundle, and one with a path that leads out of the folder; yield (folder, URL)."""
    folder = tmp_path_factory.mktemp("archives")
    with tarfile.open(folder / "good.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(resolve_bundle("nano-vif"), "night")
    with tarfile.open(folder / "hostile.tar", "w") as archive:
        archive.add(__file__, "../outside")
    (folder / "text").write_text("no archive")

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(archives, name, target, sha256=None):
    """Run the init container's command, as the chart renders it."""
    folder, url = archives
    pair = {"name": "a", "source_x": "1", "source_y": "2", "bundle": {
        "url": f"{url}/{name}?signature=secret",
        "sha256": sha256 or hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        "path": "night",
    }}  # fmt: skip
    pod = named(render("--set-json", f"pairs={json.dumps([pair])}"), "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["initContainers"]
    program, option = container["command"]
    script, *arguments, place = container["args"]
    assert (program, option) == ("python", "-c")
    assert pod["containers"][0]["args"][1] == f"{place}/night"
    done = subprocess.run(
        [sys.executable, option, script, *arguments, target], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_downloaded_bundle_is_the_one_that_was_stated(archives, tmp_path):
    assert fetch(archives, "good.tar.gz", tmp_path) == (0, "")
    assert Bundle.open(tmp_path / "night").task == "vif"
    kept = (tmp_path / "night" / "bundle.json").stat().st_mtime_ns
    assert fetch(archives, "good.tar.gz", tmp_path) == (0, "")
    assert (tmp_path / "night" / "bundle.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("name", "sha256", "problem"),
    [
        ("good.tar.gz", "0" * 64, rf"SHA-256 [0-9a-f]{{64}}; expected {'0' * 64}"),
        ("hostile.tar", None, r".*outside.*; expected a tar archive with a bundle"),
        ("text", None, r".*; expected a tar archive with a bundle"),
    ],
)
def test_another_archive_is_refused_in_one_line(archives, tmp_path, name, sha256, problem):
    code, line = fetch(archives, name, tmp_path, sha256)
    assert code == 1
    assert re.fullmatch(rf"{re.escape(archives[1])}/{name}: {problem}\n", line), line
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "outside").exists()
