//! Recordings: the same input gives the same bytes, and a damaged file gives an error that says so.

use std::io::Cursor;

use orrery_core::trace::wire::{Encoding, crc32c};
use proptest::prelude::*;
use trace_tools::{
    Error, Item, Schema, Session, Trace,
    input::Input,
    recording::{MAGIC, Writer},
    synthetic::{self, STATEMENTS, Stream},
};

use crate::stream::{Random, decoder, small};

/// Records a stream that arrives in pieces.
fn record(stream: &[u8], pieces: &mut Random) -> Vec<u8> {
    let decoder = decoder();
    let mut writer = Writer::new(Vec::new(), &decoder.schema).unwrap();
    let mut session = Session::new(decoder);
    let mut packets = Vec::new();
    let mut sink = |item: Item<'_>| {
        if let Item::Packet(bytes) = item {
            packets.extend_from_slice(bytes);
        }
    };
    let mut rest = stream;
    while !rest.is_empty() {
        let len = 1 + pieces.below(rest.len().min(900));
        session.push(&rest[..len], &mut sink).unwrap();
        rest = &rest[len..];
    }
    session.finish(&mut sink).unwrap();
    writer.packet(&packets).unwrap();
    writer.finish().unwrap()
}

fn open(bytes: Vec<u8>, elf: Option<Schema>) -> Result<Trace, Error> {
    Input::new(Box::new(Cursor::new(bytes)), None, elf)?.into_trace(|_| {})
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_its_pieces() {
    let stream = small().bytes();
    let mut noisy = b"firmware".to_vec();
    noisy.extend(&stream);
    noisy.extend(b"noise");
    let first = record(&stream, &mut Random::new(1));
    assert_eq!(first, record(&stream, &mut Random::new(99)));
    assert_eq!(first, record(&noisy, &mut Random::new(5)));
    assert!(first.ends_with(&stream));
}

#[test]
fn a_recording_decodes_without_the_elf() {
    let stream = small();
    let recorded = open(record(&stream.bytes(), &mut Random::new(1)), None).unwrap();
    let raw = open(stream.bytes(), Some(synthetic::schema(&STATEMENTS).unwrap())).unwrap();
    assert!(recorded.is_whole());
    assert!(recorded.len() > 20);
    assert_eq!(recorded.events(), raw.events());
    assert_eq!(recorded.console(), raw.console());
}

#[test]
fn another_build_is_refused_and_both_are_named() {
    let mut json: serde_json::Value =
        serde_json::from_slice(&synthetic::schema(&STATEMENTS).unwrap().to_json()).unwrap();
    json["build_id"] = "beef".into();
    let other = Schema::from_json(json.to_string().as_bytes()).unwrap();
    for bytes in [small().bytes(), record(&small().bytes(), &mut Random::new(1))] {
        let error = open(bytes, Some(other.clone())).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }));
        let text = error.to_string();
        assert!(text.contains("beef") && text.contains(synthetic::BUILD_ID), "{text}");
    }
}

#[test]
fn another_format_version_is_refused() {
    let mut stream = Stream::new(1, Encoding::Raw);
    stream.cmdline = "x\nversion=9".to_owned();
    stream.hello();
    let error = open(stream.bytes(), Some(synthetic::schema(&STATEMENTS).unwrap())).unwrap_err();
    assert!(error.to_string().contains("version 9"), "{error}");
}

#[test]
fn what_is_no_recording_says_so() {
    let error = |bytes: Vec<u8>| open(bytes, None).unwrap_err().to_string();
    assert!(error(Vec::new()).contains("--elf"));
    assert!(error(b"hello world, this is text".to_vec()).contains("--elf"));
    let whole = record(&small().bytes(), &mut Random::new(1));
    assert!(error(whole[..12].to_vec()).contains("ends inside its schema"));
    assert!(error(whole[..40].to_vec()).contains("ends inside its schema"));
    let mut bad = whole.clone();
    bad[30] ^= 1;
    assert!(error(bad).contains("damaged"));
    let mut huge = whole;
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(error(huge).contains("4294967295 bytes"));
}

proptest! {
    #[test]
    fn a_damaged_recording_never_panics(flips: Vec<(prop::sample::Index, u8)>, cut: prop::sample::Index) {
        let mut bytes = record(&small().bytes(), &mut Random::new(1));
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = open(bytes, None);
    }

    /// A head whose CRC agrees may still hold any JSON.
    #[test]
    fn a_schema_of_nonsense_is_an_error(at: prop::sample::Index, text in "[\\[\\]{}\",:a-z0-9=?|]{0,12}") {
        let json = String::from_utf8(synthetic::schema(&STATEMENTS).unwrap().to_json()).unwrap();
        let at = at.index(json.len());
        let json = format!("{}{text}{}", &json[..at], &json[at..]).into_bytes();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(crc32c(0, &json).to_le_bytes());
        bytes.extend(json);
        bytes.extend(small().bytes());
        if let Ok(trace) = open(bytes, None) {
            for event in trace.iter() {
                event.known();
                event.fields().count();
            }
        }
    }
}
