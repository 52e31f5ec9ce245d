//! Page tables against the model: several programs on several CPUs fork, write, unmap, protect,
//! move and exit; each has the memory that a plain model says, on every CPU, whatever is cached.

use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering::Relaxed;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

use super::model::{CPUS, Machine, Omit, Space, View};
use super::range::Withdraw;
use super::release::release_window;
use super::tables::{Access, Content, OutOfMemory, SourcePage, Update, accessible};
use super::{PAGE_BYTES, Protection};
use crate::frames::{Pfn, Put};

const PROGRAMS: usize = 4;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Pages that share tables of each level, and such that do not.
const PAGES: [u64; 12] = [
    16 * MIB,
    16 * MIB + PAGE_BYTES,
    16 * MIB + 9 * PAGE_BYTES,
    18 * MIB,
    18 * MIB + PAGE_BYTES,
    GIB,
    GIB + 5 * PAGE_BYTES,
    3 * GIB,
    3 * GIB + 3 * PAGE_BYTES,
    512 * GIB,
    512 * GIB + 5 * PAGE_BYTES,
    1024 * GIB + 2 * MIB,
];

/// What a page shows at first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Anonymous,
    /// A private page of a file that is pinned, or counted.
    Pinned,
    Counted,
    /// A page of a shared object.
    Shared,
}

fn kind(page: usize) -> Kind {
    match page {
        1 => Kind::Pinned,
        4 => Kind::Counted,
        2 | 8 => Kind::Shared,
        _ => Kind::Anonymous,
    }
}

const PINNED_WORD: u64 = 1001;
const COUNTED_WORD: u64 = 1002;

/// What a program should see of a page.
#[derive(Clone, Copy)]
struct Expected {
    protection: Protection,
    /// Of a shared page, what all see is in [`World::shared_words`].
    word: u64,
}

#[derive(Clone)]
struct Program {
    space: Space,
    /// `None` where nothing is mapped.
    pages: [Option<Expected>; PAGES.len()],
}

/// Which pages go where when so many bytes move from one page's place to another's; `None` if that cannot be: where
/// anything is at the target, or a page would be another kind of page there, or none that the model knows.
fn moves(program: &Program, page: usize, to: usize, len_bytes: u64) -> Option<Vec<(usize, usize)>> {
    let (from, target) = (PAGES[page], PAGES[to]);
    let is_aligned = len_bytes == PAGE_BYTES || (from | target).is_multiple_of(len_bytes);
    let within =
        |start: u64| (0..PAGES.len()).filter(move |&it| PAGES[it].wrapping_sub(start) < len_bytes);
    if !is_aligned || from == target || within(target).any(|it| program.pages[it].is_some()) {
        return None;
    }
    let mapped = within(from).filter(|&it| program.pages[it].is_some());
    let place = |it: usize| {
        let to = PAGES.iter().position(|&at| at == PAGES[it] - from + target)?;
        let is_alike = kind(it) == Kind::Anonymous && kind(to) == Kind::Anonymous;
        is_alike.then_some((it, to))
    };
    mapped.map(place).collect()
}

impl Program {
    fn map(&mut self, page: usize) {
        let word = match kind(page) {
            Kind::Anonymous | Kind::Shared => 0,
            Kind::Pinned => PINNED_WORD,
            Kind::Counted => COUNTED_WORD,
        };
        self.pages[page] = Some(Expected { protection: Protection::READ_WRITE, word });
    }
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        cpu: usize,
        program: usize,
        page: usize,
        word: u64,
    },
    Read {
        cpu: usize,
        program: usize,
        page: usize,
    },
    Fork {
        program: usize,
        child: usize,
    },
    Exit {
        program: usize,
    },
    Run {
        cpu: usize,
        program: usize,
    },
    Idle {
        cpu: usize,
    },
    Unmap {
        program: usize,
        first: usize,
        last: usize,
    },
    Map {
        program: usize,
        page: usize,
    },
    Protect {
        program: usize,
        first: usize,
        last: usize,
        protection: Protection,
    },
    /// A page moves, or so many bytes that are one entry's.
    Move {
        program: usize,
        page: usize,
        to: usize,
        len_bytes: u64,
    },
    /// So many frames are left.
    Scarce {
        frames: u32,
    },
}

struct World {
    machine: Machine,
    programs: RefCell<[Option<Program>; PROGRAMS]>,
    is_locked: [Cell<bool>; PROGRAMS],
    object: RefCell<BTreeMap<usize, Pfn>>,
    shared_words: [Cell<u64>; PAGES.len()],
    pinned: Pfn,
    counted: Pfn,
    /// What others do during flushes.
    pending: RefCell<Vec<Op>>,
    at_start: u64,
}

