#!/bin/sh
# Format the data folder where it is new, then run the broker in place of this shell.
# HOST is the name clients reach this broker by; DATA and HEAP say where it writes and what it takes.
set -eu

folder=$(dirname "$0")
data=${DATA:-/var/lib/kafka}
mkdir -p "$data/log"
settings=$data/server.properties
cp "$folder/server.properties" "$settings"
cat >> "$settings" << EOF
listeners=BROKER://:9092,CONTROLLER://127.0.0.1:9093
advertised.listeners=BROKER://${HOST:-localhost}:9092
controller.quorum.voters=1@127.0.0.1:9093
log.dirs=$data/log
EOF

set -- -Xms"${HEAP:-256m}" -Xmx"${HEAP:-256m}" -XX:+UseSerialGC \
  -Dlog4j2.configurationFile="$folder/log4j2.properties" -Djava.io.tmpdir="$data" \
  -cp "$folder/lib/*"
java "$@" kafka.tools.StorageTool format --ignore-formatted --config "$settings" \
  --cluster-id "${CLUSTER_ID:-Zm91cndheXMtdGVzdC0wMQ}" > /dev/null
exec java "$@" kafka.Kafka "$settings"
