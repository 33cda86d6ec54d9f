#include "fs/lower/inode_table.h"

#include <algorithm>

namespace ecfs::fs {
namespace {

constexpr std::size_t kFirstBuckets = 8;
// With the allocator's own and the two indexes at two to four inodes a chain this makes the 200 bytes of the header.
constexpr std::size_t kMaxChain = 4;
static_assert(sizeof(Inode) <= 184);

// The finisher of a 64-bit mixing hash: every bit of the input moves every bit of the result.
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93U;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93U;
  return x ^ (x >> 32);
}

}  // namespace

InodeRef::InodeRef(const InodeRef& other) noexcept : inode_(other.inode_) {
  if (inode_ != nullptr) inode_->refs_.fetch_add(1, std::memory_order_relaxed);
}
InodeRef::~InodeRef() {
  if (inode_ != nullptr) inode_->table.unref(inode_);  // NOLINT(clang-analyzer-cplusplus.NewDelete): it is counted
}

Link::Link(InodeRef p, std::string_view n) : parent(std::move(p)), name(std::make_unique<char[]>(n.size() + 1)) {
  n.copy(name.get(), n.size());
}

Inode::Inode(std::uint64_t nodeid, const InodeKey& k, InodeTable& t, mode_t mode, const NewLink& fresh)
    : id(nodeid),
      key(k),
      table(t),
      link(fresh.parent, fresh.name),
      dir(S_ISDIR(mode) ? std::make_unique<DirState>() : nullptr),
      type(static_cast<std::uint16_t>(mode & S_IFMT)),
      read_only(fresh.read_only) {
  if (dir) dir->derived = fresh.derived;
}

bool Inode::has_link(const Inode* in, std::string_view lower_name) const noexcept {
  if (link.is(in, lower_name)) return true;
  return others &&
         std::any_of(others->links.begin(), others->links.end(), [&](const Link& l) { return l.is(in, lower_name); });
}

void Inode::note_link(Link fresh, std::vector<Link>& dropped) {
  if (link.is(fresh.parent.get(), fresh.name.get())) return;
  const bool known = drop_link(fresh.parent.get(), fresh.name.get(), dropped);
  std::swap(link, fresh);
  if (dir || !fresh.parent) {  // a directory has one name
    dropped.push_back(std::move(fresh));
    return;
  }
  if (!others) others = std::make_unique<OtherWays>();
  std::vector<Link>& links = others->links;
  if (!known && links.size() >= kMaxOtherLinks) {
    dropped.push_back(std::move(links.front()));
    links.erase(links.begin());
  }
  links.push_back(std::move(fresh));
}

bool Inode::drop_link(const Inode* in, std::string_view lower_name, std::vector<Link>& dropped) {
  if (link.is(in, lower_name)) {
    dropped.push_back(std::exchange(link, Link()));
    if (others && !others->links.empty()) {
      link = std::move(others->links.back());
      others->links.pop_back();
    }
    return true;
  }
  if (!others) return false;
  std::vector<Link>& links = others->links;
  const auto found = std::find_if(links.begin(), links.end(), [&](const Link& l) { return l.is(in, lower_name); });
  if (found == links.end()) return false;
  dropped.push_back(std::move(*found));
  links.erase(found);
  return true;
}

InodeTable::InodeTable() : by_id_(kShards), by_key_(kShards) {
  for (Shard& s : by_id_) s.buckets.resize(kFirstBuckets);
  for (Shard& s : by_key_) s.buckets.resize(kFirstBuckets);
}

InodeTable::~InodeTable() {
  // All at once: counting the references down one by one would end nothing that is still counted by the kernel.
  std::vector<Inode*> all;
  for (Shard& s : by_id_) {
    for (Inode* i : s.buckets) {
      for (; i != nullptr; i = i->next_by_id_) all.push_back(i);
    }
  }
  for (Inode* i : all) {
    i->link.parent.inode_ = nullptr;
    if (!i->others) continue;
    for (Link& l : i->others->links) l.parent.inode_ = nullptr;
  }
  for (Inode* i : all) delete i;  // NOLINT(cppcoreguidelines-owning-memory): the table is the owner
}

std::size_t InodeTable::hash(std::uint64_t id) noexcept { return mix(id); }
std::size_t InodeTable::hash(const InodeKey& key) noexcept {
  return mix(key.ino + mix(key.dev + mix(static_cast<std::uint64_t>(key.birth_ns))));
}

// The low bits of a hash choose the shard, the others the chain in it.
template <Inode* Inode::*Next, auto Of>
void InodeTable::insert(Shard& s, Inode* inode) {
  if (s.count >= kMaxChain * s.buckets.size()) {
    std::vector<Inode*> more(s.buckets.size() * 2);
    for (Inode* i : s.buckets) {
      while (i != nullptr) {
        Inode* const rest = i->*Next;
        Inode*& chain = more[(hash(i->*Of) / kShards) & (more.size() - 1)];
        i->*Next = chain;
        chain = i;
        i = rest;
      }
    }
    s.buckets.swap(more);
  }
  Inode*& chain = s.buckets[(hash(inode->*Of) / kShards) & (s.buckets.size() - 1)];
  inode->*Next = chain;
  chain = inode;
  ++s.count;
}

