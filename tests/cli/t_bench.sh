#!/bin/bash
# bench: what it prints, that it leaves nothing behind, and what it refuses. The figures are the machine's.
. "$(dirname "$0")/lib.sh"
figures() { sed -E 's/[0-9]+(\.[0-9]+)?( MB\/s| s$| made| read| removed)/N\2/g; s/^(aes|chacha)([^ ]*) +/\1\2 /; s/ \(what new volumes have\)//'; }
mkdir here; chown ecfsalice: here
small=(--kdf-memory 19 --kdf-time 2)
run ecfs bench "${small[@]}" | figures
run alice "$ECFS" bench "${small[@]}" --size 2 --files 20 "$T/here" | figures | sed 's/^\$ alice /$ /'
check "nothing is left" test -z "$(ls -A here)"
echo "# as JSON"
ecfs bench --json "${small[@]}" --size 2 --files 20 here | python3 -c '
import json, sys
def shape(v):
    if isinstance(v, dict): return {k: shape(x) for k, x in v.items()}
    if isinstance(v, list): return [shape(x) for x in v]
    if isinstance(v, float): return v > 0
    return v
out = shape(json.load(sys.stdin))
print(sum(c.pop("default") for c in out["ciphers"]), "suite is the default")
print(json.dumps(out, indent=1, sort_keys=True))'
echo "# without --kdf-memory and --kdf-time the costs are those of a new volume"
ecfs bench --json | python3 -c '
import json, sys
kdf = json.load(sys.stdin)["kdf"]
print(kdf["memory_mib"] in (64, 256), 3 <= kdf["passes"] <= 16, kdf["lanes"], kdf["seconds"] > 0.01)'
echo "# interrupted"
(cd here && exec timeout -s INT 2 "$ECFS" bench "${small[@]}" --size 1 --files 200000 .) 2>&1
check "nothing is left" test -z "$(ls -A here)"
echo "# refused"
run ecfs bench nowhere
run alice "$ECFS" bench "$T/bin" 2>&1 | sed 's/^\$ alice /$ /' | sed -E "s/ecfs-bench-[0-9a-f]{16}/ecfs-bench-@X@/"
: >file; run ecfs bench file
run ecfs bench --size 1000000 "${small[@]}" here
run ecfs bench --size 0
check "nothing is left" test -z "$(ls -A here)"
