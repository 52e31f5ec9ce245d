//! Bits that a process has besides (prctl(2), personality(2), membarrier(2)).

/// It may be traced and its memory dumped (`PR_SET_DUMPABLE`). Nobody does either; the bit is kept.
pub const DUMPABLE: u32 = 1 << 0;
/// `execve` gives no new privileges (`PR_SET_NO_NEW_PRIVS`). There are none to give.
pub const NO_NEW_PRIVILEGES: u32 = 1 << 1;
/// `PR_SET_KEEPCAPS`.
pub const KEEP_CAPABILITIES: u32 = 1 << 2;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED` was called.
pub const PRIVATE_BARRIERS: u32 = 1 << 3;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE` was called.
pub const CORE_BARRIERS: u32 = 1 << 4;
/// Programs that it begins are not moved at random (`ADDR_NO_RANDOMIZE`).
pub const FIXED_ADDRESSES: u32 = 1 << 5;

/// Those of a first process.
pub const DEFAULT: u32 = DUMPABLE;
/// What a child has from its parent.
pub const INHERITED: u32 = DUMPABLE | NO_NEW_PRIVILEGES | KEEP_CAPABILITIES | FIXED_ADDRESSES;
/// What a process keeps when it begins another program; [`DUMPABLE`] is set.
pub const KEPT_BY_EXEC: u32 = NO_NEW_PRIVILEGES | FIXED_ADDRESSES;
