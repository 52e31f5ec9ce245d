//! A memory management unit that caches whatever it may (tests).
//!
//! Each CPU keeps every translation and every paging-structure entry it has seen since they were
//! flushed, and looks at everything again and again while the kernel is at work: walks start at the
//! root and at any table that is cached, however old (SDM vol. 3, 4.10). What no such CPU can see
//! through, none can.
//!
//! CPUs that tag what they cache with PCIDs keep it while another address space is loaded, and use it
//! again if the load does not flush. They have two PCIDs, so that these are used again soon.

use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering::Relaxed;
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::entry::{Entry, Table};
use super::pcid::Pcids;
use super::tables::{Contents, Memory, Stale};
use super::{ROOT_LEVEL, entry_index, entry_shift};
use crate::frames::{FrameMeta, FrameTable, Frames, Pfn};

pub const FRAMES: usize = 256;
pub const CPUS: usize = 3;
const PCIDS: usize = 2;

/// What a mutated kernel forgets to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    Nothing,
    /// Flushes of single pages.
    Pages,
    /// That those flush the paging structures, too.
    Structures,
    /// Flushes of everything.
    All,
    /// Flushes on other CPUs than the first.
    OtherCpus,
    /// That a flush advances the generation, for CPUs with PCIDs.
    Generation,
    /// That it does so before it looks which CPUs have the space loaded.
    GenerationFirst,
    /// That a load reads the generation after the CPU counts as one that has the space loaded.
    ReadLast,
    /// That a load flushes when the generation is not the one that the CPU has noted.
    Stale,
    /// That it flushes a PCID that was another space's.
    Recycled,
    /// That the frame of a root is not what a space is known by.
    Identity,
}

/// A cached table: it is reached by addresses with this prefix, at this level.
type Structure = (u8, u64, Pfn, bool);
/// A cached translation: page address, frame, and whether it may be written.
pub type Translation = (u64, Pfn, bool);

/// What is cached under one PCID.
#[derive(Default)]
struct Cache {
    /// Whose it is.
    space: u64,
    structures: BTreeSet<Structure>,
    translations: BTreeSet<Translation>,
}

impl Cache {
    fn flush(&mut self, pages: Stale<'_>, omit: Omit) {
        match pages {
            Stale::Pages(_) if omit == Omit::Pages => {}
            Stale::Pages(pages) => {
                self.translations.retain(|(page, ..)| !pages.contains(page));
                if omit != Omit::Structures {
                    self.structures.clear();
                }
            }
            Stale::All if omit == Omit::All => {}
            Stale::All => *self = Self { space: self.space, ..Self::default() },
        }
    }
}

#[derive(Default)]
pub struct Cpu {
    pub root: Option<Pfn>,
    pcid: usize,
    pcids: Pcids<PCIDS>,
    caches: [Cache; PCIDS + 1],
}

impl Cpu {
    /// Loads the kernel's own tables.
    pub fn unload(&mut self) {
        (self.root, self.pcid) = (None, 0);
        self.caches[0] = Cache::default();
    }

    /// What it may use.
    pub fn translations(&self) -> &BTreeSet<Translation> {
        &self.caches[self.pcid].translations
    }
}

/// An address space, as CPUs know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    pub root: Pfn,
    /// Its number, from 1 on, which no other has had.
    pub id: u64,
}

pub struct Machine {
    memory: Vec<Box<Table>>,
    frames: RefCell<Frames<'static>>,
    table: FrameTable<'static>,
    in_use: RefCell<Vec<bool>>,
    pub cpus: RefCell<[Cpu; CPUS]>,
    pub watched: Vec<u64>,
    pub zero: Pfn,
    /// How many more frames there are to have.
    pub left: Cell<u32>,
    /// The CPUs look around at each so many accesses of the kernel.
    pub curiosity: u32,
    accesses: Cell<u32>,
    /// Whether the CPUs have PCIDs.
    has_pcids: bool,
    spaces: Cell<u64>,
    generations: RefCell<BTreeMap<u64, u64>>,
    pub omit: Omit,
}

