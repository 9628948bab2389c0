"""The Dockerfiles and the manifests: what they say is right, and the server runs under what they impose.

Images are built where there is a Docker daemon. Everywhere the command of each is run as it would be there:
as process 1, as nobody, without rights, in a file system that cannot be written to but for one directory.
"""

import json
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

import psutil
import pytest

from deployment.files import DEPLOY, ROOT, longest_end, settings_of
from process.load import load
from subprocesses import Process
from support import request, wait_until

yaml = pytest.importorskip("yaml")

DOCKERFILES = sorted((DEPLOY / "docker").glob("Dockerfile*"))
DOCKER_KILLS_AFTER = 10
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "shop.yaml").read_text()))


def manifest(kind):
    [found] = [one for one in MANIFESTS if one["kind"] == kind]
    return found


POD = manifest("Deployment")["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]


def instructions(file):
    """The lines of a Dockerfile: instruction and what it says."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in lines]


def last_stage(file):
    found = instructions(file)
    begin = max(number for number, (name, _) in enumerate(found) if name == "FROM")
    return found[begin:]


def command_of(file):
    [command] = [json.loads(words) for name, words in last_stage(file) if name == "CMD"]
    return command


def by_name(file):
    return file.name


# What is written there


@pytest.mark.parametrize("file", DOCKERFILES, ids=by_name)
def test_docker_does_not_kill_before_the_end(file):
    program, *words = command_of(file)
    assert program == "fastwsgi"
    settings = settings_of(words)
    assert settings.shutdown_delay + settings.graceful_timeout < DOCKER_KILLS_AFTER
    [port] = [words for name, words in last_stage(file) if name == "EXPOSE"]
    assert settings.bind == (f":{port}",)


@pytest.mark.parametrize("file", DOCKERFILES, ids=by_name)
def test_the_image_has_no_compiler_and_is_not_run_by_root(file):
    stage = last_stage(file)
    names = [name for name, _ in stage]
    assert "RUN" not in names
    [user] = [words for name, words in stage if name == "USER"]
    assert user == f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}"
    assert set(names) <= {"FROM", "COPY", "WORKDIR", "ENV", "USER", "EXPOSE", "CMD"}


def test_the_dockerfiles_differ_in_their_system_alone():
    slim, alpine = (
        [words for name, words in instructions(file) if not (name == "FROM" or words.startswith("ap"))]
        for file in DOCKERFILES
    )
    assert slim == alpine


def test_the_manifests_are_what_kubernetes_takes():
    validate = pytest.importorskip("kubernetes_validate")
    for one in MANIFESTS:
        validate.validate(one, validate.latest_version().rpartition(".")[0] or "1.32", strict=True)


def test_kubernetes_waits_for_the_end_and_asks_where_it_is_answered():
    program, *words = CONTAINER["args"]
    assert program == "fastwsgi"
    settings = settings_of(words)
    assert longest_end(settings) < POD["terminationGracePeriodSeconds"]
    assert "lifecycle" not in CONTAINER
    readiness = CONTAINER["readinessProbe"]
    # Nobody sends anything to a pod that is not ready for so long; it goes on accepting until then.
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < settings.shutdown_delay
    paths = {
        name: CONTAINER[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")
    }
    assert paths == {"startup": settings.ready, "readiness": settings.ready, "liveness": settings.health}


def test_the_manifests_agree_with_each_other():
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == manifest("Deployment")["metadata"]["name"]
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    [port] = manifest("Service")["spec"]["ports"]
    settings = settings_of(CONTAINER["args"][1:])
    assert settings.bind == (f":{ports[port['targetPort']]}",)
    assert settings.metrics == f":{ports['metrics']}"
    annotations = manifest("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])


# What is run

IMPOSE = """
mount -t tmpfs tmpfs "$TMPDIR" && chmod 1777 "$TMPDIR" && mount -o remount,bind,ro / || exit 77
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all,+dac_read_search \
    --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search -- "$@"
"""
# The one right is to read: where Python and the package are here, others than root may not look.
CONTAIN = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child", "sh", "-c", IMPOSE, "sh"]


@pytest.fixture
def start_contained(short_path):
    """start_contained(words): the server with this command line, as in a container."""
    folder = short_path / "tmp"
    folder.mkdir()
    (short_path / "shop.py").write_text("from numbered import application as app\n")
    try:
        tried = subprocess.run(
            [*CONTAIN, "true"], env={"TMPDIR": str(folder)}, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if tried.returncode:
        pytest.skip(f"a container is not permitted here: {tried.stderr.strip()}")
    processes = []

    def start_contained(words):
        environment = {"TMPDIR": str(folder), "XDG_RUNTIME_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"}
        process = Process(words, short_path, environment, wrapper=CONTAIN)
        processes.append(process)
        process.wait_started()
        [process.supervisor] = psutil.Process(process.pid).children()
        return process

    yield start_contained
    for process in processes:
        process.clean_up()


COMMANDS = {file.name: command_of(file) for file in DOCKERFILES[:1]} | {"shop.yaml": CONTAINER["args"]}


def here(words):
    """The command line with ports that are free."""
    assert ":8000" in words or "--bind=:8000" in words
    return [re.sub(r"^((?:--\w+=)?):\d+$", r"\g<1>127.0.0.1:0", word) for word in words]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_serves_as_process_1_of_nobody_and_ends(start_contained, name):
    _, *words = COMMANDS[name]
    server = start_contained(here(words))
    assert set(server.supervisor.uids()) == {10001}
    with load(server.address, clients=5) as running:
        running.wait_answers(100)
        running.listening_ends()
        server.supervisor.send_signal(signal.SIGTERM)
        if settings_of(words).ready:
            wait_until(lambda: ask(server.ports[0], "/readyz") == 503, "taking leave")
            assert ask(server.ports[0], "/healthz") == 200
        assert server.wait(15) == 0, server.stderr
    running.report.check()
    assert "Process 1;" in server.stderr


def ask(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_the_metric_that_pods_are_added_by_is_there(start, short_path):
    spec = manifest("HorizontalPodAutoscaler")["spec"]
    [pods] = [one["pods"] for one in spec["metrics"] if one["type"] == "Pods"]
    name = pods["metric"]["name"]
    [rule] = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text())["rules"][
        "custom"
    ]
    assert rule["seriesQuery"].startswith(f"{name}{{")
    settings = settings_of(CONTAINER["args"][1:])
    assert float(pods["target"]["averageValue"]) < settings.workers * settings.threads
    server = start("--metrics", f"unix:{short_path}/metrics", "apps:wait")
    slow = server.connect()
    slow.send(request("/file"))
    server.waits("file")
    with server.connect(f"{short_path}/metrics") as prometheus:
        assert f"\n{name} 1\n" in prometheus.ask("/metrics").text
    server.go_on("file")
    assert slow.read_response().status == 200
    server.stop()


# The images themselves


def daemon_is_missing():
    if not shutil.which("docker"):
        return "no docker here"
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30)
    return "no Docker daemon here" if done.returncode else ""


def wheel_for(name, missing=False):
    """The wheel that this Dockerfile needs; `missing`: rather say what is missing."""
    platform = "musllinux" if "alpine" in name else "manylinux"
    [wheel] = list((ROOT / "dist").glob(f"*-cp313-cp313-*{platform}*.whl"))[:1] or [None]
    if missing:
        return "" if wheel else f"no {platform} wheel for Python 3.13 in dist/"
    return wheel


def application(folder, name):
    """The shop with all that this Dockerfile wants to be there."""
    shutil.copytree(DEPLOY / "docker", folder)
    (folder / "wheels").mkdir()
    shutil.copy(wheel_for(name), folder / "wheels")
    (folder / "requirements.txt").write_text("")
    shutil.copy(ROOT / "tests" / "process" / "numbered.py", folder)
    (folder / "shop.py").write_text("from numbered import application as app\n")


def docker(*words):
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("file", DOCKERFILES, ids=by_name)
def test_the_image(file, tmp_path):
    if missing := daemon_is_missing() or wheel_for(file.name, missing=True):
        pytest.skip(missing)
    application(tmp_path / "shop", file.name)
    tag = f"fastwsgi-test-{file.name.lower()}"
    docker("build", "--tag", tag, "--file", str(tmp_path / "shop" / file.name), str(tmp_path / "shop"))
    container = docker(
        "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--publish", "127.0.0.1:0:8000", tag
    )
    try:
        port = int(docker("port", container, "8000").splitlines()[0].rpartition(":")[2])
        wait_until(lambda: ask(port, "/7") == 200, "an answer")
        with load(("127.0.0.1", port), clients=5) as running:
            running.wait_answers(100)
            running.listening_ends()
            docker("stop", container)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    finally:
        docker("rm", "--force", container)
