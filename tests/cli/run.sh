#!/bin/bash
# usage: run.sh TEST.sh     runs a test and compares what it says, made independent of the run, with TEST.out
#        run.sh --write TEST.sh     writes TEST.out anew
set -u
write=
[ "$1" = --write ] && { write=1; shift; }
test=$(readlink -f "$1")
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$test" 3>&1 >"$said" 2>&1 </dev/null   # descriptor 3: numbers that differ from run to run
status=$?
if [ "$status" -eq 77 ]; then cat "$said"; exit 77; fi
[ "$status" -eq 0 ] || echo "the test ended with status $status" >>"$said"
sed -i -E -e 's#/tmp/ecfs-cli\.[A-Za-z0-9]{6}/bin/setup/ecfs#ecfs#g' -e 's#/tmp/ecfs-cli\.[A-Za-z0-9]{6}#@T@#g' -e 's#ecfs-recovered-[A-Za-z0-9]{6}#ecfs-recovered-@X@#g' \
  -e 's/\b[0-9a-f]{32}\b/@ID@/g' -e 's/20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}/@TIME@/g' -e 's/"(created|started)": [0-9]+/"\1": @TIME@/g' \
  -e '/ close /s/([a-z-]+) \([0-9]+\)/\1 (@PID@)/g' -e '/: built with a sanitizer: /d' -e 's/firmware [0-9]+\.[0-9]+/firmware @F@/' -e 's/"firmware": "[0-9.]+"/"firmware": @F@/' -e 's/served by process [0-9]+/served by process @PID@/' "$said"
if [ -n "$write" ]; then cp "$said" "${test%.sh}.out"; cat "$said"; exit 0; fi
if ! diff -u "${test%.sh}.out" "$said"; then echo "$(basename "$test"): what it says differs from $(basename "${test%.sh}.out")"; exit 1; fi
if grep -q '^FAILED' "$said"; then grep '^FAILED' "$said"; exit 1; fi
