"""Fixtures of the deployment tests that several of them use, each from where it belongs."""

from deployment.test_systemd_units import manager, start_service
from process.test_proxies import run_proxy

__all__ = ["manager", "run_proxy", "start_service"]
