"""A Django project in one file: a hello view, and a view that reads from SQLite through the ORM."""

import os
import tempfile

from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("BENCH_DB") or f"{tempfile.gettempdir()}/fastwsgi-bench.sqlite3",
            "CONN_MAX_AGE": None,
        }
    },
    DEBUG=False,
    # What startproject gives, less sessions, log-in and messages, which need tables of their own.
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    ROOT_URLCONF="apps.django_views",
    SECRET_KEY="benchmark",
    USE_TZ=True,
)

import django  # noqa: E402 - the settings come first

django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402


class Article(models.Model):
    title = models.CharField(max_length=100)
    rank = models.IntegerField(db_index=True)

    class Meta:
        app_label = "bench"


def fill_database() -> None:
    if Article._meta.db_table in connection.introspection.table_names():
        return
    with connection.schema_editor() as editor:
        editor.create_model(Article)
    Article.objects.bulk_create(Article(title=f"Article {n}", rank=n) for n in range(1000))
    connection.close()


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello, World!")


def articles(request: HttpRequest) -> HttpResponse:
    found = Article.objects.filter(rank__gte=500).order_by("rank")[:10]
    return JsonResponse({"articles": [{"title": article.title, "rank": article.rank} for article in found]})


urlpatterns = [path("", hello), path("articles", articles)]

app = get_wsgi_application()
