"""A Pyramid application."""

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPFound
from pyramid.response import FileResponse, Response


def hello(request):
    return {"name": request.matchdict["name"], "url": request.url, "query": dict(request.params)}


def upload(request):
    file = request.POST["file"]
    return {"name": file.filename, "size": len(file.file.read())}


def stream(request):
    return Response(app_iter=(b"%d\n" % number for number in range(100)), content_type="text/plain")


def file(request):
    return FileResponse(request.registry.settings["file"], request=request, content_type="text/plain")


def fail(request):
    raise ZeroDivisionError("in a view")


def moved(request):
    return HTTPFound(request.route_url("hello", name="again"))


def main(**settings):
    with Configurator(settings=settings) as config:
        for view in (hello, upload, stream, file, fail, moved):
            name = view.__name__
            config.add_route(name, f"/{name}/{{name}}" if view is hello else f"/{name}")
            config.add_view(view, route_name=name, renderer="json")
        return config.make_wsgi_app()
