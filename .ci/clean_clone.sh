#!/usr/bin/env bash
# The README's first command in a clean clone, by a user who may write nowhere else and has no HOME.
# As root it becomes such a user (setpriv); any other user only loses HOME.
# Usage: bash .ci/clean_clone.sh
set -euo pipefail
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
git -c safe.directory="*" clone -q --no-hardlinks . "$place/refnet" # chown must not reach the files of this repository
user=()
if ((EUID == 0)); then
    chown -R 65534:65534 "$place"
    user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
cd "$place/refnet"
first=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { if (inside) exit } inside' README.md)
said=$("${user[@]}" env -u HOME -u XDG_CACHE_HOME -u REFNET_CACHE -u REFNET_WEIGHTS bash -euo pipefail -c "$first" 2>&1) || {
    code=$?
    printf '%s\n' "$said" "the README's first command ends with $code" >&2
    exit 1
}
printf '%s\n' "$said"
grep -q '^all 326 captured values are equal or replayed' <<<"$said"
[[ ! -e '~' ]] || { echo "there is a folder named ~" >&2; exit 1; }
[[ -z $(find refnet -name '*.nb[ic]' -print -o -name '*.kernel' -print) ]] || {
    echo "there are compiled kernels beside the sources" >&2
    exit 1
}
