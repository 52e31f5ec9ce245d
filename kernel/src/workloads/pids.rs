//! `pids`: PIDs and PID namespaces. Tasks are made in nested namespaces on every CPU and go, while
//! others walk the list and look numbers up; then a namespace is filled to its limit and emptied, and
//! one ends while tasks are in it. Whatever is not as it should be makes the run fail.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use orrery_core::pid::RESERVED_PIDS;

use super::{join_all, random};
use crate::app::{self, Args, Builder, CpuSet, Failure, JoinHandle, PidNamespace, SpawnError};
use crate::app::{Sharing, Sleep, Task, WaitMode, WaitQueue, println};

crate::app!(
    name = "pids",
    about = "PIDs and namespaces under load: rounds=, depth=, limit=",
    main = main,
);

/// Tasks besides the first in each namespace.
const MEMBERS: u64 = 3;
/// Tasks in the namespace that ends.
const LEFT_BEHIND: usize = 8;
/// What those who walk leave to those who make, each time.
const PAUSE: Duration = Duration::from_micros(500);
/// How long tasks that have finished may take to disappear.
const PATIENCE: Duration = Duration::from_secs(10);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let rounds = args.u64_in("rounds", 30, 1..=1_000_000)?;
    let depth = args.u64_in("depth", 4, 1..=32)?;
    let limit = args.u64_in("limit", 100, 16..=u64::from(RESERVED_PIDS))?;
    args.finish()?;
    let before = PidNamespace::root().live();
    nest_and_walk(rounds, depth)?;
    fill(limit as u32)?;
    end()?;
    wait_until(|| PidNamespace::root().live() == before, "PIDs are left over")?;
    println!("pids: none left");
    Ok(())
}

/// An error that says what does not hold, if it does not.
fn check(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(format!("pids: {what}").into()) }
}

