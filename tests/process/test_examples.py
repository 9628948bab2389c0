"""The examples, served as their first lines say."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_flask_notes(start, tmp_path):
    pytest.importorskip("flask")
    server = start("--chdir", str(EXAMPLES), "flask_notes:create_app()", TMPDIR=str(tmp_path))
    response = server.ask()
    assert response.status == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert "<strong>fastwsgi/" in response.text
    assert server.ask("/static/style.css").status == 200
    server.stop()
    assert "Traceback" not in server.stderr


def test_django_single(start):
    pytest.importorskip("django")
    server = start("--chdir", str(EXAMPLES), "django_single")
    response = server.ask()
    assert response.status == 200
    assert "Hello you, from Django" in response.text
    assert "csrfmiddlewaretoken" in response.text
    server.stop()
    assert "Traceback" not in server.stderr
