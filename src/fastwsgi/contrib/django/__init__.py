"""Static files of a Django project, served by the server: a line of INSTALLED_APPS."""
