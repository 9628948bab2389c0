"""The compiled half: one extension module fastwsgi._NAME for each src/_NAME.pyx."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = {
    "plain": ["-O3"],
    "asan": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover"],
    "tsan": ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"],
    "cover": ["-O0", "-g", "--coverage"],
}
VARIANT = os.environ.get("FASTWSGI_VARIANT", "plain")
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "binding": False,
    "freethreading_compatible": True,
}


class BuildCython(build_ext):
    """Translate all modules first, then compile them in parallel; the C stays in the build folder."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    @staticmethod
    def declarations_are_newer() -> bool:
        """Tell whether a declaration has changed; cythonize misses the one that is a module's own."""
        declared = max(path.stat().st_mtime for path in Path("src").rglob("*.pxd"))
        return any(path.stat().st_mtime < declared for path in Path(f"build/{VARIANT}/src").glob("*.c"))

    def build_extensions(self) -> None:
        translated = cythonize(
            self.extensions,
            force=self.declarations_are_newer(),
            build_dir=f"build/{VARIANT}",
            include_path=["src"],
            compiler_directives=DIRECTIVES,
            annotate=bool(os.environ.get("FASTWSGI_ANNOTATE")),
        )
        for extension, c_extension in zip(self.extensions, translated, strict=True):
            extension.sources = c_extension.sources
        super().build_extensions()


declarations = sorted(str(path) for suffix in ("pxd", "h") for path in Path("src").rglob(f"*.{suffix}"))
setup(
    cmdclass={"build_ext": BuildCython},
    ext_modules=[
        Extension(
            f"fastwsgi.{source.stem}",
            [str(source)],
            depends=declarations,
            include_dirs=["src", "src/platform"],
            extra_compile_args=FLAGS[VARIANT],
            extra_link_args=[flag for flag in FLAGS[VARIANT] if flag.startswith(("-fsanitize", "--cov"))],
        )
        for source in sorted(Path("src").glob("_*.pyx"))
    ],
)
