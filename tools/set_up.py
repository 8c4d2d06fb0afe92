# SPDX-License-Identifier: Apache-2.0
"""Make a checkout run on this machine: system libraries, .venv, torch, ROS 2 wheels, interfaces.

Needs only Python's standard library. Each step leaves a stamp and is skipped while what it was made
from is unchanged, so a second run takes a fraction of a second. Nothing outside the checkout is
written, but for system packages when root runs it on Debian or Ubuntu.

    python3 tools/set_up.py            everything
    python3 tools/set_up.py --check    only the system libraries
"""

import argparse
import ctypes
import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMPS = VENV / ".stamps"
REQUIREMENTS = ROOT / "requirements"
DISTROS = ("kilted", "jazzy")
PYTHONS = ((3, 10), (3, 14))
"""Oldest Python, and the first one without ROS 2 wheels."""

FOREIGN = (
    "AMENT_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "PYTHONPATH",
)
"""What a sourced ROS 2 installation sets; it must not leak into an environment with its own ROS 2."""

LAUNCHER = """\
#!/bin/sh
# This environment has its own ROS 2; a sourced one would be mixed into it.
case ":$AMENT_PREFIX_PATH" in
  *:/opt/ros/*) unset {foreign} ;;
esac
exec "{python}" -c 'import sys; sys.path.pop(0); from imagewam_ros.cli import main; sys.exit(main())' "$@"
"""


class SetUpError(Exception):
    """A step that the user has to help with; the text says how."""


def main() -> int:
    """Run all steps in order. Returns the exit code: 0 ready, 2 the user has to act."""
    parser = argparse.ArgumentParser(description="Make this checkout run; safe to run again.")
    parser.add_argument("--distro", choices=DISTROS, default=os.environ.get("IMAGEWAM_DISTRO", DISTROS[0]))
    parser.add_argument("--check", action="store_true", help="only check the system libraries")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        system_packages()
        if not arguments.check:
            environment()
            python_packages(arguments.distro)
            interfaces(arguments.distro)
            checkout_on_path()
            say(f"ready: torch {torch_build()}, ROS 2 {arguments.distro} wheels, {time.monotonic() - start:.1f} s")
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"set-up: this failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 2
    return 0


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"set-up: {text}", flush=True)


