//! A PID that is taken and given back while so many others are in use.
//!
//! Numbers go up, a node of the tree has [`WAYS`] of them, and a number that is alone in its node costs the node as
//! well. So the last number that is held is the first of a node, in which the rounds take the others.

use alloc::vec::Vec;

use super::Suite;
use crate::app::{Failure, PidNamespace};
use crate::options;
use crate::task::{Nesting, registry};

/// How many are in use, besides those of the kernel's own tasks.
const LIVE: [(usize, &str); 6] = [
    (1, "pid/alloc/1e0"),
    (10, "pid/alloc/1e1"),
    (100, "pid/alloc/1e2"),
    (1_000, "pid/alloc/1e3"),
    (10_000, "pid/alloc/1e4"),
    (100_000, "pid/alloc/1e5"),
];
/// Numbers in a node.
const WAYS: u32 = 64;
/// Limit of the root namespace meanwhile: the next power of two, so that no number is given out twice.
const LIMIT: u32 = 1 << 17;

pub fn measure(suite: Suite) -> Result<(), Failure> {
    let root = PidNamespace::root();
    let limit = options::get().pid_limit;
    root.set_limit(limit.max(LIMIT))?;
    let measured = with_more_and_more(suite);
    root.set_limit(limit)?;
    measured
}

fn with_more_and_more(suite: Suite) -> Result<(), Failure> {
    let reserve = || registry::reserve(Nesting::Inherit, PidNamespace::root());
    let mut live = Vec::new();
    for (count, name) in LIVE {
        if !suite.wants(name) {
            continue;
        }
        while live.len() + 1 < count {
            live.push(reserve()?);
        }
        live.push(loop {
            let numbers = reserve()?;
            if numbers.number() % WAYS == 0 {
                break numbers;
            }
        });
        let mut failed = Ok(());
        suite.measure(name, 1, || match reserve() {
            Ok(numbers) => drop(numbers),
            Err(why) => failed = Err(why),
        })?;
        failed?;
    }
    Ok(())
}
