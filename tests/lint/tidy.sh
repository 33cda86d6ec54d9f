#!/bin/bash
# clang-tidy over the sources that handle keys, logins and files (fs, pam, wrap); with ECFS_LONG set over those of the tool,
# too, which are mostly library headers and half of the time. Tests are only compiled.
# usage: tidy.sh RUN_CLANG_TIDY BUILD_DIR
# The checks that find faults; with ECFS_LONG set all of .clang-tidy: those of style, too, and clang's static analyzer.
set -euo pipefail
[ -x "$1" ] || { echo "skipped: no run-clang-tidy"; exit 77; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# An option of GCC's that clang 14 does not take.
sed 's/ -ftrivial-auto-var-init=zero//' "$2/compile_commands.json" >"$work/compile_commands.json"
checks=-clang-analyzer-*,-performance-*,-google-*,-misc-*,-modernize-*,-readability-*
folders='wrap|fs|pam'
if [ -n "${ECFS_LONG:-}" ]; then checks= folders+='|setup'; fi
status=0
"$1" -quiet -p "$work" -j "$(nproc)" -checks="$checks" "^$PWD/($folders)/.*\.cc$" >"$work/log" 2>&1 || status=$?
grep -E '(warning|error): ' "$work/log" | sort -u | head -n 200 || true
num=$(grep -cE '^[^ ]*clang-tidy[^ ]* ' "$work/log" || true)
echo "$num files"
[ "$num" -gt 0 ] || status=1
exit "$status"
