#!/bin/sh
# Mondrian with curl: a photo in, progress and tokens out as they come, read on after a lost connection, stop, delete.
#
#     sh curl.sh photo.jpg "Which colour dominates?"
#
# MONDRIAN_URL is where the gateway listens (http://127.0.0.1:8080), MONDRIAN_API_KEY your key where the server has keys.
set -eu

photo=${1:?"usage: sh curl.sh PHOTO [PROMPT]"}
prompt=${2:-Describe this image.}
url=${MONDRIAN_URL:-http://127.0.0.1:8080}

# curl with the key, which `ps` would show if it stood on the command line. An error prints the server's words and ends.
call() {
  if [ -n "${MONDRIAN_API_KEY:-}" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$MONDRIAN_API_KEY" | curl --config - "$@"
  else
    curl "$@"
  fi
}
quiet="--silent --show-error --fail-with-body"

# A name for a request: sent again with it, the request leads to the same analysis.
new_key() { uuidgen 2>/dev/null || cat /proc/sys/kernel/random/uuid; }

# Start an analysis that outlives this connection, and print where it is: /v1/analyses/{id}.
create() {
  # shellcheck disable=SC2086 # several options
  call $quiet --retry 5 --output /dev/null --write-out '%header{location}' --header "Idempotency-Key: $(new_key)" \
    --form "image=@$photo" --form "prompt=$prompt" "$url/v1/analyses"
}

# Turn a stream of events into lines of id, event and data, one for each event that came whole.
messages() {
  id='' event='' data=''
  while IFS= read -r line; do
    case $line in
      "id: "*) id=${line#id: } ;;
      "event: "*) event=${line#event: } ;;
      "data: "*) data=${line#data: } ;;
      "")
        if [ -n "$id" ] && [ -n "$data" ]; then printf '%s\t%s\t%s\n' "$id" "$event" "$data"; fi
        id='' event='' data=''
        ;;
    esac
  done
}

# Follow an analysis to its end, over as many connections as it takes, and print each event once.
follow() {
  seen=$(mktemp)
  tries=0
  until cut -f 2 "$seen" | grep -Eqx 'completed|failed|cancelled'; do
    before=$(wc -l <"$seen")
    last=$(tail -n 1 "$seen" | cut -f 1)
    # shellcheck disable=SC2086 # several options
    call $quiet --no-buffer --header "Last-Event-ID: $last" "$url$1/events" | messages | tee -a "$seen"
    if [ "$(wc -l <"$seen")" -gt "$before" ]; then tries=0; else tries=$((tries + 1)); fi
    if [ "$tries" -ge 20 ]; then echo "giving up" >&2; exit 1; fi
    if [ "$tries" -gt 0 ]; then sleep 1; fi
  done
  rm -f "$seen"
}

echo "== In one request: the events of a new analysis, each as soon as it is there"
# shellcheck disable=SC2086 # several options
call $quiet --no-buffer --header "Accept: text/event-stream" --form "image=@$photo" --form "prompt=$prompt" "$url/v1/analyze"

echo "== In one request: the whole result at once"
# shellcheck disable=SC2086 # several options
call $quiet --header "Accept: application/json" --form "image=@$photo" --form "prompt=$prompt" "$url/v1/analyze"
echo

echo "== In two: start it, then follow it over lost connections"
analysis=$(create)
follow "$analysis"

echo "== Stop one, in whatever stage it is"
stopped=$(create)
# shellcheck disable=SC2086 # several options
call $quiet --request POST "$url$stopped:cancel"
echo

echo "== Delete both, with everything that is kept of them"
for one in "$analysis" "$stopped"; do
  # shellcheck disable=SC2086 # several options
  call $quiet --request DELETE --output /dev/null --write-out '%{http_code}\n' "$url$one"
done
