//! The interrupt descriptor table, one for all CPUs: 256 interrupt gates to the stubs of
//! [`entry`](super::entry).

use core::cell::UnsafeCell;

use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

use super::entry::{STUB_BYTES, interrupt_stubs};
use super::gdt::{Ist, KERNEL_CODE};

/// An interrupt gate (SDM vol. 3, figure 6-8): interrupts are off on entry.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    attributes: u8,
    offset_middle: u16,
    offset_high: u32,
    _reserved: u32,
}

/// Present, privilege level 0, 64-bit interrupt gate.
const INTERRUPT_GATE: u8 = 0x8E;
/// The privilege level from which `int n` may use a gate: 3.
const FROM_RING_3: u8 = 3 << 5;

impl Gate {
    const MISSING: Self = Self {
        offset_low: 0,
        selector: 0,
        ist: 0,
        attributes: 0,
        offset_middle: 0,
        offset_high: 0,
        _reserved: 0,
    };

    fn new(handler: u64, ist: Option<Ist>) -> Self {
        Self {
            offset_low: handler as u16,
            selector: KERNEL_CODE,
            // In the gate 0 means "no switch" and the stacks count from 1.
            ist: ist.map_or(0, |ist| ist as u8 + 1),
            attributes: INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            _reserved: 0,
        }
    }
}

struct Idt(UnsafeCell<[Gate; 256]>);
// SAFETY: written once, by the boot CPU, before there are others.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate::MISSING; 256]));

/// Fills the table.
///
/// # Safety
/// Once, by the boot CPU, before any CPU loads it.
pub unsafe fn init() {
    let stubs = interrupt_stubs as *const () as u64;
    // SAFETY: nobody else uses the table (caller).
    let gates = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in gates.iter_mut().enumerate() {
        let ist = match vector {
            1 => Some(Ist::Debug),
            2 => Some(Ist::Nmi),
            8 => Some(Ist::DoubleFault),
            18 => Some(Ist::MachineCheck),
            _ => None,
        };
        *gate = Gate::new(stubs + vector as u64 * STUB_BYTES, ist);
        // `int3` and `into` are for programs, too.
        if matches!(vector, 3 | 4) {
            gate.attributes |= FROM_RING_3;
        }
    }
}

/// Makes this CPU use the table.
///
/// # Safety
/// After [`init`]; the CPU's GDT, TSS and head are in place.
pub unsafe fn load() {
    let pointer = DescriptorTablePointer {
        limit: size_of::<[Gate; 256]>() as u16 - 1,
        base: VirtAddr::from_ptr(IDT.0.get()),
    };
    // SAFETY: a complete table that lives for ever.
    unsafe { lidt(&pointer) };
}
