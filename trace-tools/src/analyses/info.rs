//! What a trace is, and how much of it is there.

use serde::Serialize;

use super::{Inversions, inversions};
use crate::{
    Trace,
    transport::{Hello, Mode},
};

/// One CPU's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuInfo {
    /// The CPU.
    pub cpu: u16,
    /// Records that arrived.
    pub received: u64,
    /// Records lost on the way.
    pub lost: u64,
    /// Records the kernel had no room for.
    pub dropped: u64,
    /// All of these, as the kernel counted them; `null` without an end packet.
    pub produced: Option<u64>,
}

/// What a trace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Build id of the kernel.
    pub build_id: String,
    /// Ticks of the trace clock in a second; `null` where no hello packet arrived.
    pub tick_hz: Option<u64>,
    /// CPUs that ran.
    pub cpu_count: Option<u32>,
    /// What a full ring did.
    pub mode: Option<Mode>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// Whether everything that was sent arrived, up to a proper end.
    pub whole: bool,
    /// Whether records are missing that should be there: lost on the way, or dropped where the mode
    /// is not one that keeps only the newest.
    pub lossy: bool,
    /// Whether the end packet arrived.
    pub ended: bool,
    /// Exit status the guest asked for.
    pub status: Option<u32>,
    /// Fatal errors of the kernel.
    pub panics: u64,
    /// Packets that arrived.
    pub packets: u64,
    /// Packets missing in the sequence.
    pub lost_packets: u64,
    /// Packets that came again and were ignored.
    pub duplicate_packets: u64,
    /// Packets and blocks that arrived intact and make no sense.
    pub undecodable: u64,
    /// Bytes outside packets before the first one.
    pub leading_bytes: u64,
    /// Bytes outside packets after the first one.
    pub damaged_bytes: u64,
    /// Events decoded.
    pub events: u64,
    /// From the first event to the last.
    pub duration_ticks: u64,
    /// Records per CPU.
    pub cpus: Vec<CpuInfo>,
    /// Where the clocks contradict the causes.
    pub clock_inversions: Inversions,
}

/// Whether records are missing that should be there; see [`Info::lossy`].
pub fn is_lossy(trace: &Trace) -> bool {
    let keeps_newest = trace.hello().is_some_and(|hello| hello.mode == Mode::Snapshot);
    trace.accounts().lost() > 0 || (!keeps_newest && trace.accounts().dropped() > 0)
}

/// Says what a trace is.
pub fn info(trace: &Trace) -> Info {
    let accounts = trace.accounts();
    let hello = trace.hello();
    let (first, last) = (trace.events().first(), trace.events().last());
    let duration_ticks =
        first.zip(last).map_or(0, |(first, last)| last.time_ticks.saturating_sub(first.time_ticks));
    Info {
        build_id: trace.decoder().schema.build_id.clone(),
        tick_hz: hello.map(|hello| hello.tick_hz),
        cpu_count: hello.map(|hello| hello.cpus),
        mode: hello.map(|hello| hello.mode),
        cmdline: hello.map(|Hello { cmdline, .. }| cmdline.clone()),
        whole: trace.is_whole(),
        lossy: is_lossy(trace),
        ended: accounts.end.is_some(),
        status: accounts.end.as_ref().map(|end| end.status),
        panics: trace.panics().len() as u64,
        packets: accounts.packets,
        lost_packets: accounts.lost_packets,
        duplicate_packets: accounts.duplicates,
        undecodable: accounts.undecodable + trace.malformed_blocks(),
        leading_bytes: accounts.leading_bytes,
        damaged_bytes: accounts.damaged_bytes,
        events: trace.len() as u64,
        duration_ticks,
        cpus: accounts
            .cpus
            .iter()
            .map(|(&cpu, account)| CpuInfo {
                cpu,
                received: account.received,
                lost: account.lost(),
                dropped: account.dropped,
                produced: account.produced,
            })
            .collect(),
        clock_inversions: inversions(trace),
    }
}
