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

# As root, become the owner of the outputs, so that the labels are theirs and not root's: if the container may change
# users, and that owner may write there and read every scan, every earlier output and the weights. Else stay root and
# say why, without the name of a file, since --hash-names may be set.
set -- python3 -m inference "$inputs" "$outputs" "$@"
owner=$(stat -c %u "$outputs")
if [ "$(id -u)" = 0 ] && [ "$owner" != 0 ]; then
  group=$(stat -c %g "$outputs")
  as_owner() { setpriv --reuid "$owner" --regid "$group" --clear-groups "$@"; }
  # What find may not enter it says on stderr, and that counts as well. With -L a link has type l if it is broken.
  unread() { as_owner find -L "$@" ! -name '.*' ! -type l ! -readable -print -quit 2>&1; }
  if ! as_owner true 2>/dev/null; then
    why="this container may not change users"
  elif ! as_owner test -w "$outputs" || ! as_owner test -x "$outputs"; then
    why="that user may not write there"
  elif [ -n "$(unread "$inputs" "$outputs" -maxdepth 1 ! -type d)" ]; then
    why="that user may not read every file in $inputs and $outputs"
  elif [ -n "$(unread weights)" ]; then
    why="that user may not read the weights"
  else
    exec setpriv --reuid "$owner" --regid "$group" --clear-groups "$@"
  fi
  echo "warning: running as root and not as user $owner, who owns $outputs: $why" >&2
fi
exec "$@"
