"""Django in one file: a page, a form with its CSRF token, and streaming.

pip install django
cd examples && fastwsgi django_single
"""

import os
import time
from collections.abc import Iterator

from django import forms
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example alone"),
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
)

PAGE = """<!doctype html>
<title>Django</title>
<h1>Hello {{ name }}, from Django, served by {{ request.META.SERVER_SOFTWARE }}</h1>
<form method="post">{% csrf_token %}{{ form.as_p }}<button>Greet</button></form>
<p><a href="/count">Count to ten, slowly</a></p>
"""


class GreetingForm(forms.Form):
    name = forms.CharField(max_length=40, initial="you")


def greeting(request: HttpRequest) -> HttpResponse:
    form = GreetingForm(request.POST or None)
    name = form.cleaned_data["name"] if form.is_valid() else "you"
    page = engines["django"].from_string(PAGE)
    return HttpResponse(page.render({"name": name, "form": form}, request))


def count(request: HttpRequest) -> StreamingHttpResponse:
    def numbers() -> Iterator[str]:
        for number in range(1, 11):
            yield f"{number}\n"
            time.sleep(0.3)

    return StreamingHttpResponse(numbers(), content_type="text/plain")


urlpatterns = [path("", greeting), path("count", count)]
application = get_wsgi_application()
