"""What `manage.py` can do with fastwsgi."""
