"""Uses a cache as a Django application does whose settings.py is the code that the dashboard shows.

usage: django.py SETTINGS
"""

import os
import sys

settings = sys.argv[1]
# Not this file's own folder, in which this file would be taken for Django.
sys.path[0] = os.path.dirname(settings)
os.environ["DJANGO_SETTINGS_MODULE"] = os.path.splitext(os.path.basename(settings))[0]

import django  # noqa: E402

django.setup()

from django.core.cache import cache  # noqa: E402

cache.set("greeting", "hello", timeout=60)
print(cache.get("greeting"))
