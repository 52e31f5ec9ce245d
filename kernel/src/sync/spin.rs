//! Spinlocks that know their owner.
//!
//! The lock word is 0 when free, else the owning CPU's number plus one, so that a recursive lock is
//! found where it happens and a panic can say who held what; or it says that a task keeps the lock that has no
//! CPU at the moment. Holding one disables preemption; data
//! that interrupt handlers touch as well is locked with [`SpinLock::lock_irq`]. In images with debug
//! assertions every acquisition is checked by [`lockdep`](super::lockdep).

use core::cell::UnsafeCell;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::lockdep::{self, ClassCell};
use super::preempt;
use crate::arch::irq::IrqOff;
use crate::arch::{cpu, hooks, latency, percpu};

/// The lock word while whoever holds it does not run.
const KEPT: u32 = u32::MAX;

/// Mutual exclusion by spinning.
pub struct SpinLock<T: ?Sized> {
    owner: AtomicU32,
    name: &'static str,
    class: ClassCell,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out one reference at a time.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}
// SAFETY: moving the lock moves the value.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// A free lock. `name` is its class: locks of one name are ordered alike.
    pub const fn new(name: &'static str, value: T) -> Self {
        Self {
            owner: AtomicU32::new(0),
            name,
            class: ClassCell::new(),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Waits for the lock; preemption is off until the guard goes.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        percpu::preempt_disable();
        latency::preemption_is_off();
        self.acquire();
        SpinGuard { lock: self }
    }

    /// [`Self::lock`] for locks that are held long, as one that waits for other CPUs is: whoever waits may be
    /// preempted meanwhile, and sleeps, which is what `while_kept` does, while the lock
    /// [is kept](Self::keep_over_preemption). For tasks that hold nothing.
    #[inline(always)]
    #[track_caller]
    pub fn lock_patiently(&self, while_kept: impl Fn()) -> SpinGuard<'_, T> {
        debug_assert!(
            percpu::preempt_depth() == 0 && !percpu::in_interrupt(),
            "`{}` is waited for where nobody may sleep",
            self.name
        );
        percpu::preempt_disable();
        latency::preemption_is_off();
        let me = percpu::owner_word();
        lockdep::on_acquire(&self.class, self.name);
        if self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.acquire_patiently(me, while_kept);
        }
        SpinGuard { lock: self }
    }

    /// Waits for the lock with interrupts off, which they stay until the guard goes.
    #[inline(always)]
    #[track_caller]
    pub fn lock_irq(&self) -> SpinIrqGuard<'_, T> {
        let irq = IrqOff::new();
        percpu::preempt_disable();
        self.acquire();
        SpinIrqGuard { lock: self, irq: ManuallyDrop::new(irq) }
    }

    /// [`Self::lock_irq`] for a task that is about to sleep, whose interrupts are on.
    #[inline(always)]
    #[track_caller]
    pub fn lock_irq_of_task(&self) -> SpinIrqGuard<'_, T> {
        let irq = IrqOff::of_task();
        percpu::preempt_disable();
        self.acquire();
        SpinIrqGuard { lock: self, irq: ManuallyDrop::new(irq) }
    }

    /// Waits for the lock where interrupts are off already: no more has to be counted.
    #[inline(always)]
    #[track_caller]
    pub fn lock_with<'a>(&'a self, _irq: &'a IrqOff) -> SpinHeld<'a, T> {
        self.acquire();
        SpinHeld { lock: self }
    }

    /// Takes the lock if it is free, where interrupts are off already.
    #[inline]
    #[track_caller]
    pub fn try_lock_with<'a>(&'a self, _irq: &'a IrqOff) -> Option<SpinHeld<'a, T>> {
        let me = percpu::owner_word();
        if self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return None;
        }
        lockdep::on_acquired_by_trying(&self.class, self.name);
        Some(SpinHeld { lock: self })
    }

    /// Whether anybody holds the lock.
    pub fn is_locked(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != 0
    }

    /// Whether it is [kept](Self::keep_over_preemption) just now.
    pub fn is_kept(&self) -> bool {
        self.owner.load(Ordering::SeqCst) == KEPT
    }

    /// Goes through the scheduler if that is due, with the lock locked all the time. Taking it back is a full
    /// barrier.
    ///
    /// # Panics
    /// If this CPU does not hold the lock.
    #[cold]
    #[track_caller]
    pub fn keep_over_preemption(&self) {
        let owner = self.owner.load(Ordering::Relaxed);
        assert!(owner == percpu::owner_word(), "`{}` is kept by who does not hold it", self.name);
        lockdep::on_release(&self.class, self.name);
        self.owner.store(KEPT, Ordering::SeqCst);
        latency::preemption_returns();
        preempt::enable();
        percpu::preempt_disable();
        latency::preemption_is_off();
        lockdep::on_acquire(&self.class, self.name);
        self.owner.swap(percpu::owner_word(), Ordering::SeqCst);
    }

    /// The lock's class name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The value, of which the caller is the only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Where the value is, for those who know that nobody changes it meanwhile.
    #[inline(always)]
    pub fn data_ptr(&self) -> *mut T {
        self.value.get()
    }

    /// The value, without the lock.
    ///
    /// # Safety
    /// For a panic that has stopped all other CPUs: nobody else uses the value.
    pub unsafe fn get_after_stop(&self) -> *mut T {
        self.value.get()
    }

    #[inline(always)]
    #[track_caller]
    fn acquire(&self) {
        let me = percpu::owner_word();
        lockdep::on_acquire(&self.class, self.name);
        if self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.acquire_contended(me);
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn acquire_contended(&self, me: u32) {
        let owner = self.owner.load(Ordering::Relaxed);
        assert!(owner != me, "spinlock `{}` taken twice by CPU {}", self.name, me - 1);
        let since_ticks = crate::arch::tsc::now();
        loop {
            while self.owner.load(Ordering::Relaxed) != 0 {
                cpu::pause();
            }
            if self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        (hooks().lock_contended)(core::ptr::from_ref(self).cast::<()>() as u64, since_ticks, owner);
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn acquire_patiently(&self, mut me: u32, while_kept: impl Fn()) {
        let owner = self.owner.load(Ordering::Relaxed);
        assert!(owner != me, "spinlock `{}` taken twice by CPU {}", self.name, me - 1);
        let since_ticks = crate::arch::tsc::now();
        loop {
            // Nothing is held while preemption is possible, and this may be another CPU afterwards.
            lockdep::on_release(&self.class, self.name);
            latency::preemption_returns();
            preempt::enable();
            loop {
                match self.owner.load(Ordering::Relaxed) {
                    0 => break,
                    KEPT => while_kept(),
                    _ => cpu::pause(),
                }
            }
            percpu::preempt_disable();
            latency::preemption_is_off();
            me = percpu::owner_word();
            lockdep::on_acquire(&self.class, self.name);
            if self.owner.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        (hooks().lock_contended)(core::ptr::from_ref(self).cast::<()>() as u64, since_ticks, owner);
    }

    #[inline(always)]
    fn release(&self) {
        lockdep::on_release(&self.class, self.name);
        self.owner.store(0, Ordering::Release);
    }
}

/// The lock held; preemption is off.
#[must_use]
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
}

/// The lock held; interrupts and preemption are off.
#[must_use]
pub struct SpinIrqGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    irq: ManuallyDrop<IrqOff>,
}

/// The lock held where interrupts were off before.
#[must_use]
pub struct SpinHeld<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
}

