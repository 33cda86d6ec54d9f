#!/bin/bash
# The Debian package in a fresh Debian: what it holds, and that installing, upgrading, removing and purging it leaves every
# login working and every file of a user as it was. Prints a line for each situation.
#
# usage: package.sh CPACK BUILD_DIR        (root)
#
# The Debian is one of debootstrap, kept between the runs: tests/fresh-debian. Everything runs in mount and process
# namespaces of its own and ends with them. Where it cannot run it says so: exit status 77.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022
skip() { echo "SKIPPED: $*"; exit 77; }
here=$(dirname "$(readlink -f "$0")")
cpack=$1 build=$2
work=$build/tests/package/work root=$work/root log=$work/log

# ---- Outside: what it takes, and namespaces for the rest.
if [ "${3:-}" != inside ]; then
  [ "$(id -u)" -eq 0 ] || skip "root is needed for a Debian of its own"
  for program in debootstrap lintian dpkg-shlibdeps unshare; do
    command -v "$program" >/dev/null || skip "$program is missing: setup/install-packages package package-test"
  done
  [ -e /dev/fuse ] || skip "there is no /dev/fuse"
  unshare --mount --propagation private true 2>/dev/null || skip "no mount namespaces here (in a chroot: see tests/run)"
  rm -rf --one-file-system "$work"
  mkdir -p "$root"
  exec unshare --mount --propagation private --pid --fork --kill-child --uts --ipc "$0" "$cpack" "$build" inside
fi

# ---- Inside. The Debian is in memory (half a GiB of it): dpkg and tar wait for a disk most of the time.
mount -t tmpfs -o size=1g,mode=755 debian "$root"
failed() { echo "FAILED: $*"; tail -n 40 "$log" 2>/dev/null || true; exit 1; }
trap 'failed "line $LINENO"' ERR
said() { printf "%4d s  %s\n" $SECONDS "$*"; }
fresh() { chroot "$root" /usr/bin/env -i PATH="$PATH" HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "${proxies[@]}" "$@"; }
quietly() { "$@" >"$log" 2>&1 || failed "$*"; }
apt() { quietly fresh apt-get -q -y --no-install-recommends "$@"; }
proxies=(); for name in http_proxy https_proxy no_proxy; do [ -z "${!name:-}" ] || proxies+=("$name=${!name}"); done

mount_root() {
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o mode=755 run "$root/run"
  mount -t tmpfs -o mode=755,nosuid dev "$root/dev"
  local node
  for node in null zero full random urandom tty fuse; do : >"$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
  mkdir "$root/dev/shm" "$root/dev/pts"; mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"; ln -s pts/ptmx "$root/dev/ptmx"; chmod 1777 "$root/dev/shm"
  ln -s /proc/self/fd "$root/dev/fd"
}

# -- The package, of this build.
mkdir "$work/package"
(umask 077; quietly "$cpack" -G DEB --config "$build/CPackConfig.cmake" -B "$work/package")
deb=$(ls "$work"/package/ecfs_*.deb)
version=$(dpkg-deb -f "$deb" Version)
[ "$(basename "$deb")" = "ecfs_${version}_$(dpkg --print-architecture).deb" ] || failed "the file is called $deb"
depends=$(dpkg-deb -f "$deb" Depends)
for needed in fuse3 libpam-runtime libc6 libpam0g libssl3 libargon2-1 libseccomp2 libcryptsetup12 libfdisk1 libmount1; do
  grep -qE "(^|, )$needed( |,|\$)" <<<"$depends" || failed "the package does not depend on $needed: $depends"
done
said "packed $(basename "$deb"), $(($(stat -c %s "$deb") / 1024)) KiB"

lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$deb" >"$work/lintian" 2>&1 & lintian=$!

mkdir "$work/tree"; dpkg-deb -x "$deb" "$work/tree"; dpkg-deb -e "$deb" "$work/control"
strange=$(dpkg-deb -c "$deb" | grep -vE '^(drwxr-xr-x|-rwxr-xr-x|-rw-r--r--|lrwxrwxrwx) root/root ' || true)
[ -z "$strange" ] || failed "modes or owners: $strange"
unexpected=$(cd "$work/tree" && find . -type f -perm /111 | grep -vE '^\./usr/(bin/ecfs|libexec/ecfs/ecfs-(login|mountd|tpm2|swap))$' || true)
[ -z "$unexpected" ] || failed "executable: $unexpected"
for program in usr/bin/ecfs usr/libexec/ecfs/ecfs-{login,mountd,tpm2,swap}; do
  file "$work/tree/$program" | grep -q ', stripped' || failed "not stripped: /$program"