impl Machine {
    pub fn new(watched: Vec<u64>, curiosity: u32, has_pcids: bool, omit: Omit) -> Self {
        let meta: Vec<FrameMeta> = (0..FRAMES).map(|_| FrameMeta::new()).collect();
        let mut frames = Frames::new(Vec::leak(meta), Pfn(0));
        frames.add_free_range(Pfn(0), Pfn(FRAMES as u64)).unwrap();
        let blank = || Box::new([const { core::sync::atomic::AtomicU64::new(0) }; 512]);
        let mut machine = Self {
            memory: (0..FRAMES).map(|_| blank()).collect(),
            table: frames.table(),
            frames: RefCell::new(frames),
            in_use: RefCell::new(std::vec![false; FRAMES]),
            cpus: RefCell::default(),
            watched,
            zero: Pfn(0),
            left: Cell::new(u32::MAX),
            curiosity,
            accesses: Cell::new(0),
            has_pcids,
            spaces: Cell::new(0),
            generations: RefCell::default(),
            omit,
        };
        machine.zero = machine.alloc(0).unwrap();
        machine
    }

    pub fn alloc(&self, contents: u64) -> Option<Pfn> {
        self.left.set(self.left.get().checked_sub(1)?);
        let frame = self.frames.borrow_mut().alloc(0)?;
        self.in_use.borrow_mut()[frame.0 as usize] = true;
        self.memory[frame.0 as usize].iter().for_each(|word| word.store(contents, Relaxed));
        Some(frame)
    }

    pub fn free(&self, frame: Pfn) {
        self.in_use.borrow_mut()[frame.0 as usize] = false;
        self.frames.borrow_mut().free(frame, 0).unwrap();
        self.memory[frame.0 as usize].iter().for_each(|word| word.store(0xDEAD_0000, Relaxed));
    }

    pub fn is_in_use(&self, frame: Pfn) -> bool {
        self.in_use.borrow()[frame.0 as usize]
    }

    pub fn free_frames(&self) -> u64 {
        self.frames.borrow().free_frames()
    }

    /// The one word of a page that counts.
    pub fn word(&self, page: Pfn) -> &core::sync::atomic::AtomicU64 {
        &self.memory[page.0 as usize][7]
    }

    fn entry(&self, table: Pfn, level: u8, address: u64) -> Entry {
        Entry(self.memory[table.0 as usize][entry_index(level, address)].load(Relaxed))
    }

    /// A new address space with this root.
    pub fn space(&self, root: Pfn) -> Space {
        self.spaces.set(self.spaces.get() + 1);
        Space { root, id: self.spaces.get() }
    }

    /// How many flushes the space has seen.
    pub fn generation(&self, space: Space) -> u64 {
        self.generations.borrow().get(&space.id).copied().unwrap_or(0)
    }

    /// Loads an address space whose generation was `early` a moment ago.
    pub fn load(&self, cpu: usize, space: Space, early: u64) {
        let cpu = &mut self.cpus.borrow_mut()[cpu];
        if cpu.root == Some(space.root) {
            return;
        }
        // From here on others know that it is loaded.
        cpu.root = Some(space.root);
        if !self.has_pcids {
            cpu.caches[0] = Cache::default();
            return;
        }
        let generation = match self.omit {
            Omit::ReadLast => early,
            Omit::Stale => 0,
            _ => self.generation(space),
        };
        let id = if self.omit == Omit::Identity { space.root.0 } else { space.id };
        let choice = cpu.pcids.choose(id, generation);
        cpu.pcid = choice.pcid.into();
        let cache = &mut cpu.caches[cpu.pcid];
        if !choice.keep && (self.omit != Omit::Recycled || cache.space == id) {
            cache.flush(Stale::All, Omit::Nothing);
        }
        cache.space = id;
    }

    /// Which CPUs have the space loaded.
    fn mask(&self, root: Pfn) -> [bool; CPUS] {
        self.cpus.borrow().each_ref().map(|cpu| cpu.root == Some(root))
    }