impl<T: ?Sized> SpinIrqGuard<'_, T> {
    /// Proof that interrupts are off.
    #[inline(always)]
    pub fn irq(&self) -> &IrqOff {
        &self.irq
    }
}

impl<T: ?Sized> Drop for SpinHeld<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.release();
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.release();
        latency::preemption_returns();
        preempt::enable();
    }
}

impl<T: ?Sized> Drop for SpinIrqGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.release();
        let interrupts_return = self.irq.restores();
        // SAFETY: dropped once, here; before the count falls, since the scheduler is not entered
        // with interrupts off.
        unsafe { ManuallyDrop::drop(&mut self.irq) };
        if interrupts_return {
            preempt::enable();
        } else {
            percpu::preempt_enable_no_resched();
        }
    }
}

macro_rules! deref {
    ($guard:ident) => {
        impl<T: ?Sized> Deref for $guard<'_, T> {
            type Target = T;
            #[inline(always)]
            fn deref(&self) -> &T {
                // SAFETY: the guard holds the lock.
                unsafe { &*self.lock.value.get() }
            }
        }
        impl<T: ?Sized> DerefMut for $guard<'_, T> {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut T {
                // SAFETY: the guard holds the lock, and is borrowed exclusively.
                unsafe { &mut *self.lock.value.get() }
            }
        }
    };
}
deref!(SpinGuard);
deref!(SpinIrqGuard);
deref!(SpinHeld);
