"""docs/deployment.md: its commands are run, and what it shows of files is in them.

What belongs to root is a copy of this machine's that is thrown away (a mount namespace), and `systemctl` does
what it does for a system that is not booted. Where something has to run that does not run here (Docker, a
cluster), the test is skipped and says so. The files themselves are put to work in the other tests here.
"""

import re
import shutil
import subprocess
import sys

import pytest

from deployment.files import DEPLOY, ROOT, settings_of
from deployment.test_containers import application, daemon_is_missing, wheel_for
from docs.pages import blocks, text_of
from process.test_proxies import needs
from subprocesses import PYTHONPATH

PAGE = "docs/deployment.md"
TEXT = text_of(PAGE)
# What is run here, by the heading it stands under; a block that nobody runs fails the first test.
RUN = ("systemd", "systemd", "Docker", "Kubernetes", "Kubernetes", "HAProxy", "nginx")


def commands(heading, number=0):
    return [block.text for block in blocks(PAGE, "sh") if block.heading == heading][number]


def test_every_block_has_its_test():
    assert tuple(block.heading for block in blocks(PAGE, "sh")) == RUN
    files = [file.read_text() for file in DEPLOY.rglob("*") if file.is_file()]
    for block in blocks(PAGE):
        assert block.language == "sh" or any(block.text in file for file in files), block


def test_every_file_is_on_the_page():
    linked = set(re.findall(r"\(\.\./deploy/([^)]+)\)", TEXT))
    there = {str(file.relative_to(DEPLOY)) for file in DEPLOY.rglob("*") if file.is_file()}
    assert linked == there - {"docker/.dockerignore"}


def test_servers_take_the_command_lines():
    lines = re.findall(r"^    fastwsgi (.*)$", TEXT, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        assert settings_of(line.split()).ready == "/readyz"


# $1 is a directory for what is written, the rest a script.
THROWN_AWAY = """
mount -t tmpfs tmpfs "$1" && mkdir "$1/upper" "$1/work" || exit 77
mount -t overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" overlay /etc || exit 77
mount -t tmpfs tmpfs /srv || exit 77
shift
set -e
"""


@pytest.fixture
def run_as_root(tmp_path):
    """run_as_root(script): what it prints; what it changes in /etc and /srv is gone after that."""
    folder = tmp_path / "changed"
    folder.mkdir()

    def run(script):
        command = ["unshare", "--mount", "sh", "-c", THROWN_AWAY + script, "sh", str(folder)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=30
            )
        except FileNotFoundError:
            pytest.skip("no unshare here")
        if done.returncode == 77 or "unshare failed" in done.stderr:
            pytest.skip(f"what belongs to root cannot be copied here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


# Whatever runs here, it is not to hear of it.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_OFFLINE": "1"}


@needs("systemctl")
def test_systemd(run_as_root):
    then = """
    grep -q ^shop: /etc/passwd
    cmp deploy/systemd/shop.service /etc/systemd/system/multi-user.target.wants/shop.service
    cmp deploy/systemd/shop.socket /etc/systemd/system/sockets.target.wants/shop.socket
    """
    run_as_root(commands("systemd") + then)


@needs("systemctl")
def test_systemd_later(run_as_root, start_service, manager):
    service = start_service()
    manager.expect(service.process, "READY=1")
    here = f"""
    mount -t tmpfs tmpfs /run && mkdir /run/shop && mount --bind {service.process.directory} /run/shop
    mkdir -p /srv/shop/.venv/bin
    cat > /srv/shop/.venv/bin/fastwsgi <<'END'
#!/bin/sh
PYTHONPATH={PYTHONPATH} exec {sys.executable} -m fastwsgi "$@"
END
    chmod +x /srv/shop/.venv/bin/fastwsgi
    """
    assert "shop:app at " in run_as_root(here + commands("systemd", 1))
    service.process.terminate()
    assert service.process.wait() == 0


@needs("haproxy")
def test_haproxy():
    for command in commands("HAProxy").splitlines():
        subprocess.run(
            command.split(), cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True, timeout=30
        )


@needs("nginx")
def test_nginx(run_as_root):
    assert "test is successful" in run_as_root(commands("nginx"))


def test_docker(tmp_path):
    if missing := daemon_is_missing() or wheel_for("Dockerfile", missing=True):
        pytest.skip(missing)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    application(tmp_path / "shop", "Dockerfile")
    try:
        subprocess.run(["sh", "-e", "-c", commands("Docker")], cwd=tmp_path, check=True, timeout=600)
    finally:
        subprocess.run(["docker", "rm", "--force", "shop"], timeout=60)


@pytest.mark.parametrize("number", [0, 1])
def test_kubernetes(number):
    program = commands("Kubernetes", number).split()[0]
    pytest.skip(f"{program} would need a cluster; the manifests are held against the schemas")
