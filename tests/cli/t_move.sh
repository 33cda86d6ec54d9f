#!/bin/bash
# setup-private with files in ~/Private: everything is carried over, and what stands in the way is named.
. "$(dirname "$0")/lib.sh"
here=$(dirname "$0"); install -m 755 "$here/manifest.py" "$T/manifest.py"
cd "$HOME_A"; secret p "$PASS"; chown ecfsalice: p
a() { run alice "$ECFS" "$@" | sed 's/^\$ alice /$ /'; return "${PIPESTATUS[0]}"; }
manifest() { alice python3 "$T/manifest.py" "$@"; }
setup=(setup-private --yes --passphrase-file p --recovery-key-file rk "${QUICK[@]}")
manifest --make "$HOME_A/Private"
manifest Private >"$T/original"
check "the tree is as rich as it should be" test "$(wc -l <"$T/original")" -gt 80
unchanged() { manifest Private | diff -q - "$T/original" && [ "$(ls -A | tr '\n' ' ')" = 'Private p ' ]; }
echo "# in the way"
touch Private/theirs; chown ecfsbob: Private/theirs; alice mkdir Private/closed; chmod 000 Private/closed
mkdir Private/mounted; mount -t tmpfs none Private/mounted
a "${setup[@]}" --move-existing
umount Private/mounted; rm -r Private/mounted Private/theirs Private/closed; check "unchanged" unchanged
{ alice sh -c 'cd Private/deep; exec sleep 60'; } 2>/dev/null & disown $!
await pgrep -u ecfsalice -x sleep >/dev/null
a "${setup[@]}" --move-existing
pkill -u ecfsalice -x sleep; await not pgrep -u ecfsalice -x sleep >/dev/null; check "unchanged" unchanged
mkdir "$T/small"; mount -t tmpfs -o size=17m,mode=777 none "$T/small"
a "${setup[@]}" --move-existing --lower "$T/small/low" | sed -E 's/[0-9.]+ MiB (of free|are needed)/N MiB \1/g'; check "unchanged" unchanged
alice mkdir Private.unencrypted; a "${setup[@]}" --move-existing; rmdir Private.unencrypted; check "unchanged" unchanged
echo "# the disk fills up while copying"
umount "$T/small"; mount -t tmpfs -o size=70m,nr_inodes=20,mode=777 none "$T/small"
alice "$ECFS" "${setup[@]}" --move-existing --lower "$T/small/low" >said 2>&1 && echo "FAILED: there was room after all"
check "it says that there is no space" grep -q 'No space left on device' said
rm -f said; check "unchanged" unchanged; check "nothing is left below" test -z "$(ls -A "$T/small")"
umount "$T/small"
echo "# moved"
a "${setup[@]}" --move-existing | sed -E 's/\([0-9]+ entries, [0-9.]+ [KM]iB\)/(N entries, N MiB)/'
check "nothing is left outside" test "$(ls -A | tr '\n' ' ')" = '.Private .ecfs Private p rk '
check "no marker" not test -e .ecfs/Private/setup-unfinished
check "locked: the note alone" test "$(ls -A Private)" = README.txt
check "no name of a file below" not eval "find .Private | grep -q 'large\|umläut'"
alice "$ECFS" mount-private --passphrase-file p
manifest Private >"$T/moved"
check "everything is as it was" diff "$T/original" "$T/moved"
diff "$T/original" "$T/moved" | head -n 6
check "holes are holes" test "$(find .Private -size +20M -printf '%b\n' | sort -n | head -n 1)" -lt 1000
alice "$ECFS" umount-private
echo "# left where they are"
alice sh -c 'mkdir Work && echo kept >Work/file'
a setup-private --yes --no-move --name Work --no-recovery --passphrase-file p "${QUICK[@]}"
cat Work.unencrypted/file; ls -A Work
