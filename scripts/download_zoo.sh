#!/usr/bin/env bash
# Download the released zoos into data/ as zips, which the commands read in place; a broken download is resumed.
# Usage: bash scripts/download_zoo.sh [mnist] [ag_news]    (both if none is named)
# The variable ZOO_URL names a mirror: the address in front of /MNIST-Transformers.zip.
# Needs bash 4 or newer, curl, sha256sum and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/released_zoos.sh

fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

# ask_server URL: set http_status, size and sha256 by what the server tells; what it does not tell is "-".
# x-linked-size and x-linked-etag stand in the answer that redirects to the file, not in the file's own.
ask_server() {
  local answer
  answer=$(curl --silent --show-error --head --location --retry 3 "$1" | tr -d '\r"' | awk '
    { name = tolower($1) }
    name ~ /^http\// { status = $2; own_size = "" }
    name == "content-length:" { own_size = $2 }
    name == "x-linked-size:" { linked_size = $2 }
    name == "x-linked-etag:" { sha256 = tolower($2) }
    END {
      size = linked_size == "" ? own_size : linked_size
      print (status == "" ? "-" : status), (size == "" ? "-" : size), (sha256 == "" ? "-" : sha256)
    }') || fail "no answer from $1"
  read -r http_status size sha256 <<<"$answer"
  [[ $sha256 =~ ^[0-9a-f]{64}$ ]] || sha256=-
  # Storage behind a redirect may refuse the question for the headers alone, after the redirect has told all.
  [[ $http_status == 2* || $sha256 != - ]] || fail "$1: expected a zip, found HTTP status $http_status"
}

bytes_of() {
  if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

# fetch URL FILE: complete FILE. Each attempt goes on where the one before broke off, which curl's --retry does not.
# It gives up after five attempts in a row that brought nothing new.
fetch() {
  local idle=0 most found status code progress=(--silent --show-error)
  if [ -t 2 ]; then progress=(--progress-bar); fi
  most=$(bytes_of "$2")
  while [ "$idle" -lt 5 ]; do
    if [ "$size" != - ] && [ "$(bytes_of "$2")" -ge "$size" ]; then return; fi
    status=0
    code=$(curl --fail --location --continue-at - --connect-timeout 30 --speed-limit 1 --speed-time 60 \
      "${progress[@]}" --write-out '%{http_code}' --output "$2" "$1") || status=$?
    # 416: the server has nothing beyond what is here already.
    if [ "$status" = 0 ] || [ "$code" = 416 ]; then return; fi
    case $code in
      408 | 429) ;; # too slow, too often: these pass
      4??) fail "$1: expected a zip, found HTTP status $code" ;;
    esac
    case $status in
      23) fail "$2: cannot be written; is the disk full?" ;;
      33) rm -f "$2" ;; # this server cannot send a part of a file
    esac
    # Compared with the most there ever was: a file begun anew brings nothing new until it is longer than that.
    found=$(bytes_of "$2")
    if [ "$found" -gt "$most" ]; then most=$found idle=0; else idle=$((idle + 1)); fi
    if [ "$idle" -lt 5 ]; then sleep "$((idle > 0 ? idle : 1))"; fi
  done
  fail "$1: 5 attempts in a row brought nothing new; the same command goes on from $2 ($(bytes_of "$2") bytes)"
}

# reject FILE EXPECTED FOUND
reject() {
  rm -f "$1"
  fail "$1: expected $2, found $3; removed, so that the next try begins anew"
}

# check FILE: end the script unless FILE is what the server has told.
check() {
  local found
  found=$(bytes_of "$1")
  [ "$size" = - ] || [ "$found" = "$size" ] || reject "$1" "$size bytes" "$found"
  if [ "$sha256" = - ]; then
    echo "the server tells no SHA-256; only the size and the zip's directory are checked"
  else
    found=$(sha256sum "$1" | cut -d ' ' -f 1)
    [ "$found" = "$sha256" ] || reject "$1" "SHA-256 $sha256" "$found"
  fi
  python3 -m zipfile -l "$1" >/dev/null 2>&1 || reject "$1" "a zip" "a file whose zip directory cannot be read"
}

download() {
  local url="$zoo_url/${zoo_archives[$1]}" file="data/$1_transformer.zip"
  if [ -e "$file" ]; then
    echo "$file is there already and left alone"
    return
  fi
  ask_server "$url"
  echo "$url ($size bytes) -> $file"
  fetch "$url" "$file.part"
  check "$file.part"
  mv "$file.part" "$file"
  echo "$file is complete"
}

for program in curl python3 sha256sum; do
  command -v "$program" >/dev/null || fail "this script needs $program, which is not installed" 2
done
if [ $# = 0 ]; then set -- mnist ag_news; fi
for name in "$@"; do
  case $name in
    mnist | ag_news) ;;
    *) fail "no released zoo '$name'; usage: bash scripts/download_zoo.sh [mnist] [ag_news]" 2 ;;
  esac
done
mkdir -p data
for name in "$@"; do download "$name"; done
