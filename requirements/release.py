"""A sealed folder for closed networks: `python requirements/release.py FOLDER`, or `make release`.

Wheels of Viscera and of all that it needs, at the versions of requirements.txt, their SBOM, images as tar, and sha256
sums. `sh FOLDER/install.sh` installs from it without any network. Docs: docs/closed-networks.md.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from environment import PIP, PIP_SHA256

ROOT = Path(__file__).resolve().parent.parent
GLIBC = (28, 27, 17)  # manylinux_2_N that wheels of requirements.txt have
EXTRAS = "dicom,onnxruntime"
LEFT_OUT = "pylibjpeg-libjpeg"  # the extra jpeg: under GPL-3.0, it comes only to who asks for it
SUMS = "SHA256SUMS"
INSTALL = """\
#!/bin/sh
# Installs Viscera from this folder into FOLDER, without any network: sh install.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
into=${1:-viscera}
python=${PYTHON:-python3}
(cd "$here" && sha256sum --check --quiet SHA256SUMS) || {
  echo "error: a file in $here is damaged or missing: nothing was installed" >&2
  exit 1
}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case " @PYTHONS@ " in
*" $version "*) ;;
*)
  echo "error: this folder holds wheels for Python @PYTHONS@, and $python is $version: set PYTHON" >&2
  exit 1
  ;;
esac
"$python" -m venv --without-pip "$into"
set -- "$here"/wheels/pip-*.whl
"$into/bin/python" "$1/pip" install --quiet --no-cache-dir --no-index --find-links "$here/wheels" '@VISCERA@'
echo "installed: $into/bin/viscera"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    add = parser.add_argument
    add("folder", type=Path, help="must not be there yet")
    add("--pythons", nargs="+", default=[".".join(map(str, sys.version_info[:2]))], help="versions (this one's)")
    add("--images", nargs="*", default=[], metavar="NAME", help="images of Docker, built before")
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"error: {given.folder} exists: remove it, or give another folder")
    # Beside it, so that an interrupted release leaves no folder that looks whole.
    part = given.folder.with_name(f".{given.folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "wheels").mkdir(parents=True)
    try:
        wheel = own_wheel(part / "wheels")
        for version in given.pythons:
            download(part / "wheels", version)
        (part / "sbom.json").write_text(json.dumps(sbom(part / "wheels"), indent=1) + "\n")
        for image in given.images:
            save(image, part / "images")
        name, number = wheel.name.split("-")[:2]
        script = INSTALL.replace("@PYTHONS@", " ".join(given.pythons))
        (part / "install.sh").write_text(script.replace("@VISCERA@", f"{name}[{EXTRAS}]=={number}"))
        shutil.copy2(ROOT / "docs" / "closed-networks.md", part / "README.md")
        seal(part)
        part.rename(given.folder)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd[:4]))} ... ended with {error.returncode}")
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"{given.folder}: the sha256 of {SUMS} is {sha256(given.folder / SUMS)}")


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload]
    return str(done.stdout)


def own_wheel(into: Path) -> Path:
    """Build the wheel from a copy of this checkout, since building leaves folders behind. A commit gives it its times,
    and so the same bytes."""
    with tempfile.TemporaryDirectory() as name:
        for file in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
            if (ROOT / file).is_file():
                (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, Path(name) / file)
        when = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
        environment = os.environ | {"SOURCE_DATE_EPOCH": when}
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", into, name, env=environment)
    (wheel,) = into.glob("viscera-*.whl")
    return wheel


def download(into: Path, version: str) -> None:
    """Wheels for a version of Python on Linux: those of requirements.txt by their hashes, and pip."""
    machine = platform.machine()
    platforms = [f"manylinux_2_{n}_{machine}" for n in GLIBC] + [f"manylinux2014_{machine}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", version, "--implementation", "cp", "--dest", str(into)]
    command += [part for name in platforms for part in ("--platform", name)]
    locked = re.split(r"\n(?=\S)", (ROOT / "requirements.txt").read_text())
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(entry for entry in locked if not entry.startswith(f"{LEFT_OUT}==")) + "\n")
        file.flush()
        run(*command, "--require-hashes", "-r", file.name)
    run(*command, f"pip=={PIP.split('-')[1]}")
    if sha256(into / PIP) != PIP_SHA256:
        sys.exit(f"error: {PIP} is not the file that is pinned in requirements/environment.py")


def sbom(wheels: Path) -> dict[str, object]:
    """The wheels as CycloneDX 1.6."""
    components = []
    for wheel in sorted(wheels.glob("*.whl")):
        with ZipFile(wheel) as opened:
            (metadata,) = (name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            fields = email.message_from_bytes(opened.read(metadata))
        name, version = fields["Name"].lower(), fields["Version"]
        components.append(
            {
                "type": "application" if name == "viscera" else "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name}@{version}?file_name={wheel.name}",
                "hashes": [{"alg": "SHA-256", "content": sha256(wheel)}],
            }
        )
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def save(image: str, into: Path) -> None:
    """An image as a tar for `docker load`, and the SBOM that it holds."""
    into.mkdir(exist_ok=True)
    stem = image.replace("/", "-").replace(":", "-")
    run("docker", "save", "--output", into / f"{stem}.tar", image)
    listed = run("docker", "run", "--rm", "--network", "none", image, "cat", "/workspace/sbom.json")
    (into / f"{stem}.sbom.json").write_text(listed)


def seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines))


def sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


if __name__ == "__main__":
    main()
