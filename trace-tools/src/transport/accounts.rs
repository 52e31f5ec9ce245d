//! What arrived, what was lost on the way, and what was never recorded.
//!
//! Three numbers per CPU, and `produced = received + lost + dropped` once the end packet has told
//! `produced`. Until then the running totals in the headers say the same up to the last block.

use std::collections::BTreeMap;

use orrery_core::trace::wire::Header;

use super::End;

/// What was missing before a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Packets of the stream, of any CPU and kind.
    pub packets: u64,
    /// Records of this packet's CPU that were sent or meant to be, and did not arrive.
    pub records: u64,
    /// Records of this packet's CPU that its ring had no room for.
    pub dropped: u64,
}

impl Gap {
    /// Whether nothing was missing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One CPU's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuAccount {
    /// Records that arrived.
    pub received: u64,
    /// Records that the kernel had no room for.
    pub dropped: u64,
    /// Records the kernel made, dropped ones included, from the end packet.
    pub produced: Option<u64>,
    /// Records put in the ring before the next block that is expected.
    next_record: u64,
}

impl CpuAccount {
    /// Records that were sent, or should have been, and did not arrive. Exact once the end packet
    /// is there; before, as far as the last block that arrived tells.
    pub fn lost(&self) -> u64 {
        match self.produced {
            Some(produced) => produced.saturating_sub(self.dropped + self.received),
            None => self.next_record.saturating_sub(self.received),
        }
    }
}

/// The book-keeping of one stream.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// Packets handed out or found undecodable.
    pub packets: u64,
    /// Packets missing in the sequence.
    pub lost_packets: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Bytes outside packets before the first packet: firmware text, usually.
    pub leading_bytes: u64,
    /// Bytes outside packets after the first packet.
    pub damaged_bytes: u64,
    /// Packets with a correct CRC whose payload makes no sense: a bug in the sender.
    pub undecodable: u64,
    /// Records per CPU.
    pub cpus: BTreeMap<u16, CpuAccount>,
    /// The end packet, once it arrived.
    pub end: Option<End>,
    last_seq: Option<u32>,
}

impl Accounts {
    /// Whether everything that was sent arrived, and the stream was ended properly. Records that
    /// the kernel dropped were never sent: see [`Self::dropped`].
    pub fn is_whole(&self) -> bool {
        self.end.is_some()
            && self.lost_packets == 0
            && self.duplicates == 0
            && self.damaged_bytes == 0
            && self.undecodable == 0
            && self.lost() == 0
    }

    /// Records of all CPUs that arrived.
    pub fn received(&self) -> u64 {
        self.cpus.values().map(|cpu| cpu.received).sum()
    }

    /// Records of all CPUs that were lost on the way.
    pub fn lost(&self) -> u64 {
        self.cpus.values().map(CpuAccount::lost).sum()
    }

    /// Records of all CPUs that the kernel had no room for.
    pub fn dropped(&self) -> u64 {
        self.cpus.values().map(|cpu| cpu.dropped).sum()
    }

    pub(super) fn foreign(&mut self, len_bytes: u64) {
        match self.last_seq {
            None => self.leading_bytes += len_bytes,
            Some(_) => self.damaged_bytes += len_bytes,
        }
    }

    /// Counts a packet with this number; returns how many are missing before it, or `None` where
    /// it is not new.
    pub(super) fn sequence(&mut self, seq: u32) -> Option<u64> {
        let missing = match self.last_seq {
            None => seq,
            Some(last) => match seq.wrapping_sub(last) {
                // Serial number arithmetic (RFC 1982): the upper half of the circle is the past.
                0 | 0x8000_0000.. => {
                    self.duplicates += 1;
                    return None;
                }
                ahead => ahead - 1,
            },
        };
        self.last_seq = Some(seq);
        self.packets += 1;
        self.lost_packets += u64::from(missing);
        Some(u64::from(missing))
    }

    /// Counts a block; returns how many records are missing before it and how many more were
    /// dropped, or `None` where its totals contradict what arrived before.
    pub(super) fn block(&mut self, header: &Header) -> Option<(u64, u64)> {
        let cpu = self.cpus.entry(header.cpu).or_default();
        let lost = header.first_record.checked_sub(cpu.next_record);
        let dropped = header.dropped.checked_sub(cpu.dropped);
        let next = header.first_record.checked_add(u64::from(header.records));
        let (Some(lost), Some(dropped), Some(next)) = (lost, dropped, next) else {
            self.undecodable += 1;
            return None;
        };
        cpu.received += u64::from(header.records);
        cpu.dropped = header.dropped;
        cpu.next_record = next;
        Some((lost, dropped))
    }

    pub(super) fn end(&mut self, end: End) {
        for told in &end.cpus {
            let cpu = self.cpus.entry(told.cpu).or_default();
            cpu.produced = Some(told.produced);
            cpu.dropped = told.dropped;
        }
        self.end = Some(end);
    }
}
