#!/bin/bash
# The passphrases of eCryptfs: files and lines as ecryptfs-utils has them. The files of tests/vectors/ecryptfs/wrapped were made, or opened, by ecryptfs-utils 111.
. "$(dirname "$0")/lib.sh"
vectors=$(readlink -f "$(dirname "$0")/../vectors/ecryptfs/wrapped")
cd "$HOME_A"
alice keyctl session ecfs-test true 2>/dev/null || { echo "skipped: no kernel keyrings here"; exit 77; }
# with TEXT COMMAND...: a command of alice's that gets printf's TEXT on its standard input.
with() { local status; printf '$ printf %q |' "$1"; printf ' %s' "${@:2}"; printf '\n'; printf "$1" | alice "${@:2}" 2>&1; status=${PIPESTATUS[1]}; [ "$status" -eq 0 ] || printf '= %d\n' "$status"; return "$status"; }

with 'mount pass\nlogin pass' "$ECFS" wrap-passphrase w -
check "it is the user's alone" test "$(stat -c '%a %U %s' w)" = '600 ecfsalice 42'
with 'login pass' "$ECFS" unwrap-passphrase w -
with 'login pass\n' "$ECFS" unwrap-passphrase w -
with 'login pass\0' "$ECFS" unwrap-passphrase w -
with 'login pass' "$ECFS" unwrap-passphrase w
with 'wrong' "$ECFS" unwrap-passphrase w -
cp w before; with 'wrong\nnew' "$ECFS" rewrap-passphrase w -
check "nothing has changed" cmp w before
with 'login pass\nnew pass' "$ECFS" rewrap-passphrase w -
with 'new pass' "$ECFS" unwrap-passphrase w -
with 'login pass' "$ECFS" unwrap-passphrase w -
check "nor does the copy open with the old one" not bash -c 'printf "login pass" | "$0" unwrap-passphrase w.bak -' "$ECFS"
with 'other\nlogin pass' "$ECFS" wrap-passphrase w -
with 'new pass' "$ECFS" unwrap-passphrase w.bak -
rm w.bak

echo "# in the home directory"
alice mkdir .ecryptfs real; alice mv w real/wrapped-passphrase; alice rmdir .ecryptfs; alice ln -s real .ecryptfs
with 'login pass' "$ECFS" unwrap-passphrase
with 'login pass' "$ECFS" unwrap-passphrase -
with 'login pass\nlogin pass' "$ECFS" rewrap-passphrase
check "in place, below the link" test "$(ls -A real | tr '\n' ' ')" = 'wrapped-passphrase wrapped-passphrase.bak '

echo "# files of ecryptfs-utils"
for name in wrapped-v1-spec0 wrapped-v1-spec2 wrapped-v2-w0-p0 wrapped-v2-w0-p1 wrapped-v2-w0-p5 wrapped-v2-w0-p7 wrapped-v2-spec1; do
  install -m 600 -o ecfsalice "$vectors/$name" "$name"
  with 'login pass' "$ECFS" unwrap-passphrase "$name" - | sed 's/ $/ (a space)/'
done
with 'login pass\nnew' "$ECFS" rewrap-passphrase wrapped-v1-spec0 -
check "version 1 became version 2" test "$(head -c 2 wrapped-v1-spec0 | od -An -tx1)" = ' 3a 02'
with 'new' "$ECFS" unwrap-passphrase wrapped-v1-spec0 -
install -m 600 -o ecfsalice "$vectors/wrapped-v1-spec4" v1salt
with 'login pass' "$ECFS" unwrap-passphrase v1salt -
alice sh -c 'echo salt=8899aabbccddeeff >.ecryptfsrc'
with 'login pass' "$ECFS" unwrap-passphrase v1salt -

echo "# the keyring"
alice keyctl clear @u
with 'a' keyctl session ecfs-test "$ECFS" add-passphrase - | grep -v Joined
rm .ecryptfsrc
with 'a' keyctl session ecfs-test "$ECFS" add-passphrase --fnek - | grep -v Joined
with 'a' keyctl session ecfs-test "$ECFS" add-passphrase --fnek | grep -v Joined
sigs=$(printf 'a' | alice "$ECFS" add-passphrase --fnek - | grep "^Inserted" | sed -e 's/^.*\[//' -e 's/\].*$//')
check "a script finds two signatures" test "$(echo "$sigs" | wc -w)" = 2
for sig in $sigs 96f281338530a96f; do check "$sig is in the keyring" alice sh -c "keyctl list @u | grep -q 'user: $sig\$'"; done
with 'login pass' keyctl session ecfs-test "$ECFS" insert-wrapped-passphrase-into-keyring wrapped-v2-w0-p1 - | grep -v Joined
check "and its key for names" alice sh -c 'keyctl list @u | grep -c "user: [0-9a-f]\{16\}$" | grep -qx 5'
with 'wrong' "$ECFS" insert-wrapped-passphrase-into-keyring wrapped-v2-w0-p1 -
alice keyctl clear @u

echo "# secrets in the arguments"
run ecfs add-passphrase canary
run ecfs add-passphrase -canary
run ecfs add-passphrase --canary -
run ecfs wrap-passphrase w canary canary
run ecfs unwrap-passphrase w canary
run ecfs rewrap-passphrase w canary canary
run ecfs insert-wrapped-passphrase-into-keyring w canary

echo "# what cannot be"
run ecfs wrap-passphrase
with '' "$ECFS" wrap-passphrase x -
with 'one' "$ECFS" wrap-passphrase x -
with '\nlogin' "$ECFS" wrap-passphrase x -
with 'mount\n' "$ECFS" wrap-passphrase x -
with "$(printf 'x%.0s' {1..65})\nlogin" "$ECFS" wrap-passphrase x -
with 'mount\0more\nlogin' "$ECFS" wrap-passphrase x -
check "nothing was made" not test -e x
with 'login' "$ECFS" unwrap-passphrase missing -
with 'login' "$ECFS" unwrap-passphrase missing/file -
with 'login' "$ECFS" unwrap-passphrase real/ -
with 'login' "$ECFS" unwrap-passphrase real -
alice ln -s real/wrapped-passphrase link; with 'login' "$ECFS" unwrap-passphrase link -
alice sh -c 'echo nonsense >nonsense; head -c 200 /dev/zero >large; printf ":\003" >newer'
for name in nonsense large newer; do with 'login' "$ECFS" unwrap-passphrase "$name" -; done
with 'login' "$ECFS" unwrap-passphrase "$HOME_A/../ecfsbob/w" -
check "root leaves a file of root's in nobody's home" not bash -c 'printf "a\nb" | "$0" wrap-passphrase x -' "$ECFS"
printf 'a\nb' | run ecfs wrap-passphrase x -
printf 'login pass' | run ecfs unwrap-passphrase real/wrapped-passphrase -
printf 'login pass' | alice "$ECFS" unwrap-passphrase real/wrapped-passphrase - >/dev/full 2>err; echo "a full standard output: status $?"; cat err
ls -A
