#!/bin/sh
# The container's main job: every scan of the mounted inputs to the mounted outputs.
#   sh predict.sh [flags of python -m inference]
# FLARE mounts /workspace/inputs and /workspace/outputs; /inputs and /outputs work as well.
set -eu
cd "$(dirname "$0")"

mount=
if [ -d /workspace/inputs ]; then
  mount=/workspace
  # FLARE's scorer dies on a missing file, and takes every file in the outputs for a label map.
  set -- --on-error empty --no-sidecar "$@"
fi
inputs=$mount/inputs
outputs=$mount/outputs

# Without a mount the labels would vanish with the container.
if [ ! -d "$outputs" ]; then
  echo "error: there is no folder $outputs: mount one, docker run -v \"\$PWD/out:$outputs\"" >&2
  exit 7
fi

# As root, become the owner of the outputs, so that the labels are theirs and not root's. Not where the
# container may not change users, nor where that owner may not read the inputs.
owner=$(stat -c %u "$outputs")
if [ "$(id -u)" = 0 ] && [ "$owner" != 0 ]; then
  group=$(stat -c %g "$outputs")
  if setpriv --reuid "$owner" --regid "$group" --clear-groups test -r "$inputs" 2>/dev/null; then
    exec setpriv --reuid "$owner" --regid "$group" --clear-groups \
      python3 -m inference "$inputs" "$outputs" "$@"
  fi
fi
exec python3 -m inference "$inputs" "$outputs" "$@"