def system_packages() -> None:
    """Install by apt what is missing, or raise SetUpError with the line to run."""
    if not PYTHONS[0] <= sys.version_info < PYTHONS[1]:
        found = sys.version.split()[0]
        raise SetUpError(f"needs Python 3.10 to 3.13, found {found}; choose one: make PYTHON=/usr/bin/python3.12 ...")
    missing = missing_packages()
    if not missing:
        return
    apt = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetUpError(
            f"system packages are missing; run this line, then the same command again:\n  sudo {' '.join(apt)}"
        )
    say(f"installing system packages: {' '.join(missing)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    subprocess.run(apt, check=True, env=quiet, stdout=subprocess.DEVNULL)


def missing_packages() -> list[str]:
    """Debian packages whose files this machine lacks: headers, compiler, venv, off-screen OpenGL."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    have = {
        "build-essential": bool(shutil.which("c++") and shutil.which("make")),
        f"python{version}-dev": (Path(sysconfig.get_path("include")) / "Python.h").exists(),
        f"python{version}-venv": has_ensurepip(),
        "libegl1": loads("libEGL.so.1"),
        "libgl1": loads("libGL.so.1"),
    }
    return [package for package, present in have.items() if not present]


def has_ensurepip() -> bool:
    """Say whether this Python can make an environment with pip in it; Debian splits that off."""
    try:
        import ensurepip
    except ImportError:
        return False
    return bool(ensurepip.version())


def loads(library: str) -> bool:
    """Say whether the dynamic linker finds `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def environment() -> None:
    """Make .venv with this Python, or again when it belongs to another Python or another folder."""
    made_by = f"{sys.version_info.major}.{sys.version_info.minor} {VENV}"
    stamp = STAMPS / "environment"
    if stamp.exists() and stamp.read_text() == made_by and (VENV / "bin/python").exists():
        return
    say(f"making {VENV} with Python {sys.version.split()[0]}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True, env=clean_environment())
    STAMPS.mkdir(parents=True)
    stamp.write_text(made_by)


def python_packages(distro: str) -> None:
    """Install torch as pip is configured here, then everything else without ever replacing it."""
    files = [REQUIREMENTS / name for name in ("runtime.txt", f"ros-{distro}.txt", f"ros-{distro}-build.txt", "dev.txt")]
    stamp, now = STAMPS / "packages", f"{distro} {digest(files)}"
    if stamp.exists() and stamp.read_text() == now:
        return
    if stamp.exists() and not stamp.read_text().startswith(distro):
        raise SetUpError(f"{VENV} holds other ROS 2 wheels than {distro}; run: make clean-venv")
    torch = next(line for line in files[0].read_text().splitlines() if line.startswith("torch"))
    if (VENV / "constraints.txt").exists():
        pip("install", "--quiet", torch)
    else:
        say(f"installing {torch}, as pip is configured here; a build with CUDA is about 3 GB")
        pip("install", torch, "setuptools<80", "wheel")
    say(f"torch {torch_build()}")
    constraints = VENV / "constraints.txt"
    constraints.write_text(f"torch=={torch_version()}\n")
    say(f"installing ROS 2 {distro} and the other packages: 1 to 3 minutes")
    pip("install", "--quiet", "-c", str(constraints), *(word for file in files for word in ("-r", str(file))))
    stamp.write_text(now)


def interfaces(distro: str) -> None:
    """Generate msg, srv and action with rosidl into .venv, by the package's own CMakeLists.txt."""
    sources = [ROOT / "CMakeLists.txt", ROOT / "package.xml", ROOT / "imagewam_ros/__init__.py"]
    sources += sorted(path for kind in ("msg", "srv", "action") for path in (ROOT / kind).glob(f"*.{kind}"))
    stamp, now = STAMPS / "interfaces", digest([*sources, REQUIREMENTS / f"ros-{distro}-build.txt"])
    if stamp.exists() and stamp.read_text() == now:
        return
    say("generating the ROS 2 interfaces: about 20 s")
    build = ROOT / "build/interfaces"
    shutil.rmtree(build, ignore_errors=True)
    env = {**clean_environment(), "AMENT_PREFIX_PATH": str(VENV), "PATH": f"{VENV}/bin{os.pathsep}{os.environ['PATH']}"}
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_INSTALL_PREFIX": VENV,
        "CMAKE_PREFIX_PATH": VENV,
        "Python3_EXECUTABLE": VENV / "bin/python",
        "BUILD_TESTING": "OFF",
        "PYTHON_ONLY": "ON",
        "INTERFACES_ONLY": "ON",
    }
    defines = [f"-D{key}={value}" for key, value in options.items()]
    quietly(["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", *defines], env)
    quietly(["cmake", "--build", str(build)], env)
    quietly(["cmake", "--install", str(build)], env)
    stamp.write_text(now)


def checkout_on_path() -> None:
    """Let .venv run the rooms, scripts and data of this checkout, and install bin/imagewam."""
    site = next((VENV / "lib").glob("python3.*/site-packages"))
    (site / "imagewam_ros_checkout.pth").write_text(f"{ROOT}\n")
    share = VENV / "share/imagewam_ros"
    for folder in ("config", "fastdds", "launch", "models", "urdf"):
        mirror(ROOT / folder, share / folder)
    mirror(ROOT / "scripts", VENV / "lib/imagewam_ros")
    launcher = VENV / "bin/imagewam"
    launcher.write_text(LAUNCHER.format(python=VENV / "bin/python", foreign=" ".join(FOREIGN)))
    launcher.chmod(0o755)


def mirror(source: Path, target: Path) -> None:
    """Fill `target` with links to the files of `source`; ros2 launch does not follow linked folders."""
    if target.is_symlink():
        target.unlink()
    shutil.rmtree(target, ignore_errors=True)
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            link = target / file.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


def torch_version() -> str:
    """Version of the torch in .venv with its local part, read without importing torch."""
    return str(torch_facts()["__version__"])


def torch_build() -> str:
    """Version and kind of the torch in .venv, in words."""
    cuda = torch_facts()["cuda"]
    return f"{torch_version()} ({f'CUDA {cuda} build' if cuda else 'CPU build'})"


def torch_facts() -> dict[str, object]:
    """Variables of torch/version.py."""
    return runpy.run_path(str(next((VENV / "lib").glob("python3.*/site-packages/torch/version.py"))))


def pip(*arguments: str) -> None:
    """Run the environment's pip."""
    command = [str(VENV / "bin/python"), "-m", "pip", *arguments, "--disable-pip-version-check"]
    subprocess.run(command, check=True, env=clean_environment())


def quietly(command: Sequence[str], env: dict[str, str]) -> None:
    """Run a command and show what it said only when it fails."""
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, list(command))


def clean_environment() -> dict[str, str]:
    """Environment variables without those of another ROS 2 or Python installation."""
    gone = (*FOREIGN, "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    return {key: value for key, value in os.environ.items() if key not in gone}


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
