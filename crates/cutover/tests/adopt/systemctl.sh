#!/bin/sh
# A user's service manager for tests, as far as a take-over asks one. A unit is a file with ExecStart= and Environment= lines
# in $FAKE_UNITS; that it is enabled is a file, that it runs is a pid. What changes anything is noted in `calls`.
[ "$1" = --user ] || { echo "only --user is known" >&2; exit 1; }
shift
verb=$1
shift
while [ "${1#--}" != "$1" ]; do shift; done
unit=$1
cd "$FAKE_UNITS" || exit 1

main() {
    pid=$(cat "../$unit.pid" 2>/dev/null || echo 0)
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
    case "$state" in '' | Z) echo 0 ;; *) echo "$pid" ;; esac
}

note() { echo "$verb $unit" >>../calls; }

case $verb in
show)
    [ -f "$unit" ] || { printf 'MainPID=0\nFragmentPath=\nUnitFileState=\n'; exit 0; }
    enabled=disabled
    [ -f "../$unit.enabled" ] && enabled=enabled
    active=inactive
    [ "$(main)" = 0 ] || active=active
    printf 'MainPID=%s\nFragmentPath=%s\nUnitFileState=%s\nActiveState=%s\n' "$(main)" "$FAKE_UNITS/$unit" "$enabled" "$active"
    ;;
enable) note && touch "../$unit.enabled" ;;
disable) note && rm -f "../$unit.enabled" ;;
start)
    note
    [ "$(main)" = 0 ] || exit 0
    variables=$(sed -n 's/^Environment=//p' "$unit")
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    # shellcheck disable=SC2086 # they are words
    setsid env -i $variables $command </dev/null >/dev/null 2>&1 &
    echo $! >"../$unit.pid"
    ;;
stop)
    note
    pid=$(main)
    [ "$pid" = 0 ] && exit 0
    kill -TERM "$pid"
    while [ "$(main)" != 0 ]; do sleep 0.02; done
    ;;
*) echo "unknown: $verb" >&2 && exit 1 ;;
esac
