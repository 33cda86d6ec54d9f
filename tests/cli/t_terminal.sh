#!/bin/bash
# Dialogs on a real terminal: no echo, the recovery key typed again, Ctrl-C and Ctrl-Z. See terminal.py.
here=$(readlink -f "$(dirname "$0")")
. "$here/lib.sh"
python3 -c 'import pexpect' 2>/dev/null || { echo "skipped: python3-pexpect is not installed"; exit 77; }
install -m 755 "$here/terminal.py" "$here/terminal_shell.py" "$T/"
alice python3 "$T/terminal.py" "$T/screen"
