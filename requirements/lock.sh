#!/usr/bin/env bash
# Write the lock files from their .in files: `requirements/lock.sh` keeps what is pinned and adds what is
# new, `requirements/lock.sh --upgrade` takes the newest of all. Needs uv (`pip install uv`).
set -euo pipefail
cd "$(dirname "$0")"

lock() {
  uv pip compile --quiet --config-file uv.toml --universal --python-version 3.11 \
    --custom-compile-command "requirements/lock.sh${note:-}" "$@"
}

# gpu.in and dev.in are held to the versions of requirements.txt, so it comes first.
lock "$@" --generate-hashes --output-file ../requirements.txt cpu.in
lock "$@" --generate-hashes --output-file gpu.txt gpu.in
# No hashes and no other packages than these: see uv.toml on torch and torchvision.
note=" (install with pip install --no-deps)" lock "$@" --output-file dev.txt dev.in
