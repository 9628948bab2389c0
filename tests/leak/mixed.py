"""An application that does a little of everything; /blocks tells how many objects Python has."""

import gc
import io
import sys

TEXT = [("Content-Type", "text/plain")]


def app(environ, start_response):
    kind = environ["PATH_INFO"]
    if kind == "/blocks":
        gc.collect()
        start_response("200 OK", TEXT)
        return [b"%d" % sys.getallocatedblocks()]
    if kind == "/echo":
        start_response("200 OK", TEXT)
        return [environ["wsgi.input"].read()]
    if kind == "/generator":
        start_response("200 OK", TEXT)
        return (b"block " for _ in range(5))
    if kind == "/write":
        start_response("200 OK", TEXT)(b"written ")
        return [b"returned"]
    if kind == "/wrapper":
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    if kind == "/memory":
        start_response("200 OK", TEXT)
        return environ["wsgi.file_wrapper"](io.BytesIO(b"from memory"))
    if kind == "/empty":
        start_response("204 No Content", [])
        return []
    if kind == "/kept":
        # A cycle through what belongs to the server.
        environ["kept"] = [environ, start_response, environ["wsgi.input"]]
    if kind == "/fail":
        raise ZeroDivisionError
    start_response("200 OK", [*TEXT, ("X-Field", "a value"), ("Set-Cookie", "a=b")])
    return [b"hello"]
