"""runserver and serve: see docs/django.md."""
