//! Damage of every kind: whatever happens to the bytes on their way, exactly the packets that
//! arrive whole and in order are decoded, and what is missing is counted.

use std::collections::BTreeMap;

use memchr::memmem;
use orrery_core::trace::wire::{Header, Kind, MAGIC};
use trace_tools::{Decoder, Item, Session, transport::Accounts};

use crate::stream::{Random, decoder, small};

/// Random cases; with every single bit of the stream besides.
const CASES: u64 = 100_000;

/// An event with all that it says.
type Plain = (u64, u16, u32, String);

/// What a reader got out of a stream.
#[derive(Default)]
struct Got {
    packets: Vec<Vec<u8>>,
    events: Vec<Plain>,
    accounts: Accounts,
    whole: bool,
}

fn read(decoder: &Decoder, bytes: &[u8], random: &mut Random) -> Got {
    let mut got = Got::default();
    let mut session = Session::new(decoder.clone());
    let mut sink = |item: Item<'_>| match item {
        Item::Packet(packet) => got.packets.push(packet.to_vec()),
        Item::Event(event) => got.events.push((
            event.time_ticks,
            event.cpu,
            event.pid,
            format!("{} {:?}", event.name(), event.fields().collect::<Vec<_>>()),
        )),
        Item::Malformed { reason, .. } => panic!("a block that verified is malformed: {reason}"),
        _ => {}
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = 1 + random.below(rest.len().min(1500));
        session.push(&rest[..len], &mut sink).unwrap();
        rest = &rest[len..];
    }
    session.finish(&mut sink).unwrap();
    got.accounts = session.accounts().clone();
    got.whole = got.accounts.is_whole() && session.malformed_blocks() == 0;
    got
}

/// The original stream, packet by packet.
struct Original {
    decoder: Decoder,
    bytes: Vec<u8>,
    packets: Vec<Vec<u8>>,
    headers: Vec<Header>,
    /// Events of each packet.
    events: Vec<Vec<Plain>>,
    /// Records made and dropped, per CPU.
    totals: BTreeMap<u16, (u64, u64)>,
}

impl Original {
    fn new() -> Self {
        let stream = small();
        let decoder = decoder();
        let bytes = stream.bytes();
        let headers: Vec<_> =
            stream.packets().iter().map(|packet| Header::decode(packet).unwrap().0).collect();
        let got = read(&decoder, &bytes, &mut Random::new(1));
        assert!(got.whole);
        assert_eq!(got.packets, stream.packets());
        let mut events = got.events.into_iter();
        let events = headers
            .iter()
            .map(|header| events.by_ref().take(header.records as usize).collect())
            .collect();
        let totals = got
            .accounts
            .cpus
            .iter()
            .map(|(&cpu, account)| (cpu, (account.produced.unwrap(), account.dropped)))
            .collect();
        Self { decoder, bytes, packets: stream.packets().to_vec(), headers, events, totals }
    }

    /// Numbers of the packets that a reader must decode from these bytes: those that are there
    /// whole, in the order in which they stand, as long as the numbers grow; none without a hello.
    fn expected(&self, damaged: &[u8]) -> Vec<usize> {
        let mut there: Vec<(usize, usize)> = self
            .packets
            .iter()
            .enumerate()
            .flat_map(|(number, packet)| {
                memmem::find_iter(damaged, packet).map(move |at| (at, number))
            })
            .collect();
        there.sort_unstable();
        if !there.iter().any(|&(_, number)| self.headers[number].kind == Kind::Hello) {
            return Vec::new();
        }
        let mut expected: Vec<usize> = Vec::new();
        for (_, number) in there {
            if expected.last().is_none_or(|&last| number > last) {
                expected.push(number);
            }
        }
        expected
    }

