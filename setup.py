"""The compiled half: one extension module fastwsgi._NAME for each src/_NAME.pyx. And the source archive."""

import gzip
import os
import tarfile
import time
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

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


class SourceArchive(sdist):
    """The same files make the same archive: in order, nobody's, and of the time of SOURCE_DATE_EPOCH."""

    def make_archive(self, base_name: str, format: str, *, base_dir: str, **_: object) -> str:
        if format != "gztar":
            raise SystemExit(f"the source archive is a .tar.gz, not {format}: --formats=gztar")
        made = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = made
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        Path(base_name).parent.mkdir(parents=True, exist_ok=True)
        archive = f"{base_name}.tar.gz"
        with (
            open(archive, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=made) as compressed,
            tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            # By name, directories before what is in them.
            tar.add(base_dir, filter=anonymous)
        return archive


declarations = sorted(str(path) for suffix in ("pxd", "h") for path in Path("src").rglob(f"*.{suffix}"))
setup(
    cmdclass={"build_ext": BuildCython, "sdist": SourceArchive},
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
