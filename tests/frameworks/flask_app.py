"""A Flask application that uses what applications use."""

import io
import logging

from flask import (
    Flask,
    Response,
    abort,
    g,
    jsonify,
    redirect,
    request,
    send_file,
    session,
    stream_with_context,
    url_for,
)

app = Flask(__name__)
app.secret_key = "not secret"
app.logger.setLevel(logging.CRITICAL)

DOWNLOAD = bytes(range(256)) * 1000


@app.get("/")
def index():
    return "hello from Flask"


@app.get("/path/<path:name>")
def path(name):
    return jsonify(
        name=name, args=request.args.to_dict(), host=request.host, url=request.url, ip=request.remote_addr
    )


@app.post("/form")
def form():
    return jsonify(request.form.to_dict())


@app.post("/json")
def answer_json():
    return jsonify(got=request.get_json())


@app.post("/upload")
def upload():
    file = request.files["file"]
    return jsonify(name=file.filename, size=len(file.read()), title=request.form["title"])


@app.post("/raw")
def raw():
    size = 0
    while block := request.stream.read(10_000):
        size += len(block)
    return jsonify(size=size, length=request.content_length)


@app.get("/stream")
def stream():
    def blocks():
        for number in range(100):
            yield f"{number} {request.path}\n"

    return Response(stream_with_context(blocks()), mimetype="text/plain")


@app.post("/login")
def login():
    session["user"] = request.form["user"]
    return redirect(url_for("me"))


@app.get("/me")
def me():
    if "user" not in session:
        abort(401)
    return session["user"]


@app.get("/download")
def download():
    return send_file(app.config["FILE"], mimetype="application/octet-stream", conditional=True)


@app.get("/memory")
def memory():
    return send_file(io.BytesIO(DOWNLOAD), mimetype="application/octet-stream", download_name="memory")


@app.get("/cookies")
def cookies():
    response = jsonify(dict(request.cookies))
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


@app.get("/mark")
def mark():
    """Say whether a mark is there, and leave one."""
    found, g.mark = "mark" in g, True
    return jsonify(found)


@app.get("/empty")
def empty():
    return "", 204


@app.get("/fail")
def fail():
    raise ZeroDivisionError("in a view")


@app.get("/fail/while/streaming")
def fail_while_streaming():
    def blocks():
        yield "part"
        raise ZeroDivisionError("in a stream")

    return Response(blocks())
