"""A small real Flask application: pages and a form, a session, an upload and download, and streaming.

cd examples && fastwsgi 'flask_notes:create_app()'
"""

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from flask import (
    Flask,
    Response,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    send_file,
    session,
    url_for,
)
from werkzeug.wrappers import Response as WerkzeugResponse

SCHEMA = "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, author TEXT, text TEXT, file TEXT)"


def create_app(directory: str | None = None) -> Flask:
    """Make the application; its notes and files live in a directory, a temporary one if none is given."""
    app = Flask(__name__)
    app.config["DIRECTORY"] = Path(directory or tempfile.mkdtemp(prefix="notes-"))
    app.secret_key = os.environ.get("SECRET_KEY", "for this example alone")
    with sqlite3.connect(app.config["DIRECTORY"] / "notes.sqlite") as connection:
        connection.execute(SCHEMA)
    app.teardown_appcontext(close_database)
    app.add_url_rule("/", view_func=notes)
    app.add_url_rule("/notes", view_func=add_note, methods=["POST"])
    app.add_url_rule("/notes/<int:number>/file", view_func=note_file)
    app.add_url_rule("/clock", view_func=clock)
    app.add_url_rule("/clock/stream", view_func=clock_stream)
    app.add_url_rule("/environ", view_func=show_environ)
    return app


def database() -> sqlite3.Connection:
    """The connection of this request."""
    if "database" not in g:
        g.database = sqlite3.connect(current_app.config["DIRECTORY"] / "notes.sqlite")
        g.database.row_factory = sqlite3.Row
    connection: sqlite3.Connection = g.database
    return connection


def close_database(error: BaseException | None) -> None:
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


def notes() -> str:
    rows = database().execute("SELECT id, author, text, file FROM note ORDER BY id DESC LIMIT 50").fetchall()
    return render_template("notes.html", notes=rows, author=session.get("author", ""))


def add_note() -> WerkzeugResponse:
    author, text = request.form.get("author", "").strip(), request.form.get("text", "").strip()
    upload = request.files.get("file")
    if not text:
        flash("A note needs some text.")
        return redirect(url_for("notes"))
    session["author"] = author
    name = upload.filename if upload and upload.filename else None
    with database() as connection:
        row = connection.execute(
            "INSERT INTO note (author, text, file) VALUES (?, ?, ?)", (author or "somebody", text, name)
        )
    if upload and name:
        upload.save(current_app.config["DIRECTORY"] / f"{row.lastrowid}.upload")
    return redirect(url_for("notes"))


def note_file(number: int) -> Response:
    row = database().execute("SELECT file FROM note WHERE id = ?", (number,)).fetchone()
    if row is None or row["file"] is None:
        return Response("No such file.\n", 404, mimetype="text/plain")
    path = current_app.config["DIRECTORY"] / f"{number}.upload"
    return send_file(path, mimetype="application/octet-stream", as_attachment=True, download_name=row["file"])


def clock() -> str:
    return render_template("clock.html")


def clock_stream() -> Response:
    """Ten seconds of server-sent events, one each half second."""

    def events() -> Iterator[str]:
        for tick in range(20):
            yield f"data: {time.strftime('%H:%M:%S')} ({tick + 1} of 20)\n\n"
            time.sleep(0.5)
        yield "event: end\ndata: that was all\n\n"

    return Response(events(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


def show_environ() -> Response:
    shown = {
        name: value if isinstance(value, str | bool | int) else repr(value)
        for name, value in request.environ.items()
    }
    return Response(json.dumps(dict(sorted(shown.items())), indent=2) + "\n", mimetype="application/json")