impl World {
    fn new(curiosity: u32, has_pcids: bool, omit: Omit) -> Self {
        let machine = Machine::new(PAGES.to_vec(), curiosity, has_pcids, omit);
        let pinned = machine.alloc(PINNED_WORD).unwrap();
        let counted = machine.alloc(COUNTED_WORD).unwrap();
        let at_start = machine.free_frames();
        let world = Self {
            machine,
            programs: RefCell::default(),
            is_locked: Default::default(),
            object: RefCell::default(),
            shared_words: Default::default(),
            pinned,
            counted,
            pending: RefCell::default(),
            at_start,
        };
        let root = world.machine.alloc(0).unwrap();
        let mut program = Program { space: world.machine.space(root), pages: [None; PAGES.len()] };
        // Some are left free, for others to move to.
        (0..PAGES.len()).filter(|page| ![9, 10].contains(page)).for_each(|page| program.map(page));
        world.programs.borrow_mut()[0] = Some(program);
        world
    }

    fn word(&self, page: usize, expected: &Expected) -> u64 {
        match kind(page) {
            Kind::Shared => self.shared_words[page].get(),
            Kind::Anonymous | Kind::Pinned | Kind::Counted => expected.word,
        }
    }

    fn content(&self, view: &View<'_>, page: usize) -> Result<Content, OutOfMemory> {
        use super::tables::Memory;
        Ok(match kind(page) {
            Kind::Anonymous => Content::Zero,
            Kind::Pinned => Content::Private(SourcePage::Pinned(self.pinned.start_address())),
            Kind::Counted => {
                view.meta(self.counted).add_reference();
                Content::Private(SourcePage::Counted(self.counted))
            }
            Kind::Shared => {
                let mut object = self.object.borrow_mut();
                let frame = match object.get(&page) {
                    Some(&frame) => frame,
                    None => self.machine.alloc(0).ok_or(OutOfMemory)?,
                };
                object.insert(page, frame);
                view.meta(frame).add_reference();
                Content::Shared(SourcePage::Counted(frame))
            }
        })
    }

    fn meanwhile(&self) {
        let next = self.pending.borrow_mut().pop();
        if let Some(op) = next {
            self.run(&op);
        }
    }

    /// Does what the kernel does, and updates the model. Programs whose lock is taken, or that do not
    /// exist, do nothing.
    fn run(&self, op: &Op) {
        if let Op::Scarce { frames } = *op {
            return self.machine.left.set(frames);
        }
        if let Op::Idle { cpu } = *op {
            return self.machine.cpus.borrow_mut()[cpu].unload();
        }
        if let Op::Run { cpu, program } = *op {
            self.load(cpu, program);
            self.machine.look_around();
            return self.check();
        }
        let number = match *op {
            Op::Write { program, .. }
            | Op::Read { program, .. }
            | Op::Fork { program, .. }
            | Op::Exit { program }
            | Op::Unmap { program, .. }
            | Op::Map { program, .. }
            | Op::Protect { program, .. }
            | Op::Move { program, .. } => program,
            Op::Idle { .. } | Op::Run { .. } | Op::Scarce { .. } => unreachable!(),
        };
        let Some(mut program) = self.programs.borrow()[number].clone() else { return };
        if self.is_locked[number].replace(true) {
            return;
        }
        let is_alive = self.run_in(op, &mut program);
        self.programs.borrow_mut()[number] = is_alive.then_some(program);
        self.is_locked[number].set(false);
        self.machine.look_around();
        self.check();
    }

