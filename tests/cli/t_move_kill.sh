#!/bin/bash
# kill -9 of setup-private (and of its server) at random moments while it moves files: after each kill either the originals are
# complete where they were, or the copy is complete; running it again finishes; nothing is ever lost.
. "$(dirname "$0")/lib.sh"
here=$(dirname "$0"); install -m 755 "$here/manifest.py" "$T/manifest.py"
cd "$HOME_A"; secret p "$PASS"; chown ecfsalice: p
rounds=6; [ -n "${ECFS_LONG:-}" ] && rounds=200
manifest() { alice python3 "$T/manifest.py" "$@"; }
setup=(setup-private --yes --move-existing --passphrase-file p --no-recovery "${QUICK[@]}")
manifest --make "$T/home/ecfsalice/template" 20000000
copy_template() { rm -rf Private; alice cp -a template Private; manifest Private >"$T/original"; }
clear_all() {
  for at in "$HOME_A/Private" "$HOME_A/.ecfs/Private/setup-mount"; do ! mounted "$at" || umount "$at" 2>/dev/null || umount -l "$at"; done
  await not pgrep -u ecfsalice -x ecfs-mountd >/dev/null
  chmod 700 Private 2>/dev/null; rm -rf Private Private.unencrypted Private.unencrypted.new .Private .ecfs
}
# How long does it take undisturbed? Kills are spread over that time.
copy_template; alice "$ECFS" "${setup[@]}" >/dev/null || echo "FAILED: undisturbed"; clear_all
copy_template; start=$(date +%s%N); alice "$ECFS" "${setup[@]}" >/dev/null || echo "FAILED: undisturbed"; whole_ms=$((($(date +%s%N) - start) / 1000000)); clear_all
lost=0 untouched=0 moved=0 done_before=0
for round in $(seq $rounds); do
  copy_template
  alice "$ECFS" "${setup[@]}" >said 2>&1 & tool=$!
  if [ $((round % 3)) -eq 1 ]; then  # the short while in which originals are removed
    until [ -e .ecfs/Private/profile.json ] || ! kill -0 "$tool" 2>/dev/null; do :; done
    sleep "0.0$((RANDOM % 30 + 10))"
  else                               # anywhere before
    wait_ms=$((whole_ms * (RANDOM % 90) / 100))
    sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
  fi
  if [ $((round % 3)) -eq 0 ]; then pkill -9 -u ecfsalice -x ecfs-mountd; fi
  pkill -9 -u ecfsalice -x ecfs; wait "$tool" 2>/dev/null
  await not pgrep -u ecfsalice -x ecfs >/dev/null  # a child that was being made holds the lock until it is another program
  # What is there now, without the tool's help?
  if [ ! -e .ecfs/Private/setup-unfinished ] && [ -e .ecfs/Private/profile.json ]; then
    done_before=$((done_before + 1))
  elif [ ! -e Private.unencrypted ] || [ -e Private.unencrypted/README.txt ]; then
    untouched=$((untouched + 1))
    manifest Private | diff - "$T/original" >diff || { lost=$((lost + 1)); echo "FAILED: round $round: the originals have changed"; head -n 5 diff; }
  else
    moved=$((moved + 1))
  fi
  # Run it again: it has to come to the end.
  if [ -e .ecfs/Private/setup-unfinished ] || [ ! -e .ecfs/Private/profile.json ]; then
    alice "$ECFS" "${setup[@]}" >said 2>&1 || { echo "FAILED: round $round: the second run ended with $?"; cat said; }
  fi
  alice "$ECFS" mount-private --passphrase-file p >said 2>&1 || { echo "FAILED: round $round: mount"; cat said; }
  manifest Private | diff - "$T/original" >diff || { lost=$((lost + 1)); echo "FAILED: round $round: files are not as they were"; head -n 5 diff; }
  [ ! -e Private.unencrypted ] || echo "FAILED: round $round: originals are left"
  clear_all
done
[ $((untouched + moved + done_before)) -eq "$rounds" ] && echo "every round was looked at"
echo "lost: $lost"
echo "interrupted before anything was touched: $untouched; while originals were removed: $moved; finished before the kill: $done_before" >&3