    fn judge(&self, damaged: &[u8], random: &mut Random, case: &str) {
        let expected = self.expected(damaged);
        let got = read(&self.decoder, damaged, random);
        let packets: Vec<_> = expected.iter().map(|&number| self.packets[number].clone()).collect();
        assert_eq!(got.packets.len(), packets.len(), "{case}: {expected:?}");
        assert!(got.packets == packets, "{case}: other packets than {expected:?}");
        let events: Vec<_> =
            expected.iter().flat_map(|&number| &self.events[number]).cloned().collect();
        assert!(got.events == events, "{case}: events differ");

        let accounts = &got.accounts;
        let missing = expected.last().map_or(0, |last| last + 1 - expected.len());
        assert_eq!(accounts.lost_packets, missing as u64, "{case}");
        if expected.last() == Some(&(self.packets.len() - 1)) {
            for (&cpu, &(produced, dropped)) in &self.totals {
                let of_cpu = expected.iter().map(|&n| &self.headers[n]).filter(|h| h.cpu == cpu);
                let received: u64 = of_cpu.map(|h| u64::from(h.records)).sum();
                let account = &accounts.cpus[&cpu];
                assert_eq!(account.received, received, "{case}: cpu {cpu}");
                assert_eq!(account.dropped, dropped, "{case}: cpu {cpu}");
                assert_eq!(account.lost(), produced - dropped - received, "{case}: cpu {cpu}");
            }
        }
        let only_preceded = damaged.ends_with(&self.bytes)
            && accounts.damaged_bytes == 0
            && accounts.duplicates == 0;
        assert_eq!(got.whole, only_preceded, "{case}: whole");
    }
}

/// Applies one damage and says which.
fn damage(bytes: &mut Vec<u8>, original: &Original, random: &mut Random) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    let at = random.below(bytes.len());
    let len = 1 + random.below((bytes.len() - at).min(400));
    match random.below(7) {
        0 => {
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("flip {at}.{bit}; ")
        }
        1 => {
            bytes.drain(at..at + len);
            format!("drop {at}+{len}; ")
        }
        2 => {
            let copy = bytes[at..at + len].to_vec();
            bytes.splice(at..at, copy);
            format!("double {at}+{len}; ")
        }
        3 => {
            let copy = bytes[at..at + len].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
            format!("copy {at}+{len} to {to}; ")
        }
        4 => {
            let garbage: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, garbage);
            format!("garbage {at}+{len}; ")
        }
        5 => {
            // A header that was cut off, whose length reaches into what follows.
            let packet = &original.packets[random.below(original.packets.len())];
            let head = &packet[..MAGIC.len() + random.below(packet.len() - MAGIC.len())];
            bytes.splice(at..at, head.iter().copied());
            format!("part of a packet at {at}; ")
        }
        _ => {
            bytes.truncate(at);
            format!("cut at {at}; ")
        }
    }
}

#[test]
fn random_damage() {
    let original = Original::new();
    let mut random = Random::new(0x0D15_EA5E);
    for case in 0..CASES {
        let mut bytes = original.bytes.clone();
        let mut told = format!("case {case}: ");
        for _ in 0..=random.below(4) {
            told += &damage(&mut bytes, &original, &mut random);
        }
        original.judge(&bytes, &mut random, &told);
    }
}

#[test]
fn every_single_bit() {
    let original = Original::new();
    let mut random = Random::new(3);
    for bit in 0..original.bytes.len() * 8 {
        let mut bytes = original.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        original.judge(&bytes, &mut random, &format!("bit {bit}"));
    }
}

#[test]
fn text_before_the_first_packet_is_no_damage() {
    let original = Original::new();
    let mut bytes = b"SeaBIOS (version 1.16)\r\nBooting...".to_vec();
    bytes.extend(&original.bytes);
    let got = read(&original.decoder, &bytes, &mut Random::new(1));
    assert!(got.whole);
    assert_eq!(got.accounts.leading_bytes, 34);
}

#[test]
fn another_boot_in_the_same_stream_is_not_mixed_in() {
    let original = Original::new();
    let mut bytes = original.bytes.clone();
    let mut second = small();
    second.cmdline = "another boot".to_owned();
    second.hello();
    bytes.extend(second.packets().last().unwrap());
    let got = read(&original.decoder, &bytes, &mut Random::new(1));
    assert_eq!(got.packets.len(), original.packets.len());
    assert!(!got.whole);
}