    fn run_in(&self, op: &Op, program: &mut Program) -> bool {
        let meanwhile = || self.meanwhile();
        let space = program.space;
        let root = space.root;
        let view = View { machine: &self.machine, space, meanwhile: &meanwhile };
        match *op {
            Op::Read { cpu, program: number, page } => {
                self.load(cpu, number);
                let Some(expected) = program.pages[page] else { return true };
                if expected.protection.readable() {
                    self.fault(&view, page, Access::Read, expected.protection);
                }
            }
            Op::Write { cpu, program: number, page, word } => {
                self.load(cpu, number);
                let Some(expected) = program.pages[page] else { return true };
                if expected.protection.writable() {
                    self.write(&view, cpu, program, page, word);
                }
            }
            Op::Fork { child, .. } => self.fork(&view, program, child),
            Op::Exit { .. } => {
                for cpu in self.machine.cpus.borrow_mut().iter_mut() {
                    if cpu.root == Some(root) {
                        cpu.unload();
                    }
                }
                release_window(&view, root);
                self.machine.free(root);
                return false;
            }
            Op::Unmap { first, last, .. } => {
                let mut update = Update::<_, 2>::new(&view, root);
                let result = update.unmap(PAGES[first], PAGES[last] + PAGE_BYTES);
                update.flush();
                if result.is_ok() {
                    program.pages[first..=last].fill(None);
                }
                update.release();
            }
            Op::Map { page, .. } => {
                if program.pages[page].is_none() {
                    program.map(page);
                }
            }
            Op::Protect { first, last, protection, .. } => {
                let withdraw = Withdraw::for_protection(protection);
                let mut update = Update::<_, 2>::new(&view, root);
                let (start, end) = (PAGES[first], PAGES[last] + PAGE_BYTES);
                let result = withdraw.map_or(Ok(()), |it| update.protect(start, end, it));
                update.flush();
                if result.is_ok() {
                    for page in program.pages[first..=last].iter_mut().flatten() {
                        page.protection = protection;
                    }
                }
                update.release();
            }
            Op::Move { program: number, page, to, len_bytes } => {
                let Some(moves) = moves(program, page, to, len_bytes) else { return true };
                // Meanwhile they may be seen at either place.
                if let Some(program) = &mut self.programs.borrow_mut()[number] {
                    moves.iter().for_each(|&(page, to)| program.pages[to] = program.pages[page]);
                }
                let mut update = Update::<_, 2>::new(&view, root);
                let result = update.move_pages(PAGES[page], PAGES[to], len_bytes);
                update.flush();
                if result.is_ok() {
                    for (page, to) in moves {
                        program.pages[to] = program.pages[page].take();
                    }
                }
                update.release();
            }
            Op::Idle { .. } | Op::Run { .. } | Op::Scarce { .. } => unreachable!(),
        }
        true
    }

    /// Loads a program's space, whoever changes it. No lock is held over a switch.
    fn load(&self, cpu: usize, number: usize) {
        let space = || self.programs.borrow()[number].as_ref().map(|it| it.space);
        let Some(chosen) = space() else { return };
        let early = self.machine.generation(chosen);
        self.meanwhile();
        if space() == Some(chosen) {
            self.machine.load(cpu, chosen, early);
        }
    }

    fn fault(&self, view: &View<'_>, page: usize, access: Access, protection: Protection) -> bool {
        let mut update = Update::<_>::new(view, view.space.root);
        let content = || self.content(view, page);
        let result = update.fault(PAGES[page], access, protection, content);
        update.flush();
        update.release();
        result.is_ok()
    }

    fn write(&self, view: &View<'_>, cpu: usize, program: &mut Program, page: usize, word: u64) {
        let Some(expected) = &mut program.pages[page] else { return };
        let cached = self.machine.cpus.borrow()[cpu]
            .translations()
            .iter()
            .find(|it| it.0 == PAGES[page] && it.2)
            .map(|it| it.1);
        let frame = match cached {
            Some(frame) => frame,
            None => {
                if !self.fault(view, page, Access::Write, expected.protection) {
                    return;
                }
                let at = accessible(view, view.space.root, PAGES[page], Access::Write);
                Pfn::containing(at.expect("a write fault makes the page writable"))
            }
        };
        self.machine.word(frame).store(word, Relaxed);
        match kind(page) {
            Kind::Shared => self.shared_words[page].set(word),
            Kind::Anonymous | Kind::Pinned | Kind::Counted => expected.word = word,
        }
    }

    fn fork(&self, view: &View<'_>, program: &mut Program, child: usize) {
        if self.programs.borrow()[child].is_some() || self.is_locked[child].replace(true) {
            return;
        }
        if let Some(root) = self.machine.alloc(0) {
            let mut update = Update::<_>::new(view, view.space.root);
            update.fork_to(root);
            update.flush();
            update.release();
            let copy = Program { space: self.machine.space(root), ..program.clone() };
            self.programs.borrow_mut()[child] = Some(copy);
        }
        self.is_locked[child].set(false);
    }

