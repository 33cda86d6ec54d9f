# Sourced by the tests of the command line. Gives them a mount namespace, two users of their own (ecfsalice, ecfsbob), an empty
# directory $T, and the tool under test as `ecfs`. Everything is undone at the end.
#
# From the environment: ECFS (the tool) and ECFS_LIBEXEC (the directory of ecfs-mountd and ecfs-tpm2).

set -u
export LC_ALL=C.UTF-8 TZ=UTC
if [ "$(id -u)" -ne 0 ]; then echo "skipped: needs root (users and mounts of its own)"; exit 77; fi
if [ -z "${ECFS_TEST_INSIDE:-}" ]; then
  ECFS_TEST_INSIDE=1 exec unshare --mount --propagation private setsid --wait "$0" "$@"
fi
: "${ECFS:?the tool to test}" "${ECFS_LIBEXEC:?the directory of ecfs-mountd}"
export ECFS_LIBEXEC

T=$(mktemp -d /tmp/ecfs-cli.XXXXXX)
chmod 755 "$T"
cleanup() {
  cd /
  local mount i
  for mount in $(awk -v t="$T" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | tac); do
    umount "$(printf '%b' "$mount")" 2>/dev/null || umount -l "$(printf '%b' "$mount")"
  done
  # The servers end by themselves; they are given the time.
  for i in $(seq 50); do ps -o pid= -u 7301,7302 >/dev/null || break; sleep 0.1; done
  umount /etc/passwd /etc/group /proc/swaps 2>/dev/null
  rm -rf --one-file-system "$T"
}
trap cleanup EXIT

# Where the test users can run them, wherever the build directory is.
mkdir -p "$T/bin/setup"; install -m 755 "$ECFS" "$T/bin/setup/ecfs"; install -m 755 "$ECFS_LIBEXEC/ecfs-mountd" "$ECFS_LIBEXEC/ecfs-tpm2" "$(dirname "$ECFS")/ecfs-swap" "$T/bin/"
ECFS=$T/bin/setup/ecfs ECFS_LIBEXEC=$T/bin
cp /etc/passwd "$T/passwd"; cp /etc/group "$T/group"
for user in ecfsalice:7301 ecfsbob:7302; do
  echo "${user%:*}:x:${user#*:}:${user#*:}::$T/home/${user%:*}:/bin/sh" >>"$T/passwd"
  echo "${user%:*}:x:${user#*:}:" >>"$T/group"
  mkdir -p "$T/home/${user%:*}"; chown "${user#*:}:${user#*:}" "$T/home/${user%:*}"; chmod 700 "$T/home/${user%:*}"
done
printf 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' >"$T/swaps"; mount --bind "$T/swaps" /proc/swaps   # the machine's is another one on each
mount --bind "$T/passwd" /etc/passwd; mount --bind "$T/group" /etc/group
if [ "$(stat -c %a /dev/fuse)" != 666 ]; then  # as udev would make it
  mknod -m 666 "$T/fuse" c 10 229 && mount --bind "$T/fuse" /dev/fuse
fi
HOME_A=$T/home/ecfsalice

ecfs() { "$ECFS" "$@"; }
# as USER COMMAND...: with that user's rights and nothing but a clean environment. env passes options of sanitizers on.
as() {
  local user=$1 sanitizer=(); shift
  for name in ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS; do [ -z "${!name:-}" ] || sanitizer+=("$name=${!name}"); done
  setpriv --reuid="$user" --regid="$user" --clear-groups --inh-caps=-all \
    env -i PATH="$PATH" LC_ALL=$LC_ALL TZ=UTC HOME="$T/home/$user" ECFS="$ECFS" ECFS_LIBEXEC="$ECFS_LIBEXEC" "${sanitizer[@]}" "$@"
}
alice() { as ecfsalice env -C "$HOME_A" "$@"; }
bob() { as ecfsbob env -C "$T/home/ecfsbob" "$@"; }

QUICK=(--kdf-memory 19 --kdf-time 2)     # small costs: 0.05 s instead of 0.7
PASS='correct horse 4711 battery'
NEW='entirely other 1882 words'
secret() { (umask 077; printf '%s\n' "$2" >"$1"); }   # secret FILE TEXT

# run COMMAND...: shows the command, its output and its exit status.
run() {
  local status
  printf '$'; printf ' %s' "$@"; printf '\n'
  "$@" 2>&1; status=$?
  [ "$status" -eq 0 ] || printf '= %d\n' "$status"
  return "$status"
}
# check WHAT COMMAND...: a promise that has no output of its own.
check() {
  local what=$1; shift
  if "$@" >/dev/null 2>&1; then echo "ok: $what"; else echo "FAILED: $what ($*)"; fi
}
mounted() { case $1 in /*) set -- "$1" ;; *) set -- "$PWD/$1" ;; esac; awk -v at="$1" '$5 == at { found = 1 } END { exit !found }' /proc/self/mountinfo; }
await() { local i; for i in $(seq 600); do "$@" && return 0; sleep 0.1; done; return 1; }   # up to a minute
not() { ! "$@"; }
tree() { (cd "$1" && find . -printf '%y %M %p %l\n' | sort -k3); }   # what there is, without times
cd "$T" || exit 1
