//! `execve`: the running process becomes another program.
//!
//! Everything that can fail is done first, beside the old program: the file is read and planned, the new
//! address space is made. Then the other threads are doomed, and once the process has one thread left, it
//! takes the new address space and begins. What fails after that ends the process.
//!
//! The process's number is its leader's. Where another thread calls `execve`, the leader takes the
//! new program over ([`Handover`]) and the caller goes like the rest.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as abi;
use orrery_core::cpuset::CpuSet;
use orrery_core::errno::Errno;
use orrery_core::exec::elf::{HEADER_BYTES, Header, Plan, Segment};
use orrery_core::exec::stack::{self, Facts, Stack};
use orrery_core::sched::{Nice, Policy};

use super::group::{Process, Program, State};
use super::thread::{self, Comm, Thread};
use super::wait::Status;
use super::{attribute, clone, current, exit, futex, maker, signal, tree};
use crate::arch::{features, user};
use crate::fs::{Executable, Files, FsContext};
use crate::mm::space::{AreaFlags, Backing, MapRequest, Placement, Protection, Space};
use crate::sched::task::label;
use crate::sched::{self, Task, balance};
use crate::trace::events;
use crate::{mm, options, time};

/// Where static position-independent programs are put.
const RELOCATED_BASE: u64 = 0x5555_5555_4000;
/// The end of the stack.
const STACK_TOP: u64 = user::WINDOW_END - 4096;
/// Bytes of the stack that are mapped at once; it grows from there.
const STACK_BYTES: u64 = 132 << 10;
/// Pages by which the parts of a program are moved at random.
const RANDOM_PAGES: u64 = 1 << 20;
/// Interpreters of interpreters that are followed.
const MAX_INTERPRETERS: usize = 4;
/// Bytes of a script's first line that count.
const SCRIPT_LINE_BYTES: usize = 256;
const PAGE: u64 = 4096;

/// The interpreter of a script, and its argument.
type Interpreter = (Vec<u8>, Option<Vec<u8>>);

/// A program that is ready to begin.
pub struct Image {
    space: Arc<Space>,
    entry: u64,
    stack: Stack,
    /// Bytes to be zeroed: the rest of the last page that a segment has in the file.
    tails: Vec<(u64, usize)>,
    comm: Comm,
    program: Arc<Program>,
}

/// A program that goes on in the leader's task, with what the thread that asked for it had.
pub struct Handover {
    image: Image,
    files: Arc<Files>,
    fs: Arc<FsContext>,
    signals: signal::Carried,
    scheduling: Scheduling,
}

/// How a thread is scheduled.
struct Scheduling {
    policy: Policy,
    nice: Nice,
    labels: u8,
    allowed: CpuSet,
    timer_slack_nanos: u64,
}

impl Scheduling {
    /// What programs set, of [`label`].
    const LABELS: [u8; 2] = [label::BATCH, label::RESET_ON_FORK];

    /// That of the running thread.
    fn of(thread: &Thread) -> Self {
        let task = sched::current();
        Self {
            policy: task.policy_relaxed(),
            nice: task.nice(),
            labels: Self::LABELS.into_iter().filter(|&label| task.has_label(label)).sum(),
            allowed: task.allowed(),
            timer_slack_nanos: thread.timer_slack.get(),
        }
    }

    /// The running thread is scheduled like this from now on.
    fn adopt(&self, thread: &Thread) {
        let task = sched::current();
        balance::set_nice(task, self.nice);
        balance::set_policy(task, self.policy);
        task.label(Self::LABELS.into_iter().sum(), self.labels);
        // One of them is there: the other thread has run on it.
        let _ = balance::set_affinity(task, self.allowed);
        thread.timer_slack.set(Some(self.timer_slack_nanos));
    }
}