    /// Whatever a CPU may see is what its program should see, and whatever it may write is that
    /// program's own.
    fn check(&self) {
        let programs = self.programs.borrow();
        // Frames of private pages, by who leads to them.
        let mut owners: BTreeMap<Pfn, BTreeSet<usize>> = BTreeMap::new();
        for (number, program) in programs.iter().enumerate() {
            let Some(program) = program else { continue };
            let view = View { machine: &self.machine, space: program.space, meanwhile: &|| {} };
            for page in PAGES {
                if let Some(at) = accessible(&view, program.space.root, page, Access::Read) {
                    owners.entry(Pfn::containing(at)).or_default().insert(number);
                }
            }
        }
        for cpu in self.machine.cpus.borrow().iter() {
            let Some(root) = cpu.root else { continue };
            let running =
                programs.iter().position(|it| it.as_ref().is_some_and(|it| it.space.root == root));
            // A child whose fork has not returned yet runs nowhere.
            let number = running.expect("a CPU has the root of no program loaded");
            let program = programs[number].as_ref().unwrap();
            for &(address, frame, is_writable) in cpu.translations() {
                let page = PAGES.iter().position(|&it| it == address).unwrap();
                let expected = program.pages[page].expect("a CPU sees an unmapped page");
                assert!(self.machine.is_in_use(frame), "a CPU sees a freed page");
                assert!(expected.protection.readable(), "a CPU sees a page that is not readable");
                let word = self.machine.word(frame).load(Relaxed);
                let expected_word = self.word(page, &expected);
                assert_eq!(word, expected_word, "a CPU sees something else at {address:#x}");
                if is_writable {
                    assert!(expected.protection.writable(), "a CPU may write a read-only page");
                    let others =
                        owners.get(&frame).is_some_and(|it| it.iter().any(|&it| it != number));
                    assert!(
                        kind(page) == Kind::Shared || !others,
                        "a CPU may write to others' page"
                    );
                    let fixed = [self.machine.zero, self.pinned, self.counted];
                    assert!(!fixed.contains(&frame), "a CPU may write to a file's page");
                }
            }
        }
    }

    /// Ends all programs. No frame is left over.
    fn end(self) {
        self.pending.borrow_mut().clear();
        self.machine.left.set(u32::MAX);
        (0..PROGRAMS).for_each(|program| self.run(&Op::Exit { program }));
        let meanwhile = || {};
        let space = self.machine.space(Pfn(0));
        let view = View { machine: &self.machine, space, meanwhile: &meanwhile };
        for frame in self.object.borrow().values() {
            use super::tables::Memory;
            assert_eq!(
                view.meta(*frame).drop_reference(),
                Put::Last,
                "a shared page is referenced"
            );
            self.machine.free(*frame);
        }
        assert_eq!(self.machine.free_frames(), self.at_start, "frames are left over");
    }
}

