#!/bin/bash
# kill -9 of ecfs migrate at random moments, in both directions, with the old tree kept and removed: after each kill every file is whole
# in one of the trees at least, and running it again ends with an equal tree.
. "$(dirname "$0")/lib.sh"
here=$(dirname "$0"); install -m 755 "$here/manifest.py" "$T/manifest.py"
cd "$HOME_A"; alice mkdir m; secret p "$PASS"; secret new "$NEW"; chown ecfsalice: p new
rounds=4; [ -n "${ECFS_LONG:-}" ] && rounds=60   # of two kills each
manifest() { alice python3 "$T/manifest.py" "$@"; }
# What each path holds, without the number of its names and which is the first: half of a tree may have only some of them.
holds() { manifest "$1" .ecfs-migrating | grep -v "\['0o4" | sed -E "s/^(.*) \[('0o[0-9]+', [0-9]+, [0-9]+, [0-9]+), [0-9]+, b?(\"[^\"]*\"|'([^'\\\\]|\\\\.)*')/\1 [\2/" | sort; }
show() { alice "$ECFS" mount -q -o ro --passphrase-file "$2" "$1" m >said 2>&1 || { echo "FAILED: $3: mount of $1"; cat said; }; }
hide() { await alice "$ECFS" umount m >said 2>&1 || { echo "FAILED: umount"; cat said; }; }
alice "$ECFS" init --passphrase-file p --no-recovery "${QUICK[@]}" template >/dev/null
alice "$ECFS" mount -q --passphrase-file p template m; manifest --make "$HOME_A/m" 2000000 5000000; alice sh -c 'rm m/xxxx*'
manifest m >"$T/original"; holds m >"$T/held"; alice "$ECFS" umount m
check "the tree is as rich as it should be" test "$(wc -l <"$T/original")" -gt 80
whole_ms=()   # of each direction; kills are spread over that time
undisturbed() {
  local start; start=$(date +%s%N)
  alice "$ECFS" migrate --yes "$@" >/dev/null || echo "FAILED: undisturbed"
  whole_ms+=($((($(date +%s%N) - start) / 1000000)))
}
undisturbed --passphrase-file p --new-passphrase-file new template ecryptfs
undisturbed --passphrase-file new --new-passphrase-file p --no-recovery "${QUICK[@]}" ecryptfs fresh
lost=0 killed=0 ended=0
# As often as that, and until there were as many kills: how many come too late depends on what else the machine does.
for ((round = 1; round <= rounds || (killed < rounds && round <= 5 * rounds); round++)); do
  rm -rf old fresh
  if [ $((round % 2)) -eq 0 ]; then
    alice cp -a template old; before=p after=new; kind=(--passphrase-file p --new-passphrase-file new)
  else
    alice cp -a ecryptfs old; before=new after=p; kind=(--passphrase-file new --new-passphrase-file p --no-recovery "${QUICK[@]}")
  fi
  [ $((round % 4)) -lt 2 ] || kind+=(--remove-old)
  command=(migrate --yes "${kind[@]}" old fresh)
  # Killed twice, then it may come to its end.
  for kill in 1 2; do
    alice "$ECFS" "${command[@]}" >said 2>&1 & tool=$!
    way=$((round % 2)); wait_ms=$((whole_ms[way] * (RANDOM % 100) / 100)); sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
    if pkill -9 -P "$tool"; then killed=$((killed + 1)); fi
    wait "$tool" 2>/dev/null; status=$?
    if [ "$status" -eq 0 ]; then ended=$((ended + 1)); whole_ms[way]=$((whole_ms[way] * 9 / 10)); break; fi
    [ "$status" -eq 137 ] || { echo "FAILED: round $round: ended with $status"; cat said; }
    # Without the tool's help: what each tree shows, put together, is all there was, and nothing else.
    show old "$before" "round $round"; holds m >"$T/in-old"; hide
    if [ -e fresh/.ecfs-volume ] || ls fresh 2>/dev/null | grep -q ^ECRYPTFS_FNEK; then
      show fresh "$after" "round $round"; holds m >"$T/in-new"; hide
    else
      : >"$T/in-new"
    fi
    sort -u "$T/in-old" "$T/in-new" >"$T/in-both"
    diff "$T/held" "$T/in-both" >diff || { lost=$((lost + 1)); echo "FAILED: round $round: files are not whole"; head -n 5 diff; }
    # Killed when all was done but the last sync.
    if [ ! -e fresh/.ecfs-migrate ] && ls -A fresh 2>/dev/null | grep -qv '^\.ecfs-migrate'; then status=0; break; fi
  done
  if [ "$status" -ne 0 ]; then
    alice "$ECFS" "${command[@]}" >said 2>&1 || { echo "FAILED: round $round: the last run ended with $?"; cat said; }
  fi
  show fresh "$after" "round $round"; manifest m | diff "$T/original" - >diff || { lost=$((lost + 1)); echo "FAILED: round $round: files are not as they were"; head -n 5 diff; }; hide
  [ ! -e fresh/.ecfs-migrate ] || echo "FAILED: round $round: the marker is left"
  if [[ " ${kind[*]} " == *" --remove-old "* ]]; then
    [ -z "$(find old -type f ! -name '.ecfs-volume*')" ] || echo "FAILED: round $round: originals are left"
  else
    show old "$before" "round $round"; manifest m | diff "$T/original" - >diff || { lost=$((lost + 1)); echo "FAILED: round $round: the old tree has changed"; head -n 5 diff; }; hide
  fi
done
echo "lost: $lost"
[ "$killed" -ge "$rounds" ] && echo "killed often enough"
echo "rounds: $rounds; killed: $killed; came to the end before the kill: $ended" >&3
