#!/bin/bash
# kill -9 of setup-private --whole-home and of --undo, before each change that root makes to a directory, and at random while the user's
# child copies: after each kill the old home is in place, untouched, or the new one, complete, with the old one beside it; run again it
# comes to its end.
. "$(dirname "$0")/lib.sh"
command -v strace >/dev/null || { echo "skipped: strace is not installed"; exit 77; }
here=$(dirname "$0"); install -m 755 "$here/manifest.py" "$T/manifest.py"
secret p "$PASS"
random=2; [ -n "${ECFS_LONG:-}" ] && random=100
manifest() { as ecfsalice python3 "$T/manifest.py" "$@"; }
user=(setup-private --whole-home --user ecfsalice)
whole=("${user[@]}" --yes --passphrase-file p --no-recovery "${QUICK[@]}")
manifest --make "$HOME_A" 300000 1000000; alice mkdir -m 700 .ssh; alice sh -c 'echo key >.ssh/authorized_keys'
manifest "$HOME_A" >original; inode=$(stat -c %i "$HOME_A"); manifest "$HOME_A" authorized_keys >files
home=$HOME_A aside=$HOME_A.unencrypted
untouched() { [ "$(stat -c %i "$1")" = "$inode" ] && manifest "$1" | diff - original >diff; }
reset() {  # back to the unencrypted home, by hand
  ! mounted home/.ecfs/ecfsalice/.ecfs/Home/setup-mount || umount -l home/.ecfs/ecfsalice/.ecfs/Home/setup-mount
  await not pgrep -u ecfsalice >/dev/null
  if [ "$(stat -c %i "$home")" != "$inode" ]; then chmod 700 "$home"; rm -rf "$home"; mv -T "$aside" "$home"; fi
  chmod 700 "$aside" 2>/dev/null; rm -rf home/.ecfs "$aside"
}
old=0 new=0 points=0 undone=0 lost=0
# What is there now, without the tool's help?
look() {  # WHAT
  if untouched "$home"; then
    old=$((old + 1))
  elif [ -e "$home/README.txt" ] && untouched "$aside" && [ -e home/.ecfs/ecfsalice/.ecfs/Home/profile.json ]; then
    new=$((new + 1)); return 1
  else
    lost=$((lost + 1)); echo "FAILED: $1: neither the old home nor the new one is there"; ls -lA home; cat diff; return 1
  fi
}
finish() {  # WHAT: runs it again, to the end
  "$ECFS" "${whole[@]}" >said 2>&1 || { echo "FAILED: $1: the next run ended with $?"; cat said; }
  [ -e "$home/README.txt" ] && untouched "$aside" || { lost=$((lost + 1)); echo "FAILED: $1: not in place after the next run"; }
}
opens() {
  alice "$ECFS" mount-private --passphrase-fd 0 <p >said 2>&1 || { echo "FAILED: $1: mount"; cat said; }
  manifest "$home" authorized_keys | diff - files >diff || { lost=$((lost + 1)); echo "FAILED: $1: files are not as they were"; head -n 5 diff; }
  alice "$ECFS" umount-private >/dev/null
}
# kill_at CALL N COMMAND...: root's process (not its children) ends in its Nth call of that kind, which is not made. A sanitizer's leak checker and a
# tracer exclude each other.
kill_at() {
  local call=$1 n=$2; shift 2
  ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 strace -qq -o trace -e "trace=$call" -e "inject=$call:signal=KILL:when=$n" "$@" >said 2>&1
} 2>/dev/null
# As long as the old home stays in place the next run is also the one that has to cope with what this one left.
for call in mkdirat fchown renameat renameat2 symlinkat fchownat unlinkat; do
  for n in $(seq 12); do
    kill_at "$call" "$n" "$ECFS" "${whole[@]}"; status=$?
    [ "$status" -ne 0 ] || break
    [ "$status" -eq 137 ] || { echo "FAILED: $call $n ended with $status"; cat said; }
    points=$((points + 1))
    await not pgrep -u ecfsalice -x ecfs >/dev/null
    look "$call $n" || { finish "$call $n"; reset; }
  done
  look "$call, undisturbed" && finish "$call"
  [ "$call" != mkdirat ] || opens "$call"
  reset
done
[ "$points" -ge 18 ] && [ "$old" -ge 12 ] && [ "$new" -ge 1 ] && echo "killed before each change of root's"
echo "# going back"
for call in renameat renameat2 unlinkat; do
  for n in $(seq 6); do
    "$ECFS" "${whole[@]}" >said 2>&1 || cat said
    kill_at "$call" "$n" "$ECFS" "${user[@]}" --undo; status=$?
    if [ "$status" -ne 0 ]; then
      undone=$((undone + 1))
      untouched "$home" || untouched "$aside" || { lost=$((lost + 1)); echo "FAILED: undo, $call $n: the original is gone"; }
      "$ECFS" "${user[@]}" --undo >said 2>&1 || grep -q 'there is no original' said || { echo "FAILED: undo, $call $n: the second run ended with $?"; cat said; }
    fi
    untouched "$home" || { lost=$((lost + 1)); echo "FAILED: undo, $call $n: the original is not back"; }
    [ -e home/.ecfs/ecfsalice.undone/.Private/.ecfs-volume ] || { lost=$((lost + 1)); echo "FAILED: undo, $call $n: the encrypted files are gone"; }
    if [ -e "$aside" ] || [ -e home/.ecfs/.ecfsalice.setup ]; then echo "FAILED: undo, $call $n: something is left"; ls -lA home home/.ecfs; fi
    reset
    [ "$status" -ne 0 ] || break
  done
done
[ "$undone" -ge 5 ] && echo "killed before each change of --undo"
echo "# at random"
start=$(date +%s%N); "$ECFS" "${whole[@]}" >said 2>&1 || cat said; whole_ms=$((($(date +%s%N) - start) / 1000000)); reset
for round in $(seq "$random"); do
  "$ECFS" "${whole[@]}" >said 2>&1 & tool=$!
  wait_ms=$((whole_ms * (RANDOM % 90 + 5) / 100)); sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
  if [ $((round % 2)) -eq 0 ]; then pkill -9 -u ecfsalice -x ecfs-mountd; fi
  kill -9 "$tool" 2>/dev/null; wait "$tool" 2>/dev/null
  await not pgrep -u ecfsalice -x ecfs >/dev/null
  # A run that came to its end says no to a second one.
  if [ -e "$home/README.txt" ] && grep -q placed home/.ecfs/.ecfsalice.setup; then new=$((new + 1)); else look "round $round"; finish "round $round"; fi
  opens "round $round"
  reset
done
echo "lost: $lost"
echo "points: $points, and of --undo $undone; old home in place: $old, new one: $new" >&3
rm -f /run/ecfs-whole-home.lock
