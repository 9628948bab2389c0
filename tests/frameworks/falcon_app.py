"""A Falcon application."""

import falcon


class Things:
    def on_get(self, request, response):
        response.media = {"query": request.params, "path": request.path, "host": request.host}

    def on_post(self, request, response):
        response.status = falcon.HTTP_201
        response.media = {"got": request.media}


class Raw:
    def on_put(self, request, response):
        response.media = {"size": len(request.bounded_stream.read())}


class Blocks:
    def on_get(self, request, response):
        response.stream = (b"%d\n" % number for number in range(100))


class File:
    path = None

    def on_get(self, request, response):
        response.set_stream(self.path.open("rb"), 100_000)


class Fail:
    def on_get(self, request, response):
        raise falcon.HTTPUnprocessableEntity(title="no")


app = falcon.App()
app.add_route("/things", Things())
app.add_route("/raw", Raw())
app.add_route("/stream", Blocks())
app.add_route("/file", File())
app.add_route("/fail", Fail())
