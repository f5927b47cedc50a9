#!/usr/bin/env bash
# Runs tests of a program one by one, each in a process of its own that has a time limit: one that hangs
# costs its own time only, and leaves behind what it hung at. Runs in the lab's machine.
#
# usage: each.sh LIMIT PROGRAM BEGUN TEST...      BEGUN: a file that gets a line for each test that begins
set -uo pipefail
limit=$1 program=$2 begun=$3 failed=0
shift 3

# Where everybody stands, and the last that hosts and guests said.
autopsy() {
    local file
    echo "== processes"
    ps -eLo pid,tid,cls,rtprio,psr,stat,time,wchan:24,args --no-headers | grep -v '\[' | cut -c 1-150
    for file in /var/tmp/*/*.{log,console}; do
        [ ! -f "$file" ] || { echo "== $file"; tail -n 25 "$file"; }
    done
}

for test in "$@"; do
    echo "$test" >>"$begun"
    echo -n "test $test ... "
    output=$(timeout --foreground -k 10 "$limit" "$program" --exact "$test" --test-threads 1 --color never 2>&1)
    status=$?
    if [ $status -eq 0 ]; then
        echo ok
        continue
    fi
    failed=101
    echo FAILED
    printf '%s\n' "$output" | grep -vE '^$|^running|^failures:|^test '
    if [ $status -ge 124 ]; then # `timeout` says 124, or 137 if it had to kill
        echo "$test did not end within $limit s"
        autopsy
    fi
    # In the lab's machine every host is a test's; its tenants end with it.
    pkill -KILL -x moirai && sleep 2
    rm -rf /var/tmp/.tmp*
done
exit $failed
