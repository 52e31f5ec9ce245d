//! Where things are in the upper half.
//!
//! | root entries | from | what |
//! |---|---|---|
//! | 256–383 | `ffff_8000_0000_0000` | direct map: all RAM at its physical address plus [`DIRECT_MAP`] |
//! | 448 | `ffff_e000_0000_0000` | task stacks, each above its guard pages |
//! | 449 | `ffff_e080_0000_0000` | device registers |
//! | 511 | `ffff_ffff_8020_0000` | the image |
//!
//! The other entries lead to empty tables, and all 256 are filled at boot and never change again:
//! a new address space copies them and needs no correction later.

/// Start of the direct map.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Bytes of physical memory that the direct map has room for, 64 TiB.
pub const DIRECT_MAP_BYTES: u64 = 64 << 40;
/// Start of the task stacks.
pub const STACKS: u64 = 0xffff_e000_0000_0000;
/// Start of the device registers.
pub const DEVICES: u64 = 0xffff_e080_0000_0000;
/// Bytes of what one root entry maps, 512 GiB: the size of the stacks' and the devices' regions.
pub const ROOT_ENTRY_BYTES: u64 = 512 << 30;
/// First root entry of the upper half.
pub const UPPER_HALF: usize = 256;
