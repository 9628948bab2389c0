"""A Bottle application."""

import bottle

app = bottle.Bottle()
app.catchall = True


@app.get("/hello/<name>")
def hello(name):
    return f"hello {name}"


@app.post("/form")
def form():
    return {"a": bottle.request.forms.a}


@app.post("/upload")
def upload():
    file = bottle.request.files["file"]
    return {"name": file.filename, "size": len(file.file.read())}


@app.get("/stream")
def stream():
    bottle.response.content_type = "text/plain"
    for number in range(100):
        yield f"{number}\n"


@app.get("/file")
def file():
    return bottle.static_file("download", root=app.config["directory"], mimetype="application/octet-stream")


@app.get("/empty")
def empty():
    return bottle.HTTPResponse(status=204)