/// Replaces the running process's program. On success it does not return, so the caller holds nothing that
/// wants to be dropped.
///
/// # Errors
/// [`Errno::RESTART_SYS`] if the process ends, or becomes another program, at the same time: the thread
/// then goes at its return.
pub fn become_program(image: Image) -> Result<core::convert::Infallible, Errno> {
    let thread = current();
    match claim(thread, image)? {
        Some(image) => {
            exit::wait_until_alone(&thread.process);
            begin(thread, image)
        }
        None => exit::exit_thread(),
    }
}

/// Dooms all threads but the one that goes on with the program. Gives the image back to a leader; takes it to
/// the leader for any other thread, which then has to go like the rest.
fn claim(thread: &Thread, image: Image) -> Result<Option<Image>, Errno> {
    let process = &thread.process;
    let me = sched::current();
    let mut tree = tree::lock();
    let family = process.family.get_mut(&mut tree);
    if family.state != State::Running || thread.is_doomed() {
        return Err(Errno::RESTART_SYS);
    }
    // What made it a "clone child" was between the old program and its maker.
    family.exit_signal = abi::SIGCHLD as u8;
    let family = process.family.get(&tree);
    let leader = family.leader.as_ref().map(|leader| leader.task().clone());
    let is_leader =
        |task: &Task| leader.as_ref().is_some_and(|it| core::ptr::eq(Arc::as_ptr(it), task));
    if is_leader(me) {
        thread::doom(process, &tree, is_leader);
        return Ok(Some(image));
    }
    let handover = Handover {
        image,
        files: thread.files(),
        fs: thread.fs(),
        signals: signal::carry(thread),
        scheduling: Scheduling::of(thread),
    };
    *process.handover.lock() = Some(Box::new(handover));
    thread::doom(process, &tree, is_leader);
    if let Some(leader) = &leader {
        maker::take_the_leader_s_place(thread, me, leader, &mut tree);
        thread::call_away(leader);
    }
    drop(tree);
    process.threads_changed.wake_all();
    Ok(None)
}

/// Goes on with a program that another thread has handed over, if there is one and the running thread is the leader.
pub(super) fn adopt_handover() {
    let thread = current();
    let Some(handover) = take_handover(thread) else { return };
    let Handover { image, files, fs, signals, scheduling } = handover;
    exit::wait_until_alone(&thread.process);
    maker::go_on(thread);
    *thread.files.lock() = Some(files);
    *thread.fs.lock() = Some(fs);
    signal::adopt(thread, signals);
    scheduling.adopt(thread);
    begin(thread, image)
}

/// Out of its box, which would stay behind: who adopts the program never returns.
fn take_handover(thread: &Thread) -> Option<Handover> {
    let process = &thread.process;
    // Any other thread is doomed, but may not have known when it last looked.
    if process.handover.lock().is_none() || !exit::is_leader(thread, sched::current()) {
        return None;
    }
    let handover = process.handover.lock().take()?;
    let is_running = process.family.get(&tree::lock()).state == State::Running;
    is_running.then_some(*handover)
}

/// Takes the new program over. The running thread is alone in its process.
fn begin(thread: &Thread, image: Image) -> ! {
    let Image { space, entry, stack, tails, comm, program } = image;
    // Threads of other processes may share the old memory.
    futex::on_thread_exit(thread);
    let old = thread.replace_space(Some(space));
    drop(old);
    if let Some(done) = thread.vfork_done.lock().take() {
        done.tell();
    }
    let context = thread::context();
    context.fpu.reset();
    context.set_bases(0, 0);
    *thread.comm.lock() = comm;
    let process = &thread.process;
    let old = process.program.lock().replace(program);
    drop(old);
    let kept = process.attributes.load(Ordering::Relaxed) & attribute::KEPT_BY_EXEC;
    process.attributes.store(kept | attribute::DEFAULT, Ordering::Relaxed);
    process.execs.fetch_add(1, Ordering::Relaxed);
    signal::on_exec(thread);
    let files = thread.files.lock().take();
    let files = files.map(Files::close_on_exec);
    *thread.files.lock() = files;
    let is_written = tails.iter().all(|&(at, len)| mm::user::zero(at, len).is_ok())
        && mm::user::write_bytes(stack.pointer, &stack.bytes).is_ok();
    if !is_written {
        // Memory has run out since.
        exit::exit_group(Status::signalled(abi::SIGKILL));
    }
    let task = sched::current();
    events::process_exec(task.pid(), comm.as_str());
    crate::task::trace_attributes_as(task, comm.as_str());
    // SAFETY: this task's own frame, to which it has no other reference.
    unsafe { *context.frame() = user::initial_frame(entry, stack.pointer) };
    drop((tails, stack));
    clone::enter()
}

