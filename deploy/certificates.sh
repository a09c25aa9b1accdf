#!/usr/bin/env bash
# Makes the certificates of the compose files, for trials: one authority for
# Rollcall, one for etcd, and for each service a directory that its container
# mounts. Usage: certificates.sh DIR. It does nothing when they are there and good
# for another day, and says so when it has made them. The command line comes from
# bin/rollcall, or from $ROLLCALL.
set -euo pipefail
dir=$1 rollcall=${ROLLCALL:-bin/rollcall} here=$(dirname "${BASH_SOURCE[0]}")
[[ ! -e $dir/complete || -n $(find "$dir/complete" -mtime +28) ]] || exit 0
command -v "$rollcall" >/dev/null || { echo "certificates.sh: $rollcall is missing: make build" >&2; exit 1; }

# ca says what went wrong, and nothing else.
ca() {
  local said
  said=$("$rollcall" ca "$@" 2>&1) || { printf 'certificates.sh: %s\n' "$said" >&2; return 1; }
}

umask 077
mkdir -p "$dir"
find "$dir" -type f -delete # the directories stay: containers have mounted them
ca init "$dir/authority"
ca init "$dir/etcd-authority" --trust-domain etcd.test

# issue makes the directory of one service. Containers run as another user, who has
# to read the key; nobody else gets past the directory above it.
issue() { # AUTHORITY NAME ROLE ID [NAMES]
  local authority=$1 name=$2 role=$3 id=$4
  shift 4
  ca issue "$dir/$authority" --role "$role" --id "$id" --out "$dir/$name" "$@"
}

# The ports are published on this machine, so certificates are for it, too.
own=(--dns localhost --ip 127.0.0.1)
for name in registry registry-1 registry-2 registry-3; do
  issue authority "$name" registry "$name" --dns "$name" "${own[@]}"
done
for name in collector-1 collector-2 collector-3; do
  issue authority "$name" collector "$name" --dns "$name" "${own[@]}"
done
issue authority example producer example --dns example "${own[@]}"
issue authority plain-sidecar producer plain --dns plain-sidecar "${own[@]}"
issue authority operator operator operator
issue authority reader reader reader
for name in etcd-1 etcd-2 etcd-3; do
  issue etcd-authority "$name" registry "$name" --dns "$name" "${own[@]}"
done

# A registry is a client of etcd, under etcd's authority.
for name in registry-1 registry-2 registry-3; do
  issue etcd-authority "$name/etcd" registry "$name"
done
for name in registry registry-1 registry-2 registry-3 collector-1 collector-2 collector-3 plain-sidecar; do
  cp "$here/access.yaml" "$dir/$name/access.yaml"
done
find "$dir" -mindepth 2 -path "$dir/*authority" -prune -o -type d -exec chmod 0755 {} + -o -type f ! -name ca.key -exec chmod 0644 {} +
chmod 0755 "$dir"/*/
chmod 0700 "$dir" "$dir/authority" "$dir/etcd-authority"
touch "$dir/complete"
echo "made certificates for trials in $dir"
