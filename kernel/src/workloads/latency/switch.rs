//! Two tasks take turns on one CPU.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use super::{HERE, Suite, become_fifo};
use crate::app::{self, Builder, CpuSet, Failure, Policy, channel};
use crate::trace::record::{self, Category};
use crate::workloads::yield_bench::{UNROLLED, yield_some};

/// Times that the measuring task yields in a sample, and its partner.
const YIELDS: u32 = 32;
/// Round trips in a sample.
const TRIPS: u32 = 16;

pub fn measure(suite: Suite) -> Result<(), Failure> {
    let fifo = app::policy();
    by_yield(suite, "switch/yield/task/fifo", fifo)?;
    by_yield(suite, "switch/yield/task/fair", Policy::default())?;
    by_channel(suite, "switch/channel/task")?;
    let before = record::enabled();
    let sched = Category::Sched as u32;
    record::set_enabled(before & !sched);
    let measured = by_yield(suite, "trace-event/off", fifo);
    record::set_enabled(before | sched);
    let measured = measured.and_then(|()| by_yield(suite, "trace-event/on", fifo));
    record::set_enabled(before);
    measured
}

/// Each yields to the other.
fn by_yield(suite: Suite, name: &str, policy: Policy) -> Result<(), Failure> {
    if !suite.wants(name) {
        return Ok(());
    }
    let over = Arc::new(AtomicBool::new(false));
    let partner = Builder::new("partner").policy(policy).cpus(CpuSet::single(HERE)).spawn({
        let over = over.clone();
        move || {
            while !over.load(Ordering::Relaxed) {
                yield_some();
            }
        }
    })?;
    app::set_policy(policy);
    let measured =
        suite.measure(name, 2 * YIELDS, || (0..YIELDS / UNROLLED).for_each(|_| yield_some()));
    over.store(true, Ordering::Relaxed);
    become_fifo();
    partner.join();
    measured
}

/// A value goes there and comes back.
fn by_channel(suite: Suite, name: &str) -> Result<(), Failure> {
    if !suite.wants(name) {
        return Ok(());
    }
    let (to_partner, there) = channel(1);
    let (to_me, back) = channel(1);
    let partner = Builder::new("partner").policy(app::policy()).cpus(CpuSet::single(HERE)).spawn(
        move || {
            while let Ok(value) = there.recv() {
                let _ = to_me.send(value);
            }
        },
    )?;
    let measured = suite.measure(name, 2 * TRIPS, || {
        for value in 0..TRIPS {
            let _ = to_partner.send(value);
            let _ = back.recv();
        }
    });
    drop(to_partner);
    partner.join();
    measured
}
