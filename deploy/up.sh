#!/usr/bin/env bash
# Runs a compose file of this directory and waits until it works: make up.
# Usage: up.sh FILE PROJECT. It prints where to look, and how long it took.
set -euo pipefail
file=$1 project=$2 limit=${LIMIT:-120}
certificates=${ROLLCALL_CERTIFICATES:-$(dirname "${BASH_SOURCE[0]}")/certificates}
certificates=$(realpath --canonicalize-missing "$certificates")
export ROLLCALL_CERTIFICATES=$certificates
reader=(--cacert "$certificates/reader/ca.crt" --cert "$certificates/reader/tls.crt" --key "$certificates/reader/tls.key")

compose() {
  if docker compose version >/dev/null 2>&1; then
    docker compose -p "$project" -f "$file" "$@"
  else
    docker-compose -p "$project" -f "$file" "$@"
  fi
}

# published prints host:port of a service's port.
published() { compose port "$1" "$2" | head -n 1; }

# unhealthy prints the containers that are not healthy yet, or do not run.
unhealthy() {
  docker ps --all --filter "label=com.docker.compose.project=$project" --format '{{.Names}} {{.Status}}' |
    grep -v -e ' Up .*(healthy)$' -e '_run_' -e '-run-' || true
}

# await runs a command until it prints nothing, or the time is over.
await() {
  local left
  while left=$("$@"); [[ -n $left ]]; do
    if ((SECONDS > limit)); then
      printf 'make up: not after %d s: %s\n' "$limit" "$left" >&2
      return 1
    fi
    sleep 0.5
  done
}

# unanswered prints something until a collector knows that somebody is up.
unanswered() {
  local answer
  answer=$(curl -sS --max-time 5 "${reader[@]}" "https://$http/api/v1/query?query=count(up==1)" 2>&1) || true
  [[ $answer == *'"status":"success"'*'"value"'* ]] || echo "the query API of https://$http says: $answer"
}

command -v curl >/dev/null || { echo 'make up: curl is missing: it asks whether queries are answered' >&2; exit 1; }
SECONDS=0
made=$("$(dirname "${BASH_SOURCE[0]}")/certificates.sh" "$certificates")
# What runs already may have mounted a directory that is gone.
compose up -d --remove-orphans ${made:+--force-recreate}
await unhealthy
http=$(published collector-1 7481)
await unanswered
registry=registry
[[ $file != *fleet* ]] || registry=registry-1
printf 'up in %d s\n' "$SECONDS"
printf '  queries   curl %s https://%s/api/v1/query?query=up\n' "${reader[*]}" "$http"
printf '  registry  %s (gRPC), https://%s/metrics\n' "$(published "$registry" 7470)" "$(published "$registry" 7471)"
printf '  who asks  certificates of an operator and of a reader are in %s\n' "$certificates"
printf '  pulls     http://%s/pulls\n' "$(published example 7491)"
