"""A Django project in one module: admin, ORM on SQLite, static files, streams, uploads, files."""

import os
import tempfile

import django
from django.conf import settings

DIRECTORY = tempfile.mkdtemp(prefix="fastwsgi-django-")
DOWNLOAD = bytes(range(256)) * 1000
with open(os.path.join(DIRECTORY, "download"), "wb") as file:
    file.write(DOWNLOAD)

settings.configure(
    DEBUG=True,
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django.contrib.staticfiles",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(DIRECTORY, "database"),
            "OPTIONS": {"timeout": 20},
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGGING_CONFIG=None,
    STATIC_URL="static/",
    USE_TZ=True,
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import Group  # noqa: E402
from django.contrib.staticfiles.handlers import StaticFilesHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


def index(request):
    return HttpResponse("hello from Django")


def about(request, name):
    return JsonResponse(
        {
            "name": name,
            "query": dict(request.GET.items()),
            "url": request.build_absolute_uri(),
            "secure": request.is_secure(),
            "ip": request.META["REMOTE_ADDR"],
        }
    )


@csrf_exempt
def groups(request):
    if request.method == "POST":
        Group.objects.create(name=request.POST["name"])
    return JsonResponse({"names": sorted(Group.objects.values_list("name", flat=True))})


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    return JsonResponse(
        {"name": file.name, "size": sum(map(len, file.chunks())), "title": request.POST["title"]}
    )


@csrf_exempt
def raw(request):
    return JsonResponse({"size": len(request.body)})


def stream(request):
    return StreamingHttpResponse((f"{number}\n" for number in range(100)), content_type="text/plain")


def download(request):
    return FileResponse(open(os.path.join(DIRECTORY, "download"), "rb"))


def fail(request):
    raise ZeroDivisionError("in a view")


urlpatterns = [
    path("", index),
    path("about/<path:name>", about),
    path("groups", groups),
    path("upload", upload),
    path("raw", raw),
    path("stream", stream),
    path("download", download),
    path("fail", fail),
    path("admin/", admin.site.urls),
]

application = StaticFilesHandler(get_wsgi_application())
