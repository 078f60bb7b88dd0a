#!/usr/bin/env bash
# Runs a command in the container of a site; without a container if the site has none.
#
#   bash slurm/container/run.sh SITE COMMAND...
#
# For example  run.sh a100 leukotree submit sweeps/deepapl.yaml --site a100
set -euo pipefail

(($# > 1)) || { echo "run.sh: expected a site and a command" >&2; exit 2; }
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/enter.sh"
enter_site "$1"
shift
"${here[@]}" "$@"
