"""The wizard's question about the TPM, on a terminal; run by t_tpm.sh as the test user, in whose environment is a TPM."""
import os

from terminal_shell import ECFS, Shell, check

QUESTION = "Is the password to open them together with this TPM only? [y/N] "
GO_ON = "Go on? [Y/n] "
QUICK = "--kdf-memory 19 --kdf-time 2"
PASS = "correct horse 4711 battery"


def wizard(*options, answer=None, tcti=None):
    """Goes as far as the last question before anything is made; gives what was said."""
    s = Shell()
    if tcti:
        s.run("export ECFS_TCTI=" + tcti)
    s.seen = ""
    s.send(f"{ECFS} setup-private {QUICK} --name Asked " + " ".join(options))
    if answer is not None:
        s.wait(QUESTION)
        s.send(answer)
    s.wait(GO_ON)
    s.send("n")
    s.wait("nothing was changed")
    s.wait("READY> ")
    return s.seen


check("without an answer it takes no part", "together with the TPM of this computer" not in wizard(answer=""))
check("a yes has it take part", "together with the TPM of this computer" in wizard(answer="y"))
for option, part in (("--no-tpm2", False), ("--tpm2", True), ("--no-recovery", False)):
    said = wizard(option)
    check(option + ": it is not asked", QUESTION not in said and ("together with the TPM of this computer" in said) == part, said)
check("without a TPM it is not asked", QUESTION not in wizard(tcti="device:/nowhere"))
check("nothing was made", not any(os.path.lexists(name) for name in ("Asked", ".Asked", ".ecfs/Asked")))

s = Shell()
s.send(f"{ECFS} setup-private {QUICK} --name Asked --recovery-key-file asked.key")
s.wait(QUESTION); s.send("y")
s.wait(GO_ON); s.send("")
s.wait("Your login password: "); s.send(PASS)
s.wait("Once more: "); s.send(PASS)
s.wait("Done. "); s.wait("READY> ")
check("made", "tpm2+password" in s.run(f"{ECFS} key list Asked") and s.status() == 0)
