#!/bin/bash
# `cmake --install` puts everything where Debian expects it, and nothing elsewhere.     usage: install.sh BUILD_DIR
set -euo pipefail
build=$1
root=$(mktemp -d); trap 'rm -rf "$root"' EXIT
DESTDIR=$root cmake --install "$build" >"$root.log" 2>&1 || { cat "$root.log"; exit 1; }
rm -f "$root.log"
triplet=$(gcc -print-multiarch)
status=0
has() { for f in "$@"; do [ -e "$root/$f" ] || [ -L "$root/$f" ] || { echo "missing: /$f"; status=1; }; done; }
has usr/bin/ecfs usr/libexec/ecfs/ecfs-mountd usr/libexec/ecfs/ecfs-login usr/libexec/ecfs/ecfs-tpm2 usr/libexec/ecfs/ecfs-swap \
  "usr/lib/$triplet/security/pam_ecfs.so" usr/share/pam-configs/ecfs etc/ecfs/ecfs.conf usr/sbin/mount.ecfs usr/sbin/mount.fuse.ecfs usr/lib/systemd/system/ecfs-suspend.service usr/lib/systemd/system/ecfs-swap@.service \
  usr/share/bash-completion/completions/ecfs usr/share/zsh/vendor-completions/_ecfs usr/share/fish/vendor_completions.d/ecfs.fish \
  usr/share/man/man8/pam_ecfs.8 usr/share/man/man5/ecfs.conf.5 usr/share/man/man1/ecfs.1 usr/share/man/man8/ecfs-setup-swap.8 usr/bin/ecfs-setup-swap usr/share/man/man8/ecfs-setup-boot.8 usr/bin/ecfs-setup-boot usr/lib/systemd/system/ecfs-mount@.service
for command in init mount umount setup-private mount-private umount-private status recover-private adduser-hook migrate key tpm bench fsck stat find wrap-passphrase \
  unwrap-passphrase rewrap-passphrase add-passphrase insert-wrapped-passphrase-into-keyring; do
  has "usr/bin/ecfs-$command" "usr/share/man/man1/ecfs-$command.1"
  [ "$(readlink "$root/usr/bin/ecfs-$command")" = ecfs ] || { echo "ecfs-$command is not a link to ecfs"; status=1; }
done
strange=$(cd "$root" && find . -type f -o -type l | grep -vE "^\./(usr/(s?bin|libexec/ecfs|share/(man|bash-completion|zsh|fish|pam-configs|doc/ecfs)|lib/$triplet/security|lib/systemd/system)/|etc/(ecfs|apparmor.d)/)" || true)
[ -z "$strange" ] || { echo "installed at a strange place:"; echo "$strange"; status=1; }
# Nothing may be writable for others, or set-uid.
loose=$(find "$root" \( -perm /022 -o -perm /6000 \) ! -type l || true)
[ -z "$loose" ] || { echo "loose modes:"; echo "$loose"; status=1; }
# The module exports its hooks and nothing else.
exported=$(nm -D --defined-only "$root/usr/lib/$triplet/security/pam_ecfs.so" | awk '{print $3}' | sort | tr '\n' ' ')
[ "$exported" = "pam_sm_acct_mgmt pam_sm_authenticate pam_sm_chauthtok pam_sm_close_session pam_sm_open_session pam_sm_setcred " ] ||
  { echo "the module exports: $exported"; status=1; }
# And links nothing heavy: what a login process loads is libc and libpam.
needed=$(objdump -p "$root/usr/lib/$triplet/security/pam_ecfs.so" | awk '/NEEDED/{print $2}' | grep -vE '^(libc|libpam|libm|ld-linux-x86-64)\.so' || true)
[ -z "$needed" ] || { echo "the module needs: $needed"; status=1; }
echo "$(cd "$root" && find . -type f -o -type l | wc -l) files installed"
exit "$status"
