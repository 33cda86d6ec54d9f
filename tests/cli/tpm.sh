# Sourced behind lib.sh by tests that want a TPM: real ones in software (swtpm), each with a state and a socket of its own.
for program in swtpm tpm2_pcrextend; do
  command -v "$program" >/dev/null || { echo "skipped: there is no $program (packages swtpm, tpm2-tools)"; exit 77; }
done

listening() { awk -v path="$1" '$4 == "00010000" && $8 == path { found = 1 } END { exit !found }' /proc/net/unix; }

# swtpm_start NAME: a TPM with its own state and socket; its TCTI is then in ECFS_TCTI and TPM2TOOLS_TCTI.
declare -A swtpms=()
swtpm_start() {
  local state=$T/tpm-$1
  mkdir -p "$state/nv"
  swtpm socket --tpm2 --tpmstate dir="$state/nv" --server type=unixio,path="$state/s",mode=0666 --ctrl type=unixio,path="$state/s.ctrl",mode=0666 \
    --flags not-need-init,startup-clear >/dev/null 2>&1 3>&- &
  swtpms[$1]=$!
  disown $!  # no words of the shell about its end
  await listening "$state/s"  # at this one last
  swtpm_use "$1"
}
swtpm_use() { export ECFS_TCTI=swtpm:path=$T/tpm-$1/s TPM2TOOLS_TCTI=swtpm:path=$T/tpm-$1/s TSS2_LOG=all+NONE; }
swtpm_stop() { kill -KILL "${swtpms[$1]}"; await not kill -0 "${swtpms[$1]}" 2>/dev/null; rm -f "$T/tpm-$1/s" "$T/tpm-$1/s.ctrl"; }
trap 'for pid in "${swtpms[@]}"; do kill -KILL "$pid" 2>/dev/null; done; cleanup' EXIT
extend() { tpm2_pcrextend "$1:sha256=$(printf '%064d' 1)"; }
