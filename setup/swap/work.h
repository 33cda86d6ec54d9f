// Encrypting an area step by step, taking it back, and bringing what was interrupted to an end. Each step is in the
// journal (journal.h) before it is done. Needs root. One thread; one process at a time (lock_work).
//
//     begin      everything that will change is remembered
//     guard      fstab: a device that is missing does not hold up a boot
//     swapoff    from here to `swapon` there is no swap on this area
//     signature  the old header is taken off
//     map        dm-crypt, with a key that nobody keeps
//     overwrite  --wipe: zeros through the mapping
//     header     a new swap header, inside
//     swapon
//     check      it is on, with its priority, and the device itself looks like nothing
//     crypttab, fstab, gpt, resume, unit, reload       the next boots
//     end
//
// After a power cut at any of these a boot waits for nothing, and has the old swap, the new, or for once none.
#pragma once

#include <string>
#include <vector>

#include "setup/swap/journal.h"
#include "setup/swap/plan.h"

namespace ecfs::swap {

// lock_work takes the lock of a directory of journals; kBusy if another run has it.
Result<Fd> lock_work(int dir);

// encrypt does a plan that says kEncrypt. When it fails, or a signal came before the check, all is taken back.
Status encrypt(int dir, const Plan& plan, const std::string& cipher, bool wipe, Boot boot);

// undo brings back what there was before: header, swap, tables, attribute. Where the device is missing it is kNotFound.
Status undo(int dir, Journal& journal);

// recover ends what was interrupted: forward if the encrypted area is on already, else back. Gives what it did, in
// words;
// "" if there was nothing to do.
Result<std::string> recover(int dir, Journal& journal);

// set_up makes the mapping NAME and a swap header on it as crypttab says: what ecfs-swap@.service does at a boot. Waits
// `wait_ms` for the device. There already: nothing is done. take_down switches its swap off and takes the mapping away.
Status set_up(const std::string& name, int wait_ms);
Status take_down(const std::string& name);

}  // namespace ecfs::swap
