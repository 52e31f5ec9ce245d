//! `storm`: many tasks that sleep, wake each other, yield and spawn at random, some joined and
//! some left to themselves. When it is over none may be left.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::{join_all, random};
use crate::app::{self, Args, Failure, JoinHandle, Sharing, SpawnError};
use crate::app::{WaitError, WaitMode, WaitQueue, println};
use crate::task::registry;

crate::app!(
    name = "storm",
    about = "many tasks sleep, wake, yield and spawn at random: tasks=, steps=",
    main = main,
);

/// Places where the tasks wait for each other.
const PLACES: usize = 8;
/// Longest sleep and longest wait, in microseconds.
const PAUSE_US: u64 = 2_000;
/// Tasks that the storm begins with; they spawn the others.
const FIRST: u64 = 8;
/// How long tasks that have finished may take to disappear.
const PATIENCE: Duration = Duration::from_secs(10);

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let tasks = args.u64_in("tasks", 200, 1..=30_000)?;
    let steps = args.u64_in("steps", 30, 1..=1_000_000)?;
    args.finish()?;
    println!("storm: {}", run(tasks, steps)?);
    Ok(())
}

struct Storm {
    tasks: u64,
    steps: u64,
    /// Tasks that have been spawned, and that have finished.
    spawned: AtomicU64,
    finished: AtomicU64,
    over: WaitQueue,
    places: [Place; PLACES],
    wakes: AtomicU64,
    timeouts: AtomicU64,
}

struct Place {
    waiters: WaitQueue,
    /// Wakes so far: whoever waits, waits for the next one.
    calls: AtomicU64,
}

/// Has `tasks` tasks make `steps` random steps each. Returns what happened, in words.
///
/// # Errors
/// When a task cannot be made, or one is left at the end.
pub fn run(tasks: u64, steps: u64) -> Result<String, Failure> {
    let place = || Place { waiters: WaitQueue::new(), calls: AtomicU64::new(0) };
    let storm = Arc::new(Storm {
        tasks,
        steps,
        spawned: AtomicU64::new(0),
        finished: AtomicU64::new(0),
        over: WaitQueue::new(),
        places: core::array::from_fn(|_| place()),
        wakes: AtomicU64::new(0),
        timeouts: AtomicU64::new(0),
    });
    let mut first = Vec::new();
    for _ in 0..FIRST {
        first.extend(spawn(&storm)?);
    }
    join_all(first)?;
    // Those that are left to spawn when all others had no steps left.
    while let Some(task) = spawn(&storm)? {
        join_all([task])?;
    }
    storm.over.wait_until(|| storm.finished.load(Ordering::Acquire) == tasks);
    wait_until_none_is_left()?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (wakes, timeouts) = (count(&storm.wakes), count(&storm.timeouts));
    Ok(format!("{tasks} tasks, {steps} steps each, {wakes} wakes, {timeouts} timeouts; none left"))
}

/// Spawns the next task; none if that was all of them.
fn spawn(storm: &Arc<Storm>) -> Result<Option<JoinHandle>, SpawnError> {
    let taken = storm.spawned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        (count < storm.tasks).then_some(count + 1)
    });
    let Ok(number) = taken else { return Ok(None) };
    let its_storm = storm.clone();
    app::spawn(format!("storm-{number}"), move || take_part(&its_storm, number)).map(Some)
}

fn take_part(storm: &Arc<Storm>, number: u64) -> Result<(), Failure> {
    let mut random = random(number);
    let mut children = Vec::new();
    for _ in 0..storm.steps {
        let place = &storm.places[random.rand_range(0..PLACES as u64) as usize];
        let pause = Duration::from_micros(random.rand_range(1..PAUSE_US));
        match random.rand_range(0..8) {
            0 | 1 => app::yield_now(),
            2 => app::sleep(pause),
            3 | 4 => wake(storm, place, random.rand_range(0..2)),
            5 | 6 => wait(storm, place, pause),
            _ => {
                let child = spawn(storm)?;
                // Every other child is left to itself.
                children.extend(child.filter(|child| child.pid() % 2 == 0));
            }
        }
    }
    join_all(children)?;
    if storm.finished.fetch_add(1, Ordering::AcqRel) + 1 == storm.tasks {
        storm.over.wake_all();
    }
    Ok(())
}

fn wake(storm: &Storm, place: &Place, how: u64) {
    place.calls.fetch_add(1, Ordering::Release);
    let any = if how == 0 { place.waiters.wake_one() } else { place.waiters.wake_all() };
    storm.wakes.fetch_add(u64::from(any), Ordering::Relaxed);
}

/// Waits at a place for the next call, but not for ever: perhaps nobody is left to call.
fn wait(storm: &Storm, place: &Place, pause: Duration) {
    let calls = place.calls.load(Ordering::Acquire);
    let mode = WaitMode {
        sharing: Sharing::Exclusive,
        deadline_ticks: Some(app::now_ticks() + app::to_ticks(pause)),
        ..WaitMode::PLAIN
    };
    let waited = place.waiters.wait(mode, || place.calls.load(Ordering::Acquire) != calls);
    if waited == Err(WaitError::TimedOut) {
        storm.timeouts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tasks that nobody joined have finished their steps, but may still be on their way out.
fn wait_until_none_is_left() -> Result<(), Failure> {
    let deadline_ticks = app::now_ticks() + app::to_ticks(PATIENCE);
    loop {
        let mut left = registry::tasks().filter(|task| task.name().starts_with("storm-"));
        let Some(one) = left.next() else { return Ok(()) };
        if app::now_ticks() > deadline_ticks {
            let (count, pid, state) = (1 + left.count(), one.pid(), one.state());
            return Err(format!("{count} tasks are left; pid {pid} is {state:?}").into());
        }
        drop(one);
        app::sleep(Duration::from_millis(1));
    }
}