template <Inode* Inode::*Next, auto Of>
void InodeTable::remove(Shard& s, Inode* inode) noexcept {
  Inode** at = &s.buckets[(hash(inode->*Of) / kShards) & (s.buckets.size() - 1)];
  while (*at != inode) at = &((*at)->*Next);
  *at = inode->*Next;
  --s.count;
}

Inode* InodeTable::find_by_key(const Shard& s, const InodeKey& key) const noexcept {
  Inode* i = s.buckets[(hash(key) / kShards) & (s.buckets.size() - 1)];
  while (i != nullptr && !(i->key == key)) i = i->next_by_key_;
  return i;
}

InodeRef InodeTable::make_root(const InodeKey& key, const DirIdBytes& id) {
  return obtain(key, S_IFDIR, {InodeRef(), "", id, false}).first;  // the first one: kRootId
}

std::pair<InodeRef, bool> InodeTable::obtain(const InodeKey& key, mode_t mode, const NewLink& link) {
  Shard& keys = by_key_[hash(key) % kShards];
  const std::lock_guard lock(keys.mutex);
  Inode* found = find_by_key(keys, key);
  if (found != nullptr && found->type == (mode & S_IFMT)) {
    found->refs_.fetch_add(1, std::memory_order_relaxed);
    return {InodeRef(found), false};
  }
  if (found != nullptr) {  // the inode number was used again, on a filesystem without birth times
    found->stale = true;
    remove<&Inode::next_by_key_, &Inode::key>(keys, found);
    found->in_key_index_ = false;
  }
  const std::uint64_t id = next_id_.fetch_add(1, std::memory_order_relaxed);
  auto* made = new Inode(id, key, *this, mode, link);  // NOLINT: the table is the owner
  insert<&Inode::next_by_key_, &Inode::key>(keys, made);
  made->in_key_index_ = true;
  Shard& ids = by_id_[hash(id) % kShards];
  const std::lock_guard id_lock(ids.mutex);
  insert<&Inode::next_by_id_, &Inode::id>(ids, made);
  const std::size_t now = size_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (now > most_.load(std::memory_order_relaxed)) most_.store(now, std::memory_order_relaxed);
  return {InodeRef(made), true};
}

InodeRef InodeTable::find(std::uint64_t id) const {
  const Shard& ids = by_id_[hash(id) % kShards];
  const std::lock_guard lock(ids.mutex);
  Inode* i = ids.buckets[(hash(id) / kShards) & (ids.buckets.size() - 1)];
  while (i != nullptr && i->id != id) i = i->next_by_id_;
  if (i != nullptr) i->refs_.fetch_add(1, std::memory_order_relaxed);
  return InodeRef(i);
}

InodeRef InodeTable::find(const InodeKey& key) const {
  const Shard& keys = by_key_[hash(key) % kShards];
  const std::lock_guard lock(keys.mutex);
  Inode* i = find_by_key(keys, key);
  if (i != nullptr) i->refs_.fetch_add(1, std::memory_order_relaxed);
  return InodeRef(i);
}

void InodeTable::retire(Inode& inode) {
  Shard& keys = by_key_[hash(inode.key) % kShards];
  const std::lock_guard lock(keys.mutex);
  inode.stale = true;
  if (!inode.in_key_index_) return;
  remove<&Inode::next_by_key_, &Inode::key>(keys, &inode);
  inode.in_key_index_ = false;
}

void InodeTable::add_lookup(const InodeRef& inode) noexcept { inode->refs_.fetch_add(1, std::memory_order_relaxed); }

void InodeTable::forget(std::uint64_t id, std::uint64_t num) {
  const InodeRef inode = find(id);
  if (inode && id != kRootId) unref(inode.get(), num);
}

void InodeTable::unref(Inode* inode, std::uint64_t num) noexcept {
  while (inode != nullptr) {
    std::uint64_t refs = inode->refs_.load(std::memory_order_relaxed);
    while (refs > num) {
      if (inode->refs_.compare_exchange_weak(refs, refs - num, std::memory_order_acq_rel)) return;
    }
    // Perhaps the last: a finder holds one of the two shards while it counts itself in, so with both held zero is
    // final.
    {
      Shard& keys = by_key_[hash(inode->key) % kShards];
      Shard& ids = by_id_[hash(inode->id) % kShards];
      const std::lock_guard key_lock(keys.mutex);
      const std::lock_guard id_lock(ids.mutex);
      if (inode->refs_.fetch_sub(num, std::memory_order_acq_rel) != num) return;
      if (inode->in_key_index_) remove<&Inode::next_by_key_, &Inode::key>(keys, inode);
      remove<&Inode::next_by_id_, &Inode::id>(ids, inode);
    }
    size_.fetch_sub(1, std::memory_order_relaxed);
    // Its parent may be the next to go. A loop: a recursion would be as deep as the tree.
    Inode* const up = std::exchange(inode->link.parent.inode_, nullptr);
    delete inode;  // NOLINT(cppcoreguidelines-owning-memory)
    inode = up;
    num = 1;
  }
}

}  // namespace ecfs::fs
