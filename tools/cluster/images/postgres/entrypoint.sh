#!/bin/sh
# Make the database cluster when there is none, then run the server in place of this shell.
set -eu

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

# A crash halfway must not leave a folder that looks finished: PG_VERSION is there early on, so the
# cluster is made beside its place and moved in whole.
make_cluster() {
  if [ -z "${POSTGRES_PASSWORD:-}" ]; then
    echo "POSTGRES_PASSWORD is not set: set it, e.g. from a Secret" >&2
    exit 1
  fi
  mkdir -p -m 0700 "$PGDATA"
  # A mounted volume belongs to root, and the server refuses a folder that is not its own.
  if ! [ -O "$PGDATA" ]; then
    echo "$PGDATA belongs to another user: set PGDATA to a folder inside the volume" >&2
    exit 1
  fi
  new=$PGDATA/.new
  rm -rf "$new"
  mkdir -m 0700 "$new"
  secret=$(mktemp)
  printf '%s' "$POSTGRES_PASSWORD" > "$secret"
  initdb --pgdata="$new" --username="$user" --pwfile="$secret" --encoding=UTF8 \
    --locale=C.UTF-8 --auth-local=trust --auth-host=scram-sha-256 --no-sync > /dev/null
  rm "$secret"
  echo "host all all all scram-sha-256" >> "$new/pg_hba.conf"
  if [ "$database" != postgres ]; then
    echo "CREATE DATABASE \"$database\";" | postgres --single -D "$new" postgres > /dev/null
  fi
  for script in /docker-entrypoint-initdb.d/*.sql; do
    # One statement a line, as single-user mode reads them.
    [ ! -r "$script" ] || postgres --single -D "$new" "$database" < "$script" > /dev/null
  done
  version=$new/PG_VERSION
  find "$new" -mindepth 1 -maxdepth 1 ! -path "$version" -exec mv {} "$PGDATA/" \;
  mv "$version" "$PGDATA/"
  rmdir "$new"
}

if [ "${1:-postgres}" = postgres ]; then
  [ -s "$PGDATA/PG_VERSION" ] || make_cluster
  # Reachable from other pods, as in the official image; arguments given may say otherwise.
  [ $# -eq 0 ] || shift
  set -- postgres -c "listen_addresses=*" "$@"
fi
exec "$@"
