//! A small stream with something of everything, and what it holds.

use orrery_core::trace::wire::{Encoding, HELLO_NONCE, Header, Kind};
use trace_tools::{
    Decoder,
    synthetic::{Block, Fields, STATEMENTS, Stream, schema},
};

/// Numbers of the statements in `STATEMENTS`.
pub const SWITCH: u16 = 0;
pub const WAKEUP: u16 = 1;
pub const MIGRATE: u16 = 2;
pub const TASK_NEW: u16 = 3;
pub const TASK_ATTR: u16 = 4;
pub const MARK: u16 = 6;
pub const LOG: u16 = 7;
pub const IRQ_ENTER: u16 = 8;
pub const UNHEARD_OF: u16 = 10;
pub const PREEMPT_OFF: u16 = 12;
pub const IRQ_OFF: u16 = 13;
/// Number of the log line that `schema` adds.
pub const HELLO_LINE: u16 = STATEMENTS.len() as u16;

pub fn decoder() -> Decoder {
    Decoder::new(schema(&STATEMENTS).unwrap()).unwrap()
}

/// A small, fast generator (xorshift64*), so that a hundred thousand cases take seconds.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

pub fn switch(next: u32, prev_state: u8, seq: u8) -> Fields {
    Fields::new().int(next.to_le_bytes()).int([prev_state]).int([seq])
}

pub fn wakeup(pid: u32, target: u8, seq: u8) -> Fields {
    Fields::new().int(pid.to_le_bytes()).int([target]).int([seq])
}

pub fn section(ticks: u32, site: u64) -> Fields {
    Fields::new().int(ticks.to_le_bytes()).int(site.to_le_bytes())
}

pub fn mark(value: u64, text: &str) -> Fields {
    Fields::new().int(value.to_le_bytes()).bytes(text.as_bytes())
}

pub fn attr(pid: u32, name: &str) -> Fields {
    Fields::new()
        .int(pid.to_le_bytes())
        .int([2, 0])
        .int((-5i8).to_le_bytes())
        .int(0xFu64.to_le_bytes())
        .bytes(name.as_bytes())
}

/// Text that holds what looks like a packet: an events packet sealed with the wrong nonce.
fn forgery() -> Vec<u8> {
    let payload = [0u8; 12];
    let header = Header {
        kind: Kind::Events,
        encoding: Encoding::Raw,
        cpu: 0,
        seq: 1000,
        wire_len: 12,
        raw_len: 12,
        base_ticks: 0,
        first_record: 0,
        dropped: 0,
        running_pid: 0,
        records: 1,
    };
    let mut text = b"forged: ".to_vec();
    text.extend(header.encode(HELLO_NONCE, &payload));
    text.extend(payload);
    text
}

/// Three CPUs, every kind of packet, both encodings, drops, two hellos. Every mark's value is unique.
pub fn small() -> Stream {
    let mut random = Random::new(7);
    let mut stream = Stream::new(3, Encoding::Compact);
    let mut value = 0;
    stream.hello();
    for round in 0..8u64 {
        for cpu in 0..3u16 {
            let mut block = Block::new(cpu, 1000 * round, u32::from(cpu));
            for n in 0..random.below(6) as u32 {
                let next = random.below(4) as u32;
                match random.below(4) {
                    0 => block.record(SWITCH, 10 * n, &switch(next, 1, n as u8)),
                    1 => block.record(
                        UNHEARD_OF,
                        10 * n,
                        &Fields::new().int([1]).int((-2i16).to_le_bytes()),
                    ),
                    _ => {
                        value += 1;
                        block.record(MARK, 10 * n, &mark(value, "tick"));
                    }
                }
            }
            stream.block(&block);
            if random.below(4) == 0 {
                stream.drop_records(cpu, random.below(50) as u64);
            }
        }
        stream.encoding = if round % 2 == 0 { Encoding::Raw } else { Encoding::Compact };
        if round == 3 {
            stream.hello();
        }
        if round % 3 == 0 {
            stream.console(1000 * round, b"some text\nof the console");
            stream.console(1000 * round, &forgery());
        }
    }
    stream.end(0);
    stream
}