    /// All CPUs cache all they can.
    pub fn look_around(&self) {
        for cpu in self.cpus.borrow_mut().iter_mut() {
            let Some(root) = cpu.root else { continue };
            let cache = &mut cpu.caches[cpu.pcid];
            for &page in &self.watched {
                let mut tables = BTreeSet::from([(root, true)]);
                for level in (1..=ROOT_LEVEL).rev() {
                    let mut below = BTreeSet::new();
                    for (table, writable) in tables {
                        assert!(self.is_in_use(table), "a CPU walks a freed table");
                        let entry = self.entry(table, level, page);
                        if !entry.has(Entry::PRESENT) {
                            continue;
                        }
                        let writable = writable && entry.has(Entry::WRITABLE);
                        if level == 1 {
                            cache.translations.insert((page, entry.pfn(), writable));
                        } else {
                            below.insert((entry.pfn(), writable));
                        }
                    }
                    if level == 1 {
                        break;
                    }
                    let prefix = page >> entry_shift(level);
                    for &(table, writable) in &below {
                        cache.structures.insert((level, prefix, table, writable));
                    }
                    let cached =
                        cache.structures.iter().filter(|it| (it.0, it.1) == (level, prefix));
                    below.extend(cached.map(|it| (it.2, it.3)));
                    tables = below;
                }
            }
        }
    }
}

/// One address space's view of the machine.
pub struct View<'m> {
    pub machine: &'m Machine,
    pub space: Space,
    /// What others do while this waits for a flush.
    pub meanwhile: &'m dyn Fn(),
}

impl Memory for View<'_> {
    fn alloc_table(&self, _level: u8, contents: Contents) -> Option<Pfn> {
        self.machine.alloc(if contents == Contents::Zeroed { 0 } else { 0xBAD })
    }

    fn free_table(&self, table: Pfn) {
        let words = &self.machine.memory[table.0 as usize];
        assert!(words.iter().all(|word| word.load(Relaxed) == 0), "a freed table is not empty");
        self.machine.free(table);
    }

    fn alloc_page(&self) -> Option<Pfn> {
        self.machine.alloc(0xBAD)
    }

    fn alloc_zeroed_page(&self) -> Option<Pfn> {
        self.machine.alloc(0)
    }

    fn free_page(&self, page: Pfn) {
        self.machine.free(page);
    }

    fn table(&self, table: Pfn) -> &Table {
        assert!(self.machine.is_in_use(table), "the kernel uses a freed table");
        let accesses = self.machine.accesses.get() + 1;
        self.machine.accesses.set(accesses);
        if accesses.is_multiple_of(self.machine.curiosity) {
            self.machine.look_around();
        }
        &self.machine.memory[table.0 as usize]
    }

    fn meta(&self, frame: Pfn) -> &FrameMeta {
        assert!(self.machine.is_in_use(frame), "the kernel uses a freed frame");
        self.machine.table.entry(frame).unwrap()
    }

    fn metas<'m>(&'m self) -> impl Fn(u64) -> &'m FrameMeta {
        |physical| self.meta(Pfn::containing(physical))
    }

    fn zero_page(&self) -> u64 {
        self.machine.zero.start_address()
    }

    fn copy_page(&self, from: u64, to: Pfn) {
        let value = self.machine.word(Pfn::containing(from)).load(Relaxed);
        self.machine.word(to).store(value, Relaxed);
    }

    fn pause(&self) {
        (self.meanwhile)();
        self.machine.look_around();
    }

    fn flush(&self, pages: Stale<'_>) {
        let Self { machine, space, .. } = *self;
        let omit = machine.omit;
        let advance = || {
            if omit != Omit::Generation {
                *machine.generations.borrow_mut().entry(space.id).or_default() += 1;
            }
        };
        let others_go_on = || {
            (self.meanwhile)();
            machine.look_around();
        };
        others_go_on();
        if omit != Omit::GenerationFirst {
            advance();
            others_go_on();
        }
        let mask = machine.mask(space.root);
        others_go_on();
        if omit == Omit::GenerationFirst {
            advance();
        }
        for (number, cpu) in machine.cpus.borrow_mut().iter_mut().enumerate() {
            if mask[number] && cpu.root == Some(space.root) {
                if number == 0 || omit != Omit::OtherCpus {
                    cpu.caches[cpu.pcid].flush(pages, omit);
                }
                if machine.has_pcids {
                    cpu.pcids.flushed(machine.generation(space));
                }
            }
        }
        others_go_on();
    }
}
