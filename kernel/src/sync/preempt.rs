//! Preemption off, as a guard. The count itself is [`percpu`]'s.

use core::marker::PhantomData;

use crate::arch::{hooks, latency, percpu};

/// Keeps this task on this CPU, running, while it lives (interrupts may still come).
pub struct PreemptOff {
    _not_send: PhantomData<*mut ()>,
}

impl PreemptOff {
    /// Forbids preemption once more.
    #[inline(always)]
    pub fn new() -> Self {
        percpu::preempt_disable();
        latency::preemption_is_off();
        Self { _not_send: PhantomData }
    }
}

impl Default for PreemptOff {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PreemptOff {
    #[inline(always)]
    fn drop(&mut self) {
        latency::preemption_returns();
        enable();
    }
}

/// Forbids preemption one time less, and goes through the scheduler where that makes one due.
#[inline(always)]
pub fn enable() {
    percpu::preempt_enable(reschedule);
}

#[cold]
#[inline(never)]
fn reschedule() {
    (hooks().preempt)();
}
