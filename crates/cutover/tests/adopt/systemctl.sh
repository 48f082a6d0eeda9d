#!/bin/sh
# A user's service manager and the system's for tests, as far as a take-over asks one. A unit is a file with ExecStart=, User= and
# Environment= lines in $FAKE_UNITS or $FAKE_SYSTEM_UNITS; that it is enabled is a file, that it runs is a pid. What changes
# anything is noted in `calls`, and takes root at the system's.
units=$FAKE_SYSTEM_UNITS
[ "$1" = --user ] && { units=$FAKE_UNITS; shift; }
verb=$1
shift
while [ "${1#--}" != "$1" ]; do shift; done
unit=$1
cd "$units" || exit 1

main() {
    pid=$(cat "../$unit.pid" 2>/dev/null || echo 0)
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
    case "$state" in '' | Z) echo 0 ;; *) echo "$pid" ;; esac
}

note() {
    if [ "$units" = "$FAKE_SYSTEM_UNITS" ] && [ "$(id -u)" != 0 ]; then
        echo "Access denied" >&2
        exit 4
    fi
    echo "$verb $unit" >>../calls
}

case $verb in
show)
    [ -f "$unit" ] || { printf 'MainPID=0\nFragmentPath=\nUnitFileState=\n'; exit 0; }
    enabled=disabled
    [ -f "../$unit.enabled" ] && enabled=enabled
    active=inactive
    [ "$(main)" = 0 ] || active=active
    printf 'MainPID=%s\nFragmentPath=%s\nUnitFileState=%s\nActiveState=%s\n' "$(main)" "$units/$unit" "$enabled" "$active"
    ;;
enable) note && touch "../$unit.enabled" ;;
disable) note && rm -f "../$unit.enabled" ;;
start)
    note
    [ "$(main)" = 0 ] || exit 0
    variables=$(sed -n 's/^Environment=//p' "$unit")
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    # shellcheck disable=SC2086 # they are words
    account=$(sed -n 's/^User=//p' "$unit")
    # shellcheck disable=SC2086
    setsid ${account:+setpriv --reuid="$account" --regid="$account" --clear-groups} env -i $variables $command </dev/null >/dev/null 2>&1 &
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
