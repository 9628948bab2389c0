"""Files of BENCH_FILES beneath /files/, served by WhiteNoise; everything else is `hello`."""

import os

from whitenoise import WhiteNoise

from apps.plain import hello

app = WhiteNoise(hello, root=os.environ["BENCH_FILES"], prefix="files/")
