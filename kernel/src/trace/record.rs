//! How an event gets into the ring of its CPU.
//!
//! An event that is switched off costs one comparison and one predictable branch. One that is
//! on is written by its own CPU with interrupts off: index, offset from the block's base time,
//! fields. NMI, #MC and #DF handlers never come here: they stop the machine and write through
//! [`super::stream`].

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use orrery_core::trace::ring::{RECORD_HEAD, Ring};

use crate::arch::branch::any_bit_set;
use crate::arch::irq::IrqOff;
use crate::arch::percpu::{PerCpu, Slot};
use crate::arch::{percpu, tsc};
use crate::per_cpu;

/// The rings. They drop and count until `super::init` gives them memory.
pub static RINGS: PerCpu<Ring> = per_cpu!(Ring::new());

/// Which categories are on, a bit each: [`Category`].
static ENABLED: AtomicU32 = AtomicU32::new(0);

/// Groups of events that are switched together.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Category {
    Sched = 1 << 0,
    Irq = 1 << 1,
    Work = 1 << 2,
    Timer = 1 << 3,
    Idle = 1 << 4,
    Latency = 1 << 5,
    Task = 1 << 6,
    Lock = 1 << 7,
    Fault = 1 << 8,
    Mark = 1 << 9,
    Log = 1 << 10,
    Wake = 1 << 11,
    Syscall = 1 << 12,
    Process = 1 << 13,
    Signal = 1 << 14,
    Memory = 1 << 15,
}

/// Not a category: programs exist. In the same word, so that the switch of tasks asks one question.
pub const PROGRAMS_EXIST: u32 = 1 << 31;

/// Every category with its name on the command line.
pub const CATEGORIES: [(&str, Category); 16] = [
    ("sched", Category::Sched),
    ("wake", Category::Wake),
    ("syscall", Category::Syscall),
    ("process", Category::Process),
    ("signal", Category::Signal),
    ("memory", Category::Memory),
    ("irq", Category::Irq),
    ("work", Category::Work),
    ("timer", Category::Timer),
    ("idle", Category::Idle),
    ("latency", Category::Latency),
    ("task", Category::Task),
    ("lock", Category::Lock),
    ("fault", Category::Fault),
    ("mark", Category::Mark),
    ("log", Category::Log),
];

/// Whether events of this category are recorded.
#[inline(always)]
pub fn is_enabled(category: Category) -> bool {
    ENABLED.load(Ordering::Relaxed) & category as u32 != 0
}

/// Whether any of these bits is set.
#[inline(always)]
pub fn any_enabled<const BITS: u32>() -> bool {
    any_bit_set!(u32 ENABLED, BITS)
}

/// Replaces the set of categories that are on.
pub fn set_enabled(mask: u32) {
    let _ = ENABLED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
        Some(mask & !PROGRAMS_EXIST | before & PROGRAMS_EXIST)
    });
}

/// The set of categories that are on.
pub fn enabled() -> u32 {
    ENABLED.load(Ordering::Relaxed) & !PROGRAMS_EXIST
}

/// From here on programs may exist.
pub fn programs_exist() {
    ENABLED.fetch_or(PROGRAMS_EXIST, Ordering::SeqCst);
}

/// The categories that a `trace=` value names: `all`, `off`, or a list in which `-name` takes a
/// category away and a name adds it; a list that starts with `-` starts from all.
///
/// # Errors
/// The first word that is no category.
pub fn parse_categories(text: &str) -> Result<u32, &str> {
    let all = CATEGORIES.iter().fold(0, |mask, &(_, category)| mask | category as u32);
    let mut mask = if text.starts_with('-') { all } else { 0 };
    for word in text.split(',') {
        let (name, remove) = match word.strip_prefix('-') {
            Some(name) => (name, true),
            None => (word, false),
        };
        let bits = match name {
            "all" => all,
            "off" => 0,
            _ => match CATEGORIES.iter().find(|(known, _)| *known == name) {
                Some(&(_, category)) => category as u32,
                None => return Err(word),
            },
        };
        mask = if remove { mask & !bits } else { mask | bits };
    }
    Ok(mask)
}

/// A value that can be a field of an event, in defmt's encoding.
pub trait Field: Copy {
    /// Bytes it takes.
    fn len_bytes(self) -> usize;
    /// Writes it at `at` and returns the first byte after it.
    ///
    /// # Safety
    /// `at` has room for [`Field::len_bytes`] bytes.
    unsafe fn write(self, at: *mut u8) -> *mut u8;
}

macro_rules! integer_fields {
    ($($type:ty)*) => {$(
        impl Field for $type {
            #[inline(always)]
            fn len_bytes(self) -> usize {
                size_of::<$type>()
            }
            #[inline(always)]
            unsafe fn write(self, at: *mut u8) -> *mut u8 {
                // SAFETY: by contract.
                unsafe {
                    at.cast::<$type>().write_unaligned(self);
                    at.add(size_of::<$type>())
                }
            }
        }
    )*};
}
integer_fields!(u8 u16 u32 u64 i8 i16 i32 i64);

impl Field for &[u8] {
    #[inline(always)]
    fn len_bytes(self) -> usize {
        size_of::<u32>() + self.len()
    }
    #[inline(always)]
    unsafe fn write(self, at: *mut u8) -> *mut u8 {
        // SAFETY: by contract; the source is another object than the ring.
        unsafe {
            let at = (self.len() as u32).write(at);
            at.copy_from_nonoverlapping(self.as_ptr(), self.len());
            at.add(self.len())
        }
    }
}

impl Field for &str {
    #[inline(always)]
    fn len_bytes(self) -> usize {
        Field::len_bytes(self.as_bytes())
    }
    #[inline(always)]
    unsafe fn write(self, at: *mut u8) -> *mut u8 {
        // SAFETY: by contract.
        unsafe { self.as_bytes().write(at) }
    }
}

/// Writes one record into the ring of this CPU. `fields` writes exactly `fields_len` bytes.
#[inline(always)]
pub fn write(
    _irq: &IrqOff,
    now_ticks: u64,
    index: u16,
    fields_len: usize,
    fields: impl FnOnce(*mut u8),
) {
    // SAFETY: `super::init` puts the CPU's ring there before any category is enabled.
    let ring = unsafe { &*percpu::slot::<{ Slot::TraceRing as usize }>().cast::<Ring>() };
    let len = RECORD_HEAD + fields_len;
    // SAFETY: interrupts are off (`_irq`) and this CPU is the ring's only writer; `reserve` gives
    // room for `len` bytes, all of which are written before `commit`.
    unsafe {
        if let Some((at, offset)) = ring.reserve(len, now_ticks, running_pid) {
            let at: NonNull<u8> = at;
            let after = offset.write(index.write(at.as_ptr()));
            fields(after);
            ring.commit(at, len);
        }
    }
}

/// [`write`] from anywhere: turns interrupts off and reads the clock.
#[inline(always)]
pub fn write_now(index: u16, fields_len: usize, fields: impl FnOnce(*mut u8)) {
    let irq = IrqOff::new();
    write(&irq, tsc::now(), index, fields_len, fields);
}

/// For the head of a block: called when, and only when, the ring needs another block.
fn running_pid() -> u32 {
    super::drain::on_block_opened(RINGS.this());
    // SAFETY: `current` is null or the running task, whose first word is its PID
    // (`task::Task` is `repr(C)` for this).
    unsafe { percpu::current().cast::<u32>().as_ref().copied().unwrap_or(0) }
}
