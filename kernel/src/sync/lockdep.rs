//! Lock order, checked at run time: `orrery_core::lockdep` fed by every [`SpinLock`](super::SpinLock).
//!
//! Compiled into images with debug assertions only; `lockdep_off.rs` stands in for it elsewhere and
//! costs nothing. A lock's class is its name: locks of one name are one class.
//!
//! Invariants
//! - What a CPU holds is in its own list, which it alone uses, with interrupts off. Spinlocks keep
//!   their holder on its CPU, so what an interrupted task holds is still in the list when the
//!   handler takes more; that is meant, since the handler then waits with those held.
//! - A CPU that goes through the scheduler holds nothing ([`assert_none_held`]).
//! - The first violation panics; from then on nothing is checked.

use core::cell::UnsafeCell;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use orrery_core::lockdep::{Class, Context, Held, Lockdep, MAX_CLASSES, Violation};

use crate::arch::percpu::PerCpu;
use crate::arch::{cpu, irq, percpu};
use crate::per_cpu;

static LOCKDEP: Lockdep = Lockdep::new();
static CLASSES: Classes = Classes {
    busy: AtomicBool::new(false),
    slots: [const { Slot(UnsafeCell::new(None)) }; MAX_CLASSES],
};
static HELD: PerCpu<HeldCell> = per_cpu!(HeldCell(UnsafeCell::new(Held::new())));
static SILENCED: AtomicBool = AtomicBool::new(false);

struct HeldCell(UnsafeCell<Held>);
// SAFETY: used by its own CPU with interrupts off, or when that CPU is stopped.
unsafe impl Sync for HeldCell {}

/// All classes in use, by name.
struct Classes {
    busy: AtomicBool,
    slots: [Slot; MAX_CLASSES],
}

struct Slot(UnsafeCell<Option<Class>>);
// SAFETY: written once, under `busy`, before any reference to the class is given out.
unsafe impl Sync for Slot {}

impl Classes {
    /// The class of this name. Interrupts are off.
    fn of(&'static self, name: &'static str) -> Option<&'static Class> {
        while self.busy.swap(true, Ordering::Acquire) {
            cpu::pause();
        }
        let class = self.slots.iter().find_map(|slot| {
            // SAFETY: slots are read and filled under `busy`, which this CPU has; a filled one
            // does not change any more.
            let class = unsafe { &*slot.0.get() };
            match class {
                Some(class) => (class.name() == name).then_some(class),
                None => {
                    // SAFETY: as above; nobody has a reference into an empty slot.
                    Some(unsafe { (*slot.0.get()).insert(Class::new(name)) })
                }
            }
        });
        self.busy.store(false, Ordering::Release);
        class
    }
}

/// A lock's memory of its class, found when the lock is first taken.
pub(super) struct ClassCell(AtomicPtr<Class>);

impl ClassCell {
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    fn get(&self, name: &'static str) -> &'static Class {
        let known = self.0.load(Ordering::Relaxed);
        // SAFETY: null, or a class of the table, which is static; those are atomics and a name.
        if let Some(class) = unsafe { known.as_ref() } {
            return class;
        }
        let Some(class) = CLASSES.of(name) else {
            SILENCED.store(true, Ordering::Relaxed);
            panic!("more than {MAX_CLASSES} lock classes: `{name}` is one too many");
        };
        self.0.store(core::ptr::from_ref(class).cast_mut(), Ordering::Relaxed);
        class
    }
}

/// A lock is about to be waited for.
#[track_caller]
pub(super) fn on_acquire(class: &ClassCell, name: &'static str) {
    let site = Location::caller();
    with_held(|held, context| LOCKDEP.acquire(held, class.get(name), site, context));
}

/// A lock was taken by trying.
#[track_caller]
pub(super) fn on_acquired_by_trying(class: &ClassCell, name: &'static str) {
    let site = Location::caller();
    with_held(|held, context| LOCKDEP.acquired_by_trying(held, class.get(name), site, context));
}

/// A lock is about to be released.
pub(super) fn on_release(class: &ClassCell, name: &'static str) {
    with_held(|held, _| {
        held.release(class.get(name));
        Ok(())
    });
}

/// Panics if this CPU holds a spinlock, and names it: the task is about to give its CPU away.
pub fn assert_none_held() {
    let mut last = None;
    with_held(|held, _| {
        last = held.iter().last();
        Ok(())
    });
    if let Some(lock) = last {
        SILENCED.store(true, Ordering::Relaxed);
        panic!("a task gives its CPU away with spinlock {lock} held");
    }
}

/// Checks nothing from here on: for the end of the machine, which takes locks by force.
pub fn silence() {
    SILENCED.store(true, Ordering::Relaxed);
}

/// Spinlocks that CPU `cpu` holds, with the places where it took them, in the order in which it did.
///
/// # Safety
/// That CPU is stopped, or is the one that asks and takes and releases none meanwhile.
pub unsafe fn held_by(
    cpu: u32,
) -> impl Iterator<Item = (&'static str, &'static Location<'static>)> {
    // SAFETY: by contract nobody changes the list.
    let held = unsafe { &*HELD.of(cpu).0.get() };
    held.iter().map(|lock| (lock.class.name(), lock.site))
}

fn with_held(with: impl FnOnce(&mut Held, Context) -> Result<(), Violation>) {
    if SILENCED.load(Ordering::Relaxed) {
        return;
    }
    let were_enabled = irq::are_enabled();
    irq::disable();
    let context = if percpu::in_interrupt() {
        Context::Interrupt
    } else if were_enabled {
        Context::InterruptsOn
    } else {
        Context::InterruptsOff
    };
    // SAFETY: this CPU's own list, with interrupts off; nothing that is called takes a spinlock.
    let result = with(unsafe { &mut *HELD.this().0.get() }, context);
    if let Err(violation) = result {
        SILENCED.store(true, Ordering::Relaxed);
        panic!("{violation}");
    }
    if were_enabled {
        // SAFETY: they were on.
        unsafe { irq::enable() };
    }
}
