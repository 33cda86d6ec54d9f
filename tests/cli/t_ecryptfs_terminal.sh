#!/bin/bash
# Dialogs of `ecfs mount` with eCryptfs trees on a real terminal: what is asked, and what is remembered. See ecryptfs_terminal.py.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
python3 -c 'import pexpect' 2>/dev/null || { echo "skipped: python3-pexpect is not installed"; exit 77; }
install -m 755 "$here/ecryptfs_terminal.py" "$here/terminal_shell.py" "$T/"
alice python3 "$T/ecryptfs_terminal.py"
