//! `pingpong`: two tasks take turns. Each sleeps until it is its turn, and wakes the other when it
//! has had it.
//!
//! A wake that gets lost leaves both asleep for ever, so a run that ends has lost none.

use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::app::{self, Args, Builder, CpuSet, Failure, JoinHandle, Policy, RtPriority};
use crate::app::{Sleep, SpawnError, WaitMode, WaitQueue, println};

crate::app!(
    name = "pingpong",
    about = "two tasks take turns: rounds=, cpus=any|same|different, class=fair|fifo",
    main = main,
);

/// Priority of the two players in the real-time class.
const PRIORITY: u8 = 10;

#[derive(Clone, Copy)]
enum Placement {
    Any,
    Same,
    Different,
}

fn main(args: &Args<'static>) -> Result<(), Failure> {
    let rounds = args.u64_in("rounds", 10_000, 1..=1 << 32)?;
    let placement = args.choice(
        "cpus",
        &[("any", Placement::Any), ("same", Placement::Same), ("different", Placement::Different)],
    )?;
    let fifo = Policy::Fifo(RtPriority::new(PRIORITY).unwrap_or(RtPriority::MIN));
    let policy = args.choice("class", &[("fair", Policy::default()), ("fifo", fifo)])?;
    args.finish()?;
    let last = app::cpus() - 1;
    let cpus = match placement {
        Placement::Any => [CpuSet::ALL; 2],
        Placement::Same => [CpuSet::single(last); 2],
        Placement::Different if last > 0 => [CpuSet::single(last - 1), CpuSet::single(last)],
        Placement::Different => return Err("cpus=different needs a machine with two CPUs".into()),
    };
    let start_ticks = app::now_ticks();
    let game = Game::start(rounds, policy, cpus)?;
    game.finish()?;
    let took = app::to_duration(app::now_ticks() - start_ticks);
    println!("pingpong: {rounds} rounds in {} us", took.as_micros());
    Ok(())
}

struct Table {
    /// Turns had so far; even: it is the first player's turn.
    turns: AtomicU64,
    /// Where each player waits.
    chairs: [WaitQueue; 2],
}

/// A game that is being played.
pub struct Game {
    rounds: u64,
    table: Arc<Table>,
    players: [JoinHandle; 2],
}

impl Game {
    /// Starts two players of this policy, each on its CPUs.
    ///
    /// # Errors
    /// When a task cannot be made.
    pub fn start(rounds: u64, policy: Policy, cpus: [CpuSet; 2]) -> Result<Self, SpawnError> {
        let table = Arc::new(Table {
            turns: AtomicU64::new(0),
            chairs: [WaitQueue::new(), WaitQueue::new()],
        });
        let player = |me: usize, name| {
            let table = table.clone();
            let builder = Builder::new(name).policy(policy).cpus(cpus[me]);
            builder.spawn(move || play(&table, me, rounds))
        };
        // The second one first: without its partner it waits for ever, unless that fails.
        let pong = player(1, "pong")?;
        match player(0, "ping") {
            Ok(ping) => Ok(Self { rounds, table, players: [ping, pong] }),
            Err(why) => {
                pong.stop();
                Err(why)
            }
        }
    }

    /// Waits for the end of the game.
    ///
    /// # Errors
    /// When not every round was played.
    pub fn finish(self) -> Result<(), Failure> {
        super::join_all(self.players)?;
        match self.table.turns.load(Ordering::Relaxed) {
            turns if turns == 2 * self.rounds => Ok(()),
            turns => Err(format!("{turns} turns were had in {} rounds", self.rounds).into()),
        }
    }
}

fn play(table: &Table, me: usize, rounds: u64) -> Result<(), Failure> {
    // Interruptible, for the case that there is no partner.
    let mode = WaitMode { sleep: Sleep::Interruptible, ..WaitMode::PLAIN };
    for _ in 0..rounds {
        let my_turn = || table.turns.load(Ordering::Acquire) % 2 == me as u64;
        table.chairs[me].wait(mode, my_turn)?;
        table.turns.fetch_add(1, Ordering::Release);
        table.chairs[1 - me].wake_one();
    }
    Ok(())
}
