//! Streams without a kernel, for the tests and benchmarks of everything that reads them.
//!
//! [`Stream`] packs records as a kernel does, with its counters, and remembers what it sent.
//! Statements are numbered by their place in the list that it is given.

use std::collections::BTreeMap;

use orrery_core::trace::{
    compact,
    wire::{self, Encoding, HELLO_NONCE, Header, Kind, VERSION},
};

use crate::{
    Error, Schema,
    schema::{EventStatement, LogStatement, Statement},
};

/// Build id of every synthetic stream.
pub const BUILD_ID: &str = "00112233445566778899aabbccddeeff00112233";
/// Seed of its packets' CRCs.
pub const NONCE: u32 = 0x1234_5678;
/// Ticks in its second.
pub const TICK_HZ: u64 = 1_000_000_000;

/// The statements that most tests need; the number of each is its place.
pub const STATEMENTS: [&str; 14] = [
    "sched:sched_switch next={=u32} prev_state={=u8} seq={=u8}",
    "wake:sched_wakeup pid={=u32} target={=u8} seq={=u8}",
    "sched:sched_migrate pid={=u32} from={=u8} to={=u8} seq={=u8} reason={=u8}",
    "task:task_new pid={=u32} parent={=u32}",
    "task:task_attr pid={=u32} class={=u8} priority={=u8} nice={=i8} affinity={=u64} name={=str}",
    "task:task_exit pid={=u32} code={=i32}",
    "mark:mark value={=u64} text={=str}",
    "log:log frame={=[u8]}",
    "irq:irq_enter vector={=u8}",
    "irq:ipi_send target={=u8} kind={=u8}",
    "custom:unheard_of flag={=bool} depth={=i16}",
    "wake:sched_enqueue pid={=u32} queued={=u16} seq={=u8}",
    "latency:preempt_off ticks={=u32} site={=u64}",
    "latency:irq_off ticks={=u32} site={=u64}",
];

/// A schema of these statements, with one log line `info` "hello {=u8}" after the last.
///
/// # Errors
/// [`Error::Schema`] where one is not the statement of an event.
pub fn schema(statements: &[&str]) -> Result<Schema, Error> {
    let mut events = Vec::new();
    for (text, index) in statements.iter().zip(0..) {
        let Statement { category, name, fields } = Statement::parse(text)
            .ok_or_else(|| Error::Schema(format!("`{text}` is not the statement of an event")))?;
        events.push(EventStatement { index, category, name, fields });
    }
    let log = LogStatement {
        index: statements.len() as u16,
        tag: "info".to_owned(),
        format: "hello {=u8}".to_owned(),
    };
    Schema::new(BUILD_ID.to_owned(), events, vec![log], None)
}

/// The fields of a record, as defmt encodes them.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    /// No fields yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an integer's little-endian bytes.
    #[must_use]
    pub fn int<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Appends a `str` or `[u8]`.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.0.extend(bytes);
        self
    }
}

/// A block under construction.
#[derive(Clone, Debug)]
pub struct Block {
    cpu: u16,
    base_ticks: u64,
    running_pid: u32,
    records: u32,
    payload: Vec<u8>,
}

impl Block {
    /// An empty block of this CPU.
    pub fn new(cpu: u16, base_ticks: u64, running_pid: u32) -> Self {
        Self { cpu, base_ticks, running_pid, records: 0, payload: Vec::new() }
    }

    /// Appends a record.
    pub fn record(&mut self, index: u16, offset_ticks: u32, fields: &Fields) {
        self.payload.extend(index.to_le_bytes());
        self.payload.extend(offset_ticks.to_le_bytes());
        self.payload.extend(&fields.0);
        self.records += 1;
    }
}

/// A stream under construction.
#[derive(Clone, Debug)]
pub struct Stream {
    /// How payloads of blocks are encoded from now on.
    pub encoding: Encoding,
    /// Command line that hello packets carry.
    pub cmdline: String,
    packets: Vec<Vec<u8>>,
    /// Records kept and dropped, per CPU.
    totals: BTreeMap<u16, (u64, u64)>,
    cpus: u32,
}

