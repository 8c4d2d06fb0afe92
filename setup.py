# SPDX-License-Identifier: Apache-2.0
"""The pip route: run the package's own CMakeLists.txt, against ROS 2 wheels or a sourced ROS 2.

On a ROS 2 machine colcon builds CMakeLists.txt itself and never looks at this file.
IMAGEWAM_DISTRO=jazzy chooses the wheels; with AMENT_PREFIX_PATH set no wheels are asked for.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
PACKAGE = "imagewam_ros"
DISTRO = os.environ.get("IMAGEWAM_DISTRO", "kilted")
SOURCED = bool(os.environ.get("AMENT_PREFIX_PATH"))
"""A colcon or apt installation of ROS 2 is at hand."""

EXTRAS = ("dev", "teleop", "cameras", "remote", "cluster", "quantised", "training")

FOR_CMAKE_ONLY = ("cmake", "environment")
"""Parts of share/imagewam_ros that only C++ packages and overlays read; those use colcon."""


def requirements(*names: str) -> list[str]:
    """Return the requirements in files of the folder requirements, comments left out."""
    lines = [line for name in names for line in (HERE / "requirements" / f"{name}.txt").read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def ros_prefixes() -> list[Path]:
    """Return the prefixes that hold ROS 2: sourced ones first, then those of pip's environments."""
    found = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for entry in map(Path, sys.path):
        if entry.name in ("site-packages", "dist-packages") and len(entry.parents) > 2:
            prefix = entry.resolve().parents[2]
            if (prefix / "share/ament_cmake_core").is_dir() and prefix not in found:
                found.append(prefix)
    return found


class BuildRos(build_ext):
    """Builds with CMake, then sorts what it installed into the wheel's package and data."""

    def run(self) -> None:
        """Build and collect. Raises SystemExit without ROS 2."""
        prefixes = ros_prefixes()
        if not prefixes:
            raise SystemExit("no ROS 2 found: neither a sourced installation nor ros-* wheels")
        temporary = Path(self.build_temp).resolve()
        build, install = temporary / "cmake", temporary / "install"
        for folder in (build, install):
            shutil.rmtree(folder, ignore_errors=True)  # CMake's cache holds paths of a vanished build environment
        cmake_build(prefixes, build, install)
        self._collect_package(next(install.glob(f"l*/python*/*-packages/{PACKAGE}")))
        self._collect_data(install)

    def _collect_package(self, package: Path) -> None:
        for source in package.rglob("*"):
            if source.is_file() and source.suffix not in (".c", ".pyc"):
                target = Path(self.build_lib) / PACKAGE / source.relative_to(package)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def _collect_data(self, install: Path) -> None:
        files: dict[str, list[str]] = {}
        for source in (path for top in ("lib", "share") for path in (install / top).rglob("*") if path.is_file()):
            place = source.relative_to(install)
            if not place.parts[1].startswith("python") and not overlay_only(place):
                files.setdefault(str(place.parent), []).append(str(source))
        self.distribution.data_files = sorted(files.items())


def cmake_build(prefixes: list[Path], build: Path, install: Path) -> None:
    """Configure, build and install CMakeLists.txt into `install`."""
    joined = [str(prefix) for prefix in prefixes]
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": install,
        "CMAKE_PREFIX_PATH": ";".join(joined),
        "Python3_EXECUTABLE": sys.executable,
        "BUILD_TESTING": "OFF",
        "PYTHON_ONLY": "ON",
    }
    env = {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(joined)}
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    defines = [f"-D{key}={value}" for key, value in options.items()]
    subprocess.check_call(["cmake", "-S", str(HERE), "-B", str(build), *generator, *defines], env=env)
    subprocess.check_call(["cmake", "--build", str(build)], env=env)
    subprocess.check_call(["cmake", "--install", str(build)], env=env, stdout=subprocess.DEVNULL)


def overlay_only(place: Path) -> bool:
    """Say whether an installed file serves only CMake or shells."""
    in_share = place.parts[:2] == ("share", PACKAGE)
    return (
        (in_share and place.parts[2] in FOR_CMAKE_ONLY)
        or "parent_prefix_path" in place.parts
        or place.name.startswith("local_setup")
        or place.suffix in (".dsv", ".pyc")
    )


class PlatformDistribution(Distribution):
    """The wheel holds compiled type support, so it is for one platform and one Python."""

    def has_ext_modules(self) -> bool:
        """Return True."""
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_ext": BuildRos},
    data_files=[],
    setup_requires=["cmake>=3.22,<4", "ninja"] if SOURCED else requirements(f"ros-{DISTRO}-build"),
    install_requires=requirements("runtime") + ([] if SOURCED else requirements(f"ros-{DISTRO}")),
    extras_require={name: requirements(name) for name in EXTRAS},
)
