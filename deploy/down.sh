#!/usr/bin/env bash
# Removes all containers, networks and volumes of a Compose project, whatever file
# made them: make down. Usage: down.sh PROJECT
set -euo pipefail
label=label=com.docker.compose.project=$1

remove() { # LIST REMOVE: removes what is listed
  local ids
  # Both are words of a docker command.
  # shellcheck disable=SC2086
  mapfile -t ids < <(docker $1 --filter "$label" --quiet)
  # shellcheck disable=SC2086
  [[ ${#ids[@]} == 0 ]] || docker $2 "${ids[@]}" >/dev/null
}

ids=$(docker ps --filter "$label" --quiet)
# shellcheck disable=SC2086
[[ -z $ids ]] || docker stop --time 45 $ids >/dev/null
remove 'ps --all' 'rm --force --volumes'
remove 'network ls' 'network rm'
remove 'volume ls' 'volume rm'
echo "nothing is left of the project $1"
