//! How fast a trace is decoded: ten million events of eight CPUs, from bytes to a merged trace.
//!
//! `cargo run --release -p trace-tools --example throughput`

use std::{hint::black_box, time::Instant};

use orrery_core::trace::wire::Encoding;
use trace_tools::{
    Decoder, Item, Session, Trace,
    analyses::{info, report},
    model::Model,
    synthetic::{Block, Fields, STATEMENTS, Stream, schema},
};

const EVENTS: usize = 10_000_000;
const CPUS: u16 = 8;
const RECORDS_PER_BLOCK: usize = 300;

fn stream() -> Stream {
    let mut stream = Stream::new(CPUS.into(), Encoding::Compact);
    stream.hello();
    let blocks = EVENTS / RECORDS_PER_BLOCK + 1;
    for number in 0..blocks {
        let cpu = number as u16 % CPUS;
        let base_ticks = number as u64 / u64::from(CPUS) * 30_000;
        let mut block = Block::new(cpu, base_ticks, 1);
        for n in 0..RECORDS_PER_BLOCK.min(EVENTS - number * RECORDS_PER_BLOCK) as u32 {
            let pid = (1 + n % 7 + 10 * u32::from(cpu)).to_le_bytes();
            let fields = Fields::new().int(pid).int([1]).int([n as u8]);
            // Alternately a switch and a wake-up, both with six bytes of fields.
            block.record((n % 2) as u16, n * 100, &fields);
        }
        stream.block(&block);
    }
    stream.end(0);
    stream
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<28}{seconds:6.2} s  {:6.1} M events/s", EVENTS as f64 / seconds / 1e6);
    result
}

fn main() -> Result<(), trace_tools::Error> {
    let decoder = Decoder::new(schema(&STATEMENTS)?)?;
    let bytes = stream().bytes();
    println!("{EVENTS} events, {} bytes", bytes.len());
    timed("decode, one by one", || {
        let mut session = Session::new(decoder.clone());
        let mut sum = 0u64;
        let mut sink = |item: Item<'_>| {
            if let Item::Event(event) = item {
                sum = sum.wrapping_add(event.time_ticks);
            }
        };
        for chunk in bytes.chunks(64 * 1024) {
            session.push(chunk, &mut sink)?;
        }
        session.finish(&mut sink)?;
        black_box(sum);
        Ok::<_, trace_tools::Error>(())
    })?;
    let trace = timed("decode into a merged trace", || Trace::read(decoder, &*bytes, |_| {}))?;
    assert_eq!(trace.len(), EVENTS);
    timed("info", || black_box(info(&trace)));
    timed("report", || black_box(report(&trace, &Model::replay(&trace))));
    Ok(())
}
