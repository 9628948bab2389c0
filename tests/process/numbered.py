"""An application whose every answer can be checked: it depends on the number that the target asks for.

GET /7 answers with `content_of(7)`, and so does a POST whose content is the number; `?sleep=0.02` has it take
so long. The fields Worker and Generation say who has answered.
"""

import os
import time
from urllib.parse import parse_qs


def content_of(number):
    """Of many lengths, and no other number's."""
    return b"%d," % number * (1 + number % 50)


def numbered(generation):
    """The application, as this generation of the code."""

    def application(environ, start_response):
        if environ["REQUEST_METHOD"] == "POST":
            number = int(environ["wsgi.input"].read())
        else:
            number = int(environ["PATH_INFO"].strip("/") or 0)
        query = parse_qs(environ["QUERY_STRING"])
        if "sleep" in query:
            time.sleep(float(query["sleep"][0]))
        content = content_of(number)
        fields = [("Content-Type", "text/plain"), ("Worker", str(os.getpid())), ("Generation", generation)]
        if number % 3:
            start_response("200 OK", [*fields, ("Content-Length", str(len(content)))])
            return [content]
        # Without a length it is chunked: the other way in which an end in the middle shows.
        start_response("200 OK", fields)
        half = len(content) // 2
        return iter([content[:half], content[half:]])

    return application


application = numbered("1")
