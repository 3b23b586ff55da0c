# shellcheck shell=bash disable=SC2034 # sourced by download_zoo.sh and reproduce_zoo.sh, which use both names
# Where the released zoos are, and the archive of each. Needs bash 4 or newer, for declare -A.
zoo_url=${ZOO_URL:-https://huggingface.co/datasets/anonymized-acamedia/Small-Transformer-Zoo/resolve/main}
declare -A zoo_archives=([mnist]=MNIST-Transformers.zip [ag_news]=AG-News-Transformers.zip)
