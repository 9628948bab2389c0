"""Applications for routes to mount."""

from wsgiref.validate import validator

from support import answering


def showing(name):
    """An application that tells its name and where it was asked for what."""

    @answering
    def show(environ):
        return f"{name} {environ['SCRIPT_NAME']} {environ['PATH_INFO']} {environ['REQUEST_URI']}"

    return validator(show)


blog = showing("blog")
api = showing("api")
