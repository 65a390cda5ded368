# Runs tcmoa with {time} in its arguments replaced by the start of the process in UTC, so that no start overwrites the files of another.
time=$(date -u +%Y%m%dT%H%M%SZ)
count=$#
while [ "$count" -gt 0 ]; do
  word=$(printf '%s' "$1" | sed "s/{time}/$time/g")
  shift
  set -- "$@" "$word"
  count=$((count - 1))
done
exec tcmoa "$@"