done
DESTDIR=$work/installed quietly cmake --install "$build"
missing=$(comm -23 <(cd "$work/installed" && find . ! -type d | sed -E 's,(/man/.*)$,\1.gz,' | sort) <(cd "$work/tree" && find . ! -type d | sort))
[ -z "$missing" ] || failed "installed by cmake and not in the package: $missing"
(cd "$work/tree" && md5sum --quiet -c "$work/control/md5sums") || failed "md5sums"
[ "$(cat "$work/control/conffiles")" = "$(printf '/etc/apparmor.d/ecfs\n/etc/ecfs/ecfs.conf')" ] || failed "conffiles"
said "contents: all that is installed by cmake, $(dpkg-deb -c "$deb" | grep -vc '^d') files; modes, owners, md5sums, stripped"

base=$("$here/../fresh-debian" minbase "$depends") || { status=$?; echo "$base"; exit $status; }
tar -C "$root" --xattrs -xpf "$base"
mount_root
fresh apt-get -q -y --no-install-recommends satisfy "$depends" >"$log" 2>&1 || { apt update; apt satisfy "$depends"; }
! fresh dpkg-query -W ecfs >/dev/null 2>&1 || failed "the fresh Debian has ecfs"

[ -e "$root/etc/mtab" ] || ln -s ../proc/self/mounts "$root/etc/mtab"     # as systemd makes it at the boot

# -- Two users, and a PAM service that is Debian's common files and nothing else.
password=$(tr -dc a-z0-9 </dev/urandom | head -c 20 || true)
uid=7970     # keyrings of the kernel know no chroot: no other test's users
for user in alice bob; do fresh useradd --uid $((uid++)) --create-home --shell /bin/bash "$user"; echo "$user:$password" | fresh chpasswd; done
for part in auth account password session; do echo "@include common-$part"; done >"$root/etc/pam.d/check"
echo 'session optional pam_exec.so quiet seteuid /var/tmp/in-session' >>"$root/etc/pam.d/check"
cat >"$root/var/tmp/in-session" <<'SCRIPT'
#!/bin/bash
[ "$PAM_TYPE" = open_session ] || exit 0
findmnt -rn --mountpoint "/home/$PAM_USER/Private" >/var/tmp/mounted || : >/var/tmp/mounted
SCRIPT
chmod 755 "$root/var/tmp/in-session"
log_in() { fresh pamtester check "$1" authenticate acct_mgmt open_session close_session <<<"${2:-$password}"; }
logins_work() {  # with the password, by su, and not with another password, for which PAM takes its time
  local user wrong=()
  for user in alice bob; do log_in "$user" wrong >/dev/null 2>&1 & wrong+=($!); done
  for user in alice bob; do
    log_in "$user" >"$log" 2>&1 || failed "$1: $user cannot log in"
    quietly fresh su - "$user" -c 'test "$(id -un)" = '"$user"
  done
  for user in "${wrong[@]}"; do
    if wait "$user"; then failed "$1: a wrong password is taken"; fi
  done
}
pam_lines() { (cd "$root/etc/pam.d" && { grep -h pam_ecfs common-* || true; } | sed -E 's,[[:space:]]+, ,g; s, $,,' | sort); }
everything() { (cd "$root" && find . -xdev \( -path ./proc -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/dpkg -o -path ./var/lib/apt \
  -o -path ./tmp -o -path ./var/tmp -o -path ./home -o -path ./root -o -path ./var/lib/pam -o -path ./var/cache \) -prune -o -printf '%y %m %u:%g %p %l\n' | sort
  find etc -type f -exec sha256sum {} + | sort); }
files_of_bob() { (cd "$root/home/bob" && find .Private .ecfs -printf '%y %m %u:%g %s %T@ %p %l\n' | sort; find .Private .ecfs -type f -exec sha256sum {} + | sort); }
as_bob() { fresh setpriv --reuid=bob --regid=bob --init-groups env -C /home/bob HOME=/home/bob "$@"; }
is_mounted() { as_bob findmnt -rn --mountpoint /home/bob/Private >/dev/null; }
wait_for_lock() { for _ in $(seq 300); do is_mounted || return 0; sleep 0.1; done; failed "~/Private was not locked"; }
mkdir -p "$root/etc/systemd/system/sleep.target.wants"
logins_work "before"
everything >"$work/before"
cp -a "$root/etc/pam.d" "$work/pam.d-before"
said "before: users log in, and not with a wrong password"