fn wait_until(mut condition: impl FnMut() -> bool, otherwise: &str) -> Result<(), Failure> {
    let deadline_ticks = app::now_ticks() + app::to_ticks(PATIENCE);
    while !condition() {
        check(app::now_ticks() < deadline_ticks, otherwise)?;
        app::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A task of each CPU makes nested namespaces, while another walks and looks up.
fn nest_and_walk(rounds: u64, depth: u64) -> Result<(), Failure> {
    let over = Arc::new(AtomicBool::new(false));
    let (walked, found) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (mut makers, mut walkers) = (Vec::new(), Vec::new());
    for cpu in 0..app::cpus() {
        let builder = |name| Builder::new(name).cpus(CpuSet::single(cpu));
        makers.push(builder("maker").spawn(move || make(rounds, depth, cpu as u64))?);
        let (over, walked, found) = (over.clone(), walked.clone(), found.clone());
        walkers.push(builder("walker").spawn(move || -> Result<(), Failure> {
            let mut random = random(1_000 + cpu as u64);
            while !over.load(Ordering::Relaxed) {
                walked.fetch_add(walk()?, Ordering::Relaxed);
                for _ in 0..100 {
                    let number = random.rand_range(1..2_000) as u32;
                    found.fetch_add(u64::from(look_up(number)?), Ordering::Relaxed);
                }
                app::sleep(PAUSE);
            }
            Ok(())
        })?);
    }
    let made = join_all(makers);
    over.store(true, Ordering::Relaxed);
    join_all(walkers)?;
    made?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "pids: {rounds} rounds of {depth} namespaces on {} CPUs; {} tasks met, {} found",
        app::cpus(),
        count(&walked),
        count(&found)
    );
    Ok(())
}

fn make(rounds: u64, depth: u64, cpu: u64) -> Result<(), Failure> {
    for round in 0..rounds {
        let seed = cpu * rounds + round;
        join_all([Builder::new("first")
            .new_pid_namespace()
            .spawn(move || first(depth, 1, seed))?])?;
    }
    Ok(())
}

/// The first task of a namespace at `level`: looks at its own numbers, makes others and, down to
/// `depth`, another namespace.
fn first(depth: u64, level: u64, seed: u64) -> Result<(), Failure> {
    let (me, namespace) = (app::current(), app::pid_namespace());
    check(u64::from(namespace.level()) == level, "a new namespace has the wrong level")?;
    check(me.pid_in(&namespace) == Some(1), "the first task of a namespace is not number 1")?;
    check(me.pid_in(PidNamespace::root()) == Some(me.pid()), "two root PIDs for one task")?;
    check(is_found(&namespace, 1, me), "number 1 of a namespace leads elsewhere")?;
    check(is_found(PidNamespace::root(), me.pid(), me), "a root PID leads elsewhere")?;
    let mut tasks = Vec::new();
    for member in 0..MEMBERS {
        let task = app::spawn("member", {
            let namespace = namespace.clone();
            move || self::member(&namespace)
        })?;
        check(task.task().parent() == me.pid(), "a task has the wrong parent")?;
        // Some are left to themselves, and inherited by somebody if they outlive this task.
        tasks.extend((random(seed).rand_range(0..MEMBERS) != member).then_some(task));
    }
    if level < depth {
        let deeper = move || first(depth, level + 1, seed);
        let task = Builder::new("first").new_pid_namespace().spawn(deeper)?;
        let inside = task.task();
        let number = inside.pid_in(&namespace);
        check(number.is_none_or(|number| number > 1), "a nested task has its parent's number")?;
        tasks.push(task);
    }
    join_all(tasks)
}

fn member(namespace: &PidNamespace) -> Result<(), Failure> {
    let me = app::current();
    check(me.namespace().as_ref() == Some(namespace), "a task is not in its parent's namespace")?;
    let number = me.pid_in(namespace).unwrap_or(0);
    check(number > 1, "a task has its namespace's first number")?;
    check(is_found(namespace, number, me), "a number leads elsewhere")?;
    app::yield_now();
    check(me.pid_in(namespace) == Some(number), "a number has changed")
}

fn is_found(namespace: &PidNamespace, number: u32, task: &Task) -> bool {
    namespace.find(number).is_some_and(|found| core::ptr::eq(&*found, task))
}

/// Walks the list of all tasks once, and says how many it met.
fn walk() -> Result<u64, Failure> {
    let root = PidNamespace::root();
    let (mut count, mut last, mut is_right) = (0, 0, true);
    let (mut must_be_met, me) = (2, app::pid());
    for (number, task) in root.tasks_from(0) {
        // A task that has been buried meanwhile has no number any more.
        is_right &= number > last && task.pid_in(root).is_none_or(|seen| seen == number);
        is_right &= task.pid() == number;
        must_be_met -= i32::from(number == 1 || number == me);
        (count, last) = (count + 1, number);
    }
    check(is_right, "the list is out of order")?;
    check(must_be_met == 0, "a task was not met though it was there all the time")?;
    Ok(count)
}

fn look_up(number: u32) -> Result<bool, Failure> {
    let task = PidNamespace::root().find(number);
    check(task.as_ref().is_none_or(|task| task.pid() == number), "a number leads elsewhere")?;
    Ok(task.is_some())
}

/// Fills a namespace up to its limit, twice: what is given back can be had again. (With a limit
/// beyond [`RESERVED_PIDS`], the numbers up to that would be given out the first time only.)
fn fill(limit: u32) -> Result<(), Failure> {
    let task =
        Builder::new("filler").new_pid_namespace().spawn(move || -> Result<(), Failure> {
            let namespace = app::pid_namespace();
            namespace.set_limit(limit)?;
            for _ in 0..2 {
                let tasks = spawn_until_full()?;
                let count = tasks.len() as u32 + 1;
                check(count == limit - 1, "the limit is not where it was set")?;
                check(namespace.live() == count, "numbers are counted wrong")?;
                let all = (1..limit).all(|number| namespace.find(number).is_some());
                check(all, "a number is not found though all are in use")?;
                check(namespace.find(limit).is_none(), "a number beyond the limit is found")?;
                tasks.iter().for_each(JoinHandle::request_stop);
                join_all(tasks)?;
                check(namespace.live() == 1, "numbers are not given back")?;
            }
            Ok(())
        })?;
    join_all([task])?;
    println!("pids: filled to {limit} and emptied, twice");
    Ok(())
}

/// Spawns tasks that wait to be stopped, until there are no numbers for more.
fn spawn_until_full() -> Result<Vec<JoinHandle>, Failure> {
    let mut tasks = Vec::new();
    loop {
        match app::spawn("waiting", wait_for_stop) {
            Ok(task) => tasks.push(task),
            Err(SpawnError::PidsExhausted) => return Ok(tasks),
            Err(why) => {
                tasks.iter().for_each(JoinHandle::request_stop);
                join_all(tasks)?;
                return Err(why.into());
            }
        }
    }
}

fn wait_for_stop() {
    let mode =
        WaitMode { sleep: Sleep::Interruptible, sharing: Sharing::Shared, deadline_ticks: None };
    // Nobody wakes it: the wait ends by the request to stop.
    let _ = WaitQueue::new().wait(mode, app::should_stop);
}

/// A namespace ends while tasks are in it: they are asked to stop, and none can be made there.
fn end() -> Result<(), Failure> {
    let refused = Arc::new(AtomicU64::new(0));
    let its_refused = refused.clone();
    let first = Builder::new("short-lived").new_pid_namespace().spawn(move || {
        for _ in 0..LEFT_BEHIND {
            let refused = its_refused.clone();
            let task = app::spawn("left-behind", move || {
                wait_for_stop();
                if let Err(SpawnError::NamespaceEnded) = app::spawn("too-late", || ()) {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
            // Its handle is dropped: it is left behind.
            drop(task?);
        }
        Ok::<_, Failure>(())
    })?;
    let (task, namespace) = (first.task(), first.task().namespace());
    join_all([first])?;
    check(task.pid_in(PidNamespace::root()).is_none(), "a task that was joined has a number")?;
    check(namespace.is_none_or(|it| it.is_ending()), "a namespace outlives its first task")?;
    let all = || refused.load(Ordering::Relaxed) == LEFT_BEHIND as u64;
    wait_until(all, "tasks of an ended namespace go on")?;
    println!("pids: a namespace has ended, and the {LEFT_BEHIND} tasks left in it");
    Ok(())
}
