"""What is in this image, as CycloneDX 1.6 JSON on standard output: packages of Debian and Python, NiiVue, networks.

Run by the image's own Python at the end of its build: `python3 requirements/sbom.py`.
"""

import json
import subprocess
from importlib.metadata import distributions

import model_card


def component(name: str, version: str, kind: str) -> dict[str, str]:
    """One entry; `kind` is the namespace of its package URL (github.com/package-url/purl-spec)."""
    return {"type": "library", "name": name, "version": version, "purl": f"pkg:{kind}/{name}@{version}"}


def debian() -> list[dict[str, str]]:
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [component(*line.split(), "deb/debian") for line in lines]


def python() -> list[dict[str, str]]:
    found = {(dist.metadata["Name"].lower(), dist.version) for dist in distributions()}
    return [component(name, version, "pypi") for name, version in sorted(found)]


# In inference/preview/browser, with its licences.
vendored = [component("@niivue/niivue", "0.69.0", "npm") | {"purl": "pkg:npm/%40niivue/niivue@0.69.0"}]
networks = [model_card.component(name) for name in model_card.networks()]
components = debian() + python() + vendored + networks
print(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}))