fn op() -> impl Strategy<Value = Op> {
    let program = || 0..PROGRAMS;
    let page = || 0..PAGES.len();
    let cpu = || 0..CPUS;
    let range = || (page(), page()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    // Places that tables of anonymous pages can move from and to.
    let aligned = || prop_oneof![Just(5usize), Just(9), Just(11)];
    let len_bytes = || prop_oneof![Just(2 * MIB), Just(GIB)];
    let protection =
        prop_oneof![Just(Protection::NONE), Just(Protection::READ), Just(Protection::READ_WRITE),];
    prop_oneof![
        12 => (cpu(), program(), page(), 1..1000u64)
            .prop_map(|(cpu, program, page, word)| Op::Write { cpu, program, page, word }),
        4 => (cpu(), program(), page()).prop_map(|(cpu, program, page)| Op::Read { cpu, program, page }),
        6 => (program(), program()).prop_map(|(program, child)| Op::Fork { program, child }),
        1 => program().prop_map(|program| Op::Exit { program }),
        4 => (cpu(), program()).prop_map(|(cpu, program)| Op::Run { cpu, program }),
        1 => cpu().prop_map(|cpu| Op::Idle { cpu }),
        2 => (program(), range())
            .prop_map(|(program, (first, last))| Op::Unmap { program, first, last }),
        4 => (program(), page()).prop_map(|(program, page)| Op::Map { program, page }),
        3 => (program(), range(), protection).prop_map(|(program, (first, last), protection)| {
            Op::Protect { program, first, last, protection }
        }),
        3 => (program(), page(), page())
            .prop_map(|(program, page, to)| Op::Move { program, page, to, len_bytes: PAGE_BYTES }),
        4 => (program(), aligned(), aligned(), len_bytes())
            .prop_map(|(program, page, to, len_bytes)| Op::Move { program, page, to, len_bytes }),
        1 => prop_oneof![0..6u32, Just(u32::MAX), Just(u32::MAX)]
            .prop_map(|frames| Op::Scarce { frames }),
    ]
}

fn config() -> Config {
    Config {
        cases: if cfg!(miri) { 2 } else { 400 },
        failure_persistence: None,
        ..Config::default()
    }
}

/// How often CPUs look around, whether they have PCIDs, what is done, and what others do meanwhile.
type Case = (u32, bool, Vec<Op>, Vec<Op>);

fn case() -> impl Strategy<Value = Case> {
    let len = |len: usize| 0..if cfg!(miri) { 8 } else { len };
    let ops = prop::collection::vec(op(), len(80));
    // Switches above all: they are what a flush races with.
    let run = (0..CPUS, 0..PROGRAMS).prop_map(|(cpu, program)| Op::Run { cpu, program });
    let meanwhile = prop::collection::vec(prop_oneof![op(), run], len(120));
    (1..9u32, any::<bool>(), ops, meanwhile)
}

fn run(omit: Omit, (curiosity, has_pcids, ops, meanwhile): Case) {
    let world = World::new(curiosity, has_pcids, omit);
    *world.pending.borrow_mut() = meanwhile;
    ops.iter().for_each(|op| world.run(op));
    world.end();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn programs_have_their_memory_whatever_is_cached(case in case()) {
        run(Omit::Nothing, case);
    }
}

/// The model's own: what another program writes to a shared page just before a write that is refused
/// is what all see.
#[test]
fn a_refused_write_hides_no_other() {
    let world = World::new(1, false, Omit::Nothing);
    let page = 8;
    let write = |program, word| Op::Write { cpu: program, program, page, word };
    let protection = Protection::READ;
    world.run(&write(0, 1));
    world.run(&Op::Fork { program: 0, child: 1 });
    world.run(&Op::Protect { program: 0, first: page, last: page, protection });
    *world.pending.borrow_mut() = vec![write(1, 2)];
    world.run(&write(0, 3));
    assert_eq!(world.shared_words[page].get(), 2);
    world.end();
}

/// A kernel that flushes less is found out, and one that trusts what a PCID has from before.
#[test]
#[cfg_attr(miri, ignore = "many cases")]
fn every_flush_is_needed() {
    let flushes = [Omit::Pages, Omit::Structures, Omit::All, Omit::OtherCpus];
    let generations = [Omit::Generation, Omit::GenerationFirst, Omit::ReadLast, Omit::Stale];
    let names = [Omit::Recycled, Omit::Identity];
    for omit in [&flushes[..], &generations, &names].concat() {
        // Found soon or late; the case need not be a small one.
        let config = Config { cases: 4_000, max_shrink_iters: 0, ..config() };
        let algorithm = config.rng_algorithm;
        let rng = TestRng::deterministic_rng(algorithm);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let quiet = std::panic::take_hook();
        std::panic::set_hook(std::boxed::Box::new(|_| {}));
        let result = runner.run(&case(), |case| {
            run(omit, case);
            Ok(())
        });
        std::panic::set_hook(quiet);
        assert!(matches!(result, Err(TestError::Fail(..))), "nobody misses {omit:?}");
    }
}

/// A table in all parts of which something is mapped is copied into a frame with anything in it.
#[test]
fn nothing_shows_through_a_copied_table() {
    let machine = Machine::new(std::vec![], 1, false, Omit::Nothing);
    let at_start = machine.free_frames();
    let roots = [machine.alloc(0).unwrap(), machine.alloc(0).unwrap()];
    let meanwhile = || {};
    let views = roots.map(|root| View {
        machine: &machine,
        space: machine.space(root),
        meanwhile: &meanwhile,
    });
    let address = |index: u64| 16 * MIB + index * PAGE_BYTES;
    let write = |view: &View<'_>, address| {
        let mut update = Update::<_>::new(view, view.space.root);
        let content = || Ok::<_, OutOfMemory>(Content::Zero);
        update.fault(address, Access::Write, Protection::READ_WRITE, content).unwrap();
        update.flush();
        update.release();
    };
    let mapped = |view: &View<'_>| -> Vec<u64> {
        let is_mapped = |index: &u64| {
            accessible(view, view.space.root, address(*index), Access::Read).is_some()
        };
        (0..512).filter(is_mapped).collect()
    };
    (0..64).for_each(|group| write(&views[0], address(group * 8)));
    let mut update = Update::<_>::new(&views[0], roots[0]);
    update.fork_to(roots[1]);
    update.flush();
    update.release();
    write(&views[1], address(8));
    for view in &views {
        assert_eq!(mapped(view), (0..64).map(|group| group * 8).collect::<Vec<_>>());
        release_window(view, view.space.root);
        machine.free(view.space.root);
    }
    assert_eq!(machine.free_frames(), at_start);
}
