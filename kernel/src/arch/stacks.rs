//! The boot CPU's stacks, which it needs before there is memory management: its first stack, later
//! its idle task's, and its interrupt stacks. Every other stack is a
//! [`KernelStack`](crate::mm::stack::KernelStack).
//!
//! `mm::init` leaves the guard pages out of the kernel's page tables.

use core::cell::UnsafeCell;
use core::ops::Range;

/// Bytes of every stack in the kernel.
pub const STACK_BYTES: usize = 16 * 1024;
const GUARD_BYTES: usize = 4096;

/// Interrupt stacks a CPU has: one for each exception that must not trust the stack it finds.
pub const IST_STACKS: usize = 4;

/// A stack above a page that is never mapped.
#[repr(C, align(4096))]
pub struct GuardedStack {
    guard: [u8; GUARD_BYTES],
    stack: UnsafeCell<[u8; STACK_BYTES]>,
}

impl GuardedStack {
    /// Offset of the first byte above the stack.
    pub const TOP: usize = size_of::<Self>();

    const fn new() -> Self {
        Self { guard: [0; GUARD_BYTES], stack: UnsafeCell::new([0; STACK_BYTES]) }
    }

    /// Address of the first byte above the stack; a multiple of a page.
    pub fn top(&self) -> u64 {
        core::ptr::from_ref(self) as u64 + Self::TOP as u64
    }

    /// Addresses of the stack itself.
    pub fn range(&self) -> Range<u64> {
        self.stack.get() as u64..self.top()
    }

    /// Addresses of the guard page.
    pub fn guard(&self) -> Range<u64> {
        let start = core::ptr::from_ref(self) as u64;
        start..start + GUARD_BYTES as u64
    }
}

/// The boot CPU's stacks.
#[repr(C)]
pub struct BootStacks {
    /// What the doors and the boot story run on.
    pub boot: GuardedStack,
    /// Interrupt stacks, in the order of `gdt::Ist`.
    pub ist: [GuardedStack; IST_STACKS],
}

// SAFETY: the bytes are only ever used as the boot CPU's stacks.
unsafe impl Sync for BootStacks {}

/// The boot CPU's stacks.
pub static BOOT_STACKS: BootStacks =
    BootStacks { boot: GuardedStack::new(), ist: [const { GuardedStack::new() }; IST_STACKS] };

impl BootStacks {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &GuardedStack> {
        core::iter::once(&self.boot).chain(&self.ist)
    }

    /// Whether `address` is in one of the stacks.
    pub fn contains(&self, address: u64) -> bool {
        self.iter().any(|stack| stack.range().contains(&address))
    }

    /// Whether `address` is in one of the guard pages.
    pub fn overflow_at(&self, address: u64) -> bool {
        self.iter().any(|stack| stack.guard().contains(&address))
    }
}
