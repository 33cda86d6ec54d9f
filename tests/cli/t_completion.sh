#!/bin/bash
# CVE-2022-25328: bash completion: offers what there is, and names with $(), ; and backticks do nothing.
. "$(dirname "$0")/lib.sh"
completions=$(readlink -f "$(dirname "$0")/../../etc/completions")
mkdir -p work home/.ecfs/Private home/.ecfs/Work; cd work
mkdir plain 'with space' '$(touch evil1)' '`touch evil2`' ';touch evil3;' 'a$(touch evil4)b' "quote'touch evil5'" '"$(touch evil6)"' -- '-n $(touch evil7)' 'new
line$(touch evil8)' '*' '\$(touch evil9)' '${HOME:-$(touch evil10)}' '<(touch evil11)'
touch '../home/.ecfs/Private/profile.json' ../home/.ecfs/Work/profile.json
mkdir "../home/.ecfs/\$(touch evil12)"; touch "../home/.ecfs/\$(touch evil12)/profile.json"
cat >../complete.bash <<'EOB'
# complete.bash WORDS...: what the completion offers for the last of the words.
source "$COMPLETIONS/bash"
HOME=$1; shift
COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMPREPLY=()
_ecfs "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
printf '%q\n' "${COMPREPLY[@]}"
EOB
offer() { printf '$'; printf ' %q' "$@"; printf '\n'; COMPLETIONS=$completions bash ../complete.bash "$T/home" "$@" | sort; }
offer ecfs ''
offer ecfs um
offer ecfs mount --
offer ecfs-mount --pass
offer ecfs init --block-size ''
offer ecfs key ''
offer ecfs key add ''
offer ecfs key add --p
offer ecfs tpm ''
offer ecfs mount --slot ''
offer ecfs mount ''
offer ecfs mount '$('
offer ecfs mount pl
offer ecfs mount-private ''
offer ecfs key list W
offer ecfs recover-private ';'
offer ecfs fsck --
offer ecfs fsck P
offer ecfs find ';'
offer ecfs find --lower ''
offer ecfs setup-private --wh
offer ecfs setup-private --user roo
for word in '' '$' '$(' '`' ';' 'a' '"' "'" '-' '*' '\' '${' '<' 'n'; do
  for command in init mount umount recover-private migrate fsck find "stat plain" "fsck --salvage" mount-private umount-private "key list" "key add password" "key remove" "mount plain" "mount --passphrase-file" "setup-private --lower"; do
    COMPLETIONS=$completions bash ../complete.bash "$T/home" ecfs $command "$word" >/dev/null
  done
done
# And through readline, with a real TAB in a real shell.
cat >../tab.py <<'PY'
import os, sys, pexpect
for start in ["ecfs mount ", "ecfs mount \\$", "ecfs mount a", "ecfs mount-private ", "ecfs key list ", "ecfs mount \\;", "ecfs mount \\`"]:
    shell = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env={**os.environ, "PS1": "READY> ", "TERM": "dumb"}, encoding="utf-8", timeout=20)
    shell.expect("READY> ")
    shell.sendline("source '" + sys.argv[1] + "/bash'")
    shell.expect("READY> ")
    shell.send(start + "\t")
    shell.send("\t\t")
    try:
        shell.expect("never", timeout=1)
    except pexpect.TIMEOUT:
        pass
    shell.kill(9)
    shell.wait()
shell = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env={**os.environ, "PS1": "READY> ", "TERM": "dumb"}, encoding="utf-8", timeout=20)
shell.expect("READY> ")
shell.sendline("source '" + sys.argv[1] + "/bash'")
shell.expect("READY> ")
shell.send("ecfs statu\t")
shell.expect("ecfs status")
print("completed")
PY
check "a real shell completes" eval "HOME=$T/home python3 ../tab.py '$completions' | grep -q completed"
check "nothing was executed" test -z "$(find "$T" -name 'evil*' ! -path '*\$*' -printf x)"
find "$T" -maxdepth 3 -name 'evil*'
check "the zsh file does not evaluate" not grep -nE '\beval\b|\(e\)|~e' "$completions/zsh"
check "the fish file does not evaluate" not grep -nE '\beval\b' "$completions/fish"
! command -v zsh >/dev/null || check "zsh reads it" zsh -n "$completions/zsh"
! command -v fish >/dev/null || check "fish reads it" fish -n "$completions/fish"
