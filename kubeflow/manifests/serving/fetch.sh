#!/bin/sh
# Keeps the newest versions of a model as the bucket has them, for a TensorFlow Serving that can't
# read the bucket. A version appears under its number when it is whole: it is copied beside and
# then renamed, so that a server that looks each second never sees half of it.
#
#     fetch.sh once    once; without any version that is an error
#     fetch.sh         every EVERY seconds, for ever
#
# From the environment: MODEL, the model's name; MODELS_URI, the bucket's folder of models, as
# s3://BUCKET/FOLDER; FOLDER, where to keep them (/models); KEEP, how many versions (2); EVERY
# (30). What rclone has to know of the bucket stands there too, as RCLONE_CONFIG_S3_ENDPOINT.
set -eu

folder=${FOLDER:-/models}
source=${MODELS_URI%%://*}:${MODELS_URI#*://}
source=${source%/}/$MODEL
staged=$folder/.staged
# By itself rclone tries for minutes, in silence; here another try comes anyway.
export RCLONE_RETRIES=1 RCLONE_LOW_LEVEL_RETRIES=3

# The files of a version, each with its size.
list_files() {
  rclone lsf --recursive --files-only --format ps "$source/$1" | sort
}

# Makes a version's folder if the version is whole: the push uploads saved_model.pb last. What
# changes while it is copied is left for the next time.
fetch_version() {
  before=$(list_files "$1")
  if ! printf '%s\n' "$before" | grep -q '^saved_model\.pb;'; then
    echo "$source/$1 has no saved_model.pb yet" >&2
    return
  fi
  rm -rf "$staged"
  rclone copy "$source/$1" "$staged" || return
  if [ "$(list_files "$1")" != "$before" ]; then
    echo "$source/$1 changed while it was copied" >&2
    return
  fi
  mv "$staged" "$folder/$MODEL/$1" && echo "fetched $source/$1"
}

fetch() {
  listing=$(rclone lsf --dirs-only "$source") || return
  versions=$(printf '%s\n' "$listing" | sed -n 's#^\([0-9][0-9]*\)/$#\1#p' | sort -rn)
  mkdir -p "$folder/$MODEL" || return
  wanted=
  missing=${KEEP:-2}
  for version in $versions; do
    [ "$missing" -gt 0 ] || break
    [ -d "$folder/$MODEL/$version" ] || fetch_version "$version" || true
    # One that is not whole, as an upload that broke off leaves it, takes no other's place.
    if [ -d "$folder/$MODEL/$version" ]; then
      wanted="$wanted $version"
      missing=$((missing - 1))
    fi
  done
  if [ -z "$wanted" ]; then
    echo "no whole version under $source" >&2
    return 1
  fi
  # What is older goes, and what the bucket has no longer. The server keeps in memory what it
  # serves, until the next version has taken over.
  for path in "$folder/$MODEL"/*; do
    case "$wanted " in
      *" ${path##*/} "*) ;;
      *) rm -rf "$path" && echo "removed $path" ;;
    esac
  done
}

if [ "${1:-}" = once ]; then
  fetch
  exit
fi
trap 'exit 0' TERM INT  # the first process of a container gets only those signals that it traps
while true; do
  fetch || echo "next try in ${EVERY:-30} seconds" >&2
  sleep "${EVERY:-30}" &
  wait $!
done