/// Reads the file and makes the address space.
///
/// # Errors
/// Those of execve(2): `EACCES`, `ENOEXEC`, `E2BIG`, `ENOMEM`, `ELOOP`, and those of an interpreter's path.
pub fn prepare(
    mut file: Executable,
    mut arguments: Vec<Vec<u8>>,
    environment: &[Vec<u8>],
) -> Result<Image, Errno> {
    let thread = current();
    let path = file.path().to_vec();
    let comm = Comm::new(path.rsplit(|&byte| byte == b'/').next().unwrap_or(&path));
    let mut interpreters = 0;
    while let Some((interpreter, argument)) = script_line(&file)? {
        interpreters += 1;
        if interpreters > MAX_INTERPRETERS {
            return Err(Errno::ELOOP);
        }
        let script = file.path().to_vec();
        let first = [interpreter.clone()].into_iter().chain(argument).chain([script]);
        // Two more than there were, at most.
        arguments.try_reserve_exact(2).map_err(|_| Errno::ENOMEM)?;
        let replaced = arguments.len().min(1);
        drop(arguments.splice(..replaced, first));
        file = Executable::open(&thread.fs(), &interpreter)?;
    }
    let file_bytes = file.len_bytes();
    let mut start = [0; HEADER_BYTES];
    let have = file.read_at(0, &mut start)?;
    let refused = |why| {
        // The number says little; the log says why.
        crate::println!("orrery: {}: {why}", alloc::string::String::from_utf8_lossy(&path));
        Errno::ENOEXEC
    };
    let header = Header::parse(&start[..have], file_bytes).map_err(refused)?;
    let mut headers = Vec::new();
    headers.try_reserve_exact(header.headers_bytes()).map_err(|_| Errno::ENOMEM)?;
    headers.resize(header.headers_bytes(), 0);
    file.read_at(header.headers_offset, &mut headers)?;
    let plan = header.plan(&headers, file_bytes).map_err(refused)?;
    map(thread, file, &plan, &arguments, environment, comm, &path)
}

/// The interpreter of a script and the one argument that its line may have; `None` if it is no script.
fn script_line(file: &Executable) -> Result<Option<Interpreter>, Errno> {
    let mut start = [0; SCRIPT_LINE_BYTES];
    let have = file.read_at(0, &mut start)?;
    let Some(line) = start[..have].strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or(line).trim_ascii();
    let mut words = line.splitn(2, |byte| byte.is_ascii_whitespace());
    let interpreter = words.next().filter(|word| !word.is_empty()).ok_or(Errno::ENOEXEC)?;
    let argument = words.next().map(|rest| rest.trim_ascii().to_vec());
    Ok(Some((interpreter.to_vec(), argument)))
}