# -- Installed, where there is no /home and no systemd.
cp "$deb" "$root/var/tmp/"
mv "$root/home" "$root/home-elsewhere"
apt install "/var/tmp/$(basename "$deb")"
mv "$root/home-elsewhere" "$root/home"
quietly fresh dpkg --verify ecfs
[ "$(pam_lines)" = "auth optional pam_ecfs.so
password [success=ok authtok_recover_err=die default=ignore] pam_ecfs.so
session optional pam_ecfs.so" ] || failed "the common files have: $(pam_lines)"
changed=$(diff -r "$work/pam.d-before" "$root/etc/pam.d" | grep -vE '^([0-9]+a[0-9,]+|diff .*|> .*pam_ecfs\.so ?)$' || true)
[ -z "$changed" ] || failed "lines of PAM that are not ours: $changed"
if grep pam_ecfs "$root/etc/pam.d/common-session-noninteractive"; then failed "a line for sessions without a person"; fi
logins_work "installed"
[ ! -s "$root/var/tmp/mounted" ] || failed "something is mounted for a user without a volume"
said "installed, without /home and systemd: pam-auth-update's three lines; users without a volume log in as before"

cp -a "$root/etc/pam.d" "$work/pam.d"
quietly fresh /var/lib/dpkg/info/ecfs.postinst configure ""
quietly fresh /var/lib/dpkg/info/ecfs.postinst configure "$version"
diff -r "$work/pam.d" "$root/etc/pam.d" || failed "postinst is not idempotent"
said "postinst a second and third time: nothing changes"

[ "$(fresh ecfs --version)" = "ecfs ${version%-*}" ] || failed "ecfs --version: $(fresh ecfs --version)"
for link in "$root"/usr/bin/ecfs-*; do
  name=$(basename "$link")
  fresh "$name" --help >/dev/null || failed "$name --help"
  zcat "$root"/usr/share/man/man[18]/"$name".[18].gz | grep -q '^\.TH' || failed "no manual page $name"
  fresh test -s "/usr/share/bash-completion/completions/$name" || failed "no completion for $name"
done
for file in man/man1/ecfs.1.gz man/man5/ecfs.conf.5.gz man/man8/pam_ecfs.8.gz man/man8/mount.ecfs.8.gz zsh/vendor-completions/_ecfs \
  fish/vendor_completions.d/ecfs.fish doc/ecfs/copyright doc/ecfs/changelog.Debian.gz; do
  [ -s "$root/usr/share/$file" ] || failed "no /usr/share/$file"
done
said "programs, manual pages and completions are there: $(fresh ecfs --version)"

# -- A user with a volume.
as_bob ecfs setup-private --yes --recovery-key-file recovery --passphrase-fd 0 <<<"$password" >"$log" 2>&1 || failed "setup-private"
as_bob ecfs mount-private --passphrase-fd 0 <<<"$password" >"$log" 2>&1 || failed "mount-private"
as_bob sh -c 'echo "Dear diary" >Private/diary'
quietly as_bob ecfs umount-private
log_in bob >"$log" 2>&1 || failed "login with a volume"
grep -q . "$root/var/tmp/mounted" || failed "the login did not open ~/Private"
wait_for_lock
files_of_bob >"$work/bob"
said "a volume opens at login and is locked at the logout"

wait "$lintian" || { cat "$work/lintian"; failed "lintian"; }
said "lintian: no error, no warning"

# -- A higher version, while the volume is open, the policy was changed, and systemd (which refuses all) is asked.
second=$root/var/tmp/ecfs_second.deb
cp -a "$work/control" "$work/tree/DEBIAN"
sed -i 's/^Version: .*/&+1/' "$work/tree/DEBIAN/control"
quietly dpkg-deb --root-owner-group -Znone --build "$work/tree" "$second"
echo '# changed by the administrator' >>"$root/etc/ecfs/ecfs.conf"
printf '#!/bin/sh\necho "$*" >>/var/tmp/systemctl\nexit 1\n' >"$root/usr/bin/systemctl"
chmod 755 "$root/usr/bin/systemctl"
mkdir -p "$root/run/systemd/system"
as_bob ecfs mount-private --passphrase-fd 0 <<<"$password" >"$log" 2>&1 || failed "mount-private"
diary() { [ "$(as_bob cat /home/bob/Private/diary)" = "Dear diary" ]; }
{ as_bob sh -c 'echo $$ >holder; exec sleep 100000 <Private/diary'; } 2>/dev/null & disown
apt install /var/tmp/ecfs_second.deb
[ "$(fresh dpkg-query -W -f '${Version}' ecfs)" = "$version+1" ] || failed "not upgraded"
tail -n 1 "$root/etc/ecfs/ecfs.conf" | grep -q administrator || failed "the changed ecfs.conf is lost"
diff -r "$work/pam.d" "$root/etc/pam.d" || failed "the upgrade changed /etc/pam.d"
diary || failed "the open volume does not serve after the upgrade"
[ "$(sort -u "$root/var/tmp/systemctl")" = "--system daemon-reload" ] || failed "systemctl was called: $(cat "$root/var/tmp/systemctl")"
[ -z "$(find "$root/etc/systemd" -name '*ecfs*')" ] || failed "the service is enabled"
logins_work "upgraded"
said "upgraded: a changed ecfs.conf stays, the open volume serves, of systemd only a reload is asked, and its refusal is borne"

quietly fresh pam-auth-update --disable ecfs
[ -z "$(pam_lines)" ] || failed "pam-auth-update --disable left $(pam_lines)"
apt install --reinstall /var/tmp/ecfs_second.deb
[ -z "$(pam_lines)" ] || failed "the upgrade switched the profile on again"
logins_work "profile disabled"
quietly fresh pam-auth-update --enable ecfs
[ -n "$(pam_lines)" ] || failed "pam-auth-update --enable"
said "a profile that was disabled stays so through an upgrade; enabled again by pam-auth-update --enable"

# -- Removed, while the volume is open.
apt remove ecfs
[ -z "$(pam_lines)" ] || failed "removed, and in the common files: $(pam_lines)"
[ -f "$root/etc/ecfs/ecfs.conf" ] || failed "the changed ecfs.conf went with the removal"
diary || failed "the open volume does not serve after the removal"
as_bob sh -c 'echo "written while removed" >Private/later' || failed "the open volume cannot be written after the removal"
logins_work "removed"
kill "$(cat "$root/home/bob/holder")"      # the logins above have a watcher that waits for it, from before the removal
wait_for_lock
said "removed: no line of PAM is left, users log in; the open volume serves, and is locked when nobody uses it any more"

apt install /var/tmp/ecfs_second.deb
tail -n 1 "$root/etc/ecfs/ecfs.conf" | grep -q administrator || failed "the changed ecfs.conf is lost"
log_in bob >"$log" 2>&1 || failed "login after the second installation"
grep -q . "$root/var/tmp/mounted" || failed "the login did not open ~/Private after the second installation"
wait_for_lock
as_bob ecfs mount-private --passphrase-fd 0 <<<"$password" >"$log" 2>&1 || failed "mount-private"
diary || failed "the diary is lost"
[ "$(as_bob cat Private/later)" = "written while removed" ] || failed "what was written while removed is lost"
as_bob rm Private/later; quietly as_bob ecfs umount-private
said "installed again: the volume opens at login as before, with what was written while the package was removed"

# -- Removed where pam-auth-update may not write.
files_of_bob >"$work/bob"
mkdir "$work/unchanged"; cp -a "$root/etc/pam.d" "$root/var/lib/pam" "$work/unchanged"
sed -i '/pam_permit/i auth optional pam_echo.so' "$root/etc/pam.d/common-auth"
sed -i 's/^\(auth\s\+\)optional\(\s\+pam_ecfs\)/\1[default=ignore]\2/' "$root/etc/pam.d/common-auth"
apt remove ecfs
grep -q 'pam_ecfs.so is still in' "$log" || failed "nothing was said of the line that stays"
[ -n "$(pam_lines)" ] || failed "pam-auth-update wrote over what was changed by hand"
logins_work "with a line whose module has gone"
said "removed, with a common-auth changed by hand: its line stays and is named, and users log in without the module"
rm -rf "$root/etc/pam.d" "$root/var/lib/pam"
cp -a "$work/unchanged/pam.d" "$root/etc"; cp -a "$work/unchanged/pam" "$root/var/lib"
apt install /var/tmp/ecfs_second.deb

# -- Purged, at once.
[ -z "$(diff "$work/bob" <(files_of_bob))" ] || failed "the user's encrypted files have changed"
ln -s /lib/systemd/system/ecfs-suspend.service "$root/etc/systemd/system/sleep.target.wants/"     # systemctl enable
mkdir -p "$root"/run/ecfs/4711 "$root"/run/ecfs/4712      # of a session that was killed, and of one that is watched
touch "$root"/run/ecfs/471{1,2}/session.lock "$root"/run/ecfs/471{1,2}/watch.lock
exec {watched}<"$root/run/ecfs/4712/watch.lock"; flock "$watched"
apt purge ecfs
rm -rf "$root/run/systemd" "$root/usr/bin/systemctl"
logins_work "purged"
[ ! -e "$root/etc/ecfs" ] || failed "/etc/ecfs is left"
diff "$work/before" <(everything) || failed "not as it was before the first installation"
[ -z "$(diff "$work/bob" <(files_of_bob))" ] || failed "the user's encrypted files have changed"
[ "$(ls -A "$root/run/ecfs")" = 4712 ] || failed "/run/ecfs has: $(ls -A "$root/run/ecfs")"
said "purged: every file is as it was before the first installation; the user's encrypted files, and the lock of a session, are untouched"