impl Stream {
    /// An empty stream of a machine with `cpus` CPUs.
    pub fn new(cpus: u32, encoding: Encoding) -> Self {
        Self {
            encoding,
            cmdline: "workload=synthetic".to_owned(),
            packets: Vec::new(),
            totals: BTreeMap::new(),
            cpus,
        }
    }

    /// The packets so far, in the order of their numbers.
    pub fn packets(&self) -> &[Vec<u8>] {
        &self.packets
    }

    /// The stream so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.packets.concat()
    }

    /// Sends a hello packet.
    pub fn hello(&mut self) {
        let payload = format!(
            "version={VERSION}\nbuild_id={BUILD_ID}\nnonce={NONCE}\ntick_hz={TICK_HZ}\n\
             cpus={}\nmode=stream\ncmdline={}\n",
            self.cpus, self.cmdline
        );
        self.packet(self.header(Kind::Hello, 0), HELLO_NONCE, payload.as_bytes());
    }

    /// Sends a block.
    pub fn block(&mut self, block: &Block) {
        let (kept, dropped) = self.totals.entry(block.cpu).or_default();
        let (first_record, dropped) = (*kept, *dropped);
        *kept += u64::from(block.records);
        let header = Header {
            cpu: block.cpu,
            base_ticks: block.base_ticks,
            first_record,
            dropped,
            running_pid: block.running_pid,
            records: block.records,
            encoding: self.encoding,
            ..self.header(Kind::Events, 0)
        };
        self.packet(header, NONCE, &block.payload);
    }

    /// Drops records of a CPU for want of room.
    pub fn drop_records(&mut self, cpu: u16, count: u64) {
        self.totals.entry(cpu).or_default().1 += count;
    }

    /// Sends console text.
    pub fn console(&mut self, time_ticks: u64, text: &[u8]) {
        self.packet(self.header(Kind::Console, time_ticks), NONCE, text);
    }

    /// Sends what a program wrote.
    pub fn output(&mut self, time_ticks: u64, stream: wire::Stream, bytes: &[u8]) {
        let payload = [&[stream as u8], bytes].concat();
        self.packet(self.header(Kind::Output, time_ticks), NONCE, &payload);
    }

    /// Sends a panic packet with these lines.
    pub fn panic(&mut self, lines: &str) {
        self.packet(self.header(Kind::Panic, 0), NONCE, lines.as_bytes());
    }

    /// Sends the end packet.
    pub fn end(&mut self, status: u32) {
        let mut payload = format!("status={status}\n");
        for (cpu, (kept, dropped)) in &self.totals {
            payload += &format!("cpu={cpu} produced={} dropped={dropped}\n", kept + dropped);
        }
        self.packet(self.header(Kind::End, 0), NONCE, payload.as_bytes());
    }

    fn header(&self, kind: Kind, base_ticks: u64) -> Header {
        Header {
            kind,
            encoding: Encoding::Raw,
            cpu: 0,
            seq: self.packets.len() as u32,
            wire_len: 0,
            raw_len: 0,
            base_ticks,
            first_record: 0,
            dropped: 0,
            running_pid: 0,
            records: 0,
        }
    }

    fn packet(&mut self, mut header: Header, nonce: u32, payload: &[u8]) {
        header.raw_len = payload.len() as u32;
        let mut wire = payload.to_vec();
        if header.encoding == Encoding::Compact {
            wire.resize(compact::max_len(payload.len()), 0);
            let len = compact::encode(payload, &mut wire).unwrap_or(0);
            wire.truncate(len);
        }
        header.wire_len = wire.len() as u32;
        let mut packet = header.encode(nonce, &wire).to_vec();
        packet.extend(wire);
        self.packets.push(packet);
    }
}