#[allow(clippy::too_many_arguments)]
fn map(
    thread: &Thread,
    file: Executable,
    plan: &Plan,
    arguments: &[Vec<u8>],
    environment: &[Vec<u8>],
    comm: Comm,
    path: &[u8],
) -> Result<Image, Errno> {
    let limits = **thread.process.limits.lock();
    let space = Space::new()?;
    space.set_limits(limits.of_memory());
    let span = plan.span().ok_or(Errno::ENOEXEC)?;
    let moves = Moves::new(&thread.process);
    let base = match plan.is_relocatable {
        true => RELOCATED_BASE + moves.program * PAGE - span.start,
        false => 0,
    };
    let mut tails = Vec::new();
    for segment in &plan.segments {
        map_segment(&space, &file, segment, base, &mut tails)?;
    }
    space.begin_break(base + span.end + moves.heap * PAGE);
    let top = STACK_TOP - moves.stack * PAGE;
    space.map(&MapRequest {
        hint: top - STACK_BYTES,
        len_bytes: STACK_BYTES,
        protection: Protection::READ_WRITE,
        placement: Placement::FixedNoReplace,
        backing: Backing::Anonymous,
        flags: AreaFlags::STACK,
    })?;
    space.move_map_base(moves.mappings * PAGE);
    let vdso = time::vdso::map(&space)?;
    let facts = Facts {
        headers_address: plan.headers_address.map_or(0, |at| base + at),
        headers_count: plan.headers_count.into(),
        entry: base + plan.entry,
        vdso,
        hardware: features::hardware_word().into(),
        random: random_bytes(),
    };
    // A few words below the top, so that a program that looks above its strings finds its own stack.
    let stack = stack::build(top - 16, arguments, environment, path, &facts)?;
    let program =
        Arc::new(Program { file: file.into_file(), command_line: command_line(arguments) });
    Ok(Image { space, entry: base + plan.entry, stack, tails, comm, program })
}

/// The arguments, each followed by a NUL, as far as they fit into a page.
fn command_line(arguments: &[Vec<u8>]) -> Vec<u8> {
    let bytes = arguments.iter().flat_map(|argument| argument.iter().chain(&[0]));
    bytes.copied().take(PAGE as usize).collect()
}

/// Maps a segment: what is in the file from there, the rest as memory of its own.
fn map_segment(
    space: &Space,
    file: &Executable,
    segment: &Segment,
    base: u64,
    tails: &mut Vec<(u64, usize)>,
) -> Result<(), Errno> {
    let protection = Protection::new(true, segment.is_writable, segment.is_executable);
    let pages = segment.pages();
    let start = segment.address;
    let file_end = start + segment.file_bytes;
    let file_pages_end =
        if segment.file_bytes == 0 { pages.start } else { file_end.next_multiple_of(PAGE) };
    let request = |start: u64, end: u64, backing| MapRequest {
        hint: base + start,
        len_bytes: end - start,
        protection,
        placement: Placement::FixedNoReplace,
        backing,
        flags: AreaFlags::NONE,
    };
    if file_pages_end > pages.start {
        let offset = segment.file_offset / PAGE * PAGE;
        let backing = Backing::Private(file.page_source(), offset);
        space.map(&request(pages.start, file_pages_end, backing))?;
    }
    if pages.end > file_pages_end {
        space.map(&request(file_pages_end, pages.end, Backing::Anonymous))?;
    }
    let has_zeros = segment.memory_bytes > segment.file_bytes;
    let tail = file_pages_end.min(start + segment.memory_bytes).saturating_sub(file_end);
    if segment.is_writable && has_zeros && segment.file_bytes > 0 && tail > 0 {
        // What lies behind the segment in the file must not be seen.
        tails.push((base + file_end, (file_pages_end - file_end) as usize));
    }
    Ok(())
}

/// Where the parts of a program are: by how many pages each is moved.
struct Moves {
    program: u64,
    heap: u64,
    stack: u64,
    mappings: u64,
}

impl Moves {
    /// At random; none where runs are to repeat, or the process has asked for none.
    fn new(process: &Process) -> Self {
        let is_fixed = !options::get().randomise_addresses
            || process.attributes.load(Ordering::Relaxed) & attribute::FIXED_ADDRESSES != 0;
        let pages = || if is_fixed { 0 } else { crate::random::next_u64() % RANDOM_PAGES };
        Self {
            program: pages(),
            heap: pages() % (RANDOM_PAGES >> 8),
            stack: pages(),
            mappings: pages(),
        }
    }
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    crate::random::fill(&mut bytes);
    bytes
}
