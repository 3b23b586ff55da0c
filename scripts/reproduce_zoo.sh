#!/usr/bin/env bash
# What reproduce_mnist.sh and reproduce_ag_news.sh do: the published tables on one released zoo, one after another.
# Usage: bash scripts/reproduce_zoo.sh {mnist|ag_news} [ARGUMENTS OF nfn_transformer/reproduce.py]
# The exit status is 1 if some cells failed. Paths among the arguments are relative to the checkout.
# Needs bash 4 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/released_zoos.sh

case ${1:-} in
  mnist) tables=(mnist mnist_branches mnist_widths mnist_augmentation) ;;
  ag_news) tables=(ag_news ag_news_augmentation) ;;
  *)
    echo "error: expected mnist or ag_news, got '${1:-}'" >&2
    exit 2
    ;;
esac
dataset=$1
shift

own_data=""
for argument in "$@"; do
  case $argument in
    --data_path | --data_path=*) own_data=1 ;;
    --out_dir | --out_dir=*)
      echo "error: each table has a folder of its own; give --out_dir to nfn_transformer/reproduce.py" >&2
      exit 2
      ;;
  esac
done

if [ -z "$own_data" ] && ! [ -e "data/${dataset}_transformer" ] && ! [ -e "data/${dataset}_transformer.zip" ] &&
  ! [ -e "data/${dataset}_transformers.zip" ]; then
  cat >&2 <<MESSAGE
error: no $dataset zoo: looked for data/${dataset}_transformer, data/${dataset}_transformer.zip, data/${dataset}_transformers.zip
Download $zoo_url/${zoo_archives[$dataset]}
to data/${dataset}_transformer.zip; this does it: bash scripts/download_zoo.sh $dataset
MESSAGE
  exit 2
fi

source scripts/environment.sh
some_failed=0
for table in "${tables[@]}"; do
  echo "scripts/tables/$table.yaml"
  status=0
  python nfn_transformer/reproduce.py "scripts/tables/$table.yaml" "$@" || status=$?
  case $status in
    0) ;;
    1) some_failed=1 ;;
    *) exit "$status" ;; # Ctrl-C, or a mistake that the next table would repeat
  esac
done
exit "$some_failed"
