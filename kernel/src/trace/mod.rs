//! The kernel's side of the trace: events into per-CPU rings, rings onto a wire.
//!
//! - [`events`]: every event there is, declared in one table
//! - [`record`]: how an event gets into the ring of its CPU
//! - [`stream`]: packets, and where they are sent
//! - [`drain`]: the task that empties the rings, and the flush at the end
//! - [`log`]: defmt's log lines, carried by one event
//!
//! Knows `arch`, `sync` and `mm`; nothing here schedules, except that the drain is a task.

pub mod drain;
pub mod events;
pub mod log;
pub mod record;
pub mod stream;

use core::ptr::NonNull;

use orrery_core::trace::ring::{BLOCK_LEN, Mode};
use orrery_core::trace::wire::{HELLO_NONCE, crc32c};

use crate::arch::irq::IrqOff;
use crate::arch::latency::{self, Section};
use crate::arch::percpu::{self, Slot};
use crate::arch::{smp, tsc};
use crate::drivers::virtio_console::VirtioConsole;
use crate::mm::{address, frames};
use crate::{boot, options, println};

/// Longest text of a [`events::mark`], in bytes.
pub const MAX_MARK_BYTES: usize = 128;

/// Gives the rings their memory, opens the line to the host and starts recording.
pub fn init(command_line: &'static str) {
    let options = options::get();
    let blocks = attach_rings(options.trace_kib_per_cpu, options.trace_mode);
    drain::configure(options.trace_mode, blocks);
    let virtio = options.trace_to_virtio.then(|| VirtioConsole::find(command_line)).flatten();
    if options.trace_to_virtio && virtio.is_none() {
        println!("orrery: no virtio-console found; the trace goes to COM1");
    }
    let session = stream::Session {
        nonce: nonce(),
        mode: options.trace_mode,
        compact: options.trace_compact,
        command_line,
    };
    stream::WIRE.try_with(|wire| wire.begin(session, virtio));
    record::set_enabled(options.trace_mask);
    let wants_latency = record::is_enabled(record::Category::Latency);
    let threshold_ticks = tsc::from_us(options.latency_threshold_us);
    latency::report_longer_than(wants_latency.then_some(threshold_ticks));
    defmt::info!("{=u32} trace rings of {=u64} blocks", smp::count(), blocks);
}

/// Gives each CPU's ring at most `kib` KiB, or less where memory is short; returns the blocks of each.
fn attach_rings(kib: u64, mode: Mode) -> u64 {
    let mut order = (kib * 1024 / BLOCK_LEN as u64).max(2).ilog2() as u8;
    order = order.min(frames::MAX_ORDER);
    for cpu in 0..smp::count() {
        // SAFETY: once per CPU; a ring is valid as an opaque unit, and is static.
        unsafe {
            let opaque = &*core::ptr::from_ref(record::RINGS.of(cpu)).cast::<()>();
            percpu::set_slot(cpu, Slot::TraceRing, opaque);
        }
        let memory = loop {
            match frames::alloc(order) {
                Some(pfn) => break Some(pfn),
                None if order > 1 => order -= 1,
                None => break None,
            }
        };
        let Some(pfn) = memory else {
            println!("orrery: no memory for the trace ring of CPU {cpu}: it drops all it records");
            continue;
        };
        let start = address::phys_to_virt(x86_64::PhysAddr::new(pfn.start_address()));
        if let Some(storage) = NonNull::new(start.as_mut_ptr::<u8>()) {
            // SAFETY: fresh frames that are never freed; no CPU records before the mask is set.
            unsafe { record::RINGS.of(cpu).attach(storage, 1 << order, mode) };
        }
    }
    1 << order
}

/// A number that no program can know before it sees the stream.
fn nonce() -> u32 {
    let mix = crc32c(options::seed() as u32, boot::build_id());
    let nonce = crc32c(mix, &tsc::now().to_le_bytes());
    if nonce == HELLO_NONCE { !nonce } else { nonce }
}

/// [`crate::arch::Hooks::lock_contended`].
pub fn on_lock_contended(lock: u64, since_ticks: u64, owner: u32) {
    let waited = (tsc::now() - since_ticks).min(u64::from(u32::MAX)) as u32;
    events::lock_contended(lock, waited, owner.saturating_sub(1).min(255) as u8);
}

/// [`crate::arch::Hooks::long_section`].
pub fn on_long_section(section: Section, ticks: u64, site: u64) {
    let ticks = ticks.min(u64::from(u32::MAX)) as u32;
    match section {
        Section::Preemption => events::preempt_off(ticks, site),
        Section::Interrupts => {
            // SAFETY: they are off until this has returned. No guard of its own, which would be
            // the beginning of another section.
            let irq = unsafe { IrqOff::assume() };
            events::irq_off_at(&irq, tsc::now(), ticks, site);
        }
    }
}
