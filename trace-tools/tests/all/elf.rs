//! The schema from ELF files: small ones made for the purpose, and broken ones.

use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, StandardSection, Symbol, SymbolSection},
};
use proptest::prelude::*;
use trace_tools::{Error, Schema, symbols::Symboliser};

/// An ELF file with these symbols in `.defmt`, by address, and this build id.
pub fn elf(build_id: Option<&[u8]>, symbols: &[(u64, &str)]) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let section = object.add_section(Vec::new(), b".defmt".to_vec(), SectionKind::Other);
    object.append_section_data(section, &[0; 64], 1);
    let mut add = |name: &str, value, section, kind| {
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size: 1,
            kind,
            scope: SymbolScope::Linkage,
            weak: false,
            section,
            flags: SymbolFlags::None,
        });
    };
    for &(address, name) in symbols {
        add(name, address, SymbolSection::Section(section), SymbolKind::Data);
    }
    let text = object.section_id(StandardSection::Text);
    object.append_section_data(text, &[0x90; 32], 16);
    object.add_symbol(Symbol {
        name: b"_ZN6kernel4main17h0123456789abcdefE".to_vec(),
        value: 8,
        size: 16,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(text),
        flags: SymbolFlags::None,
    });
    if let Some(id) = build_id {
        let note =
            object.add_section(Vec::new(), b".note.gnu.build-id".to_vec(), SectionKind::Note);
        let mut data = Vec::new();
        for word in [4, id.len() as u32, 3] {
            data.extend(word.to_le_bytes());
        }
        data.extend(b"GNU\0");
        data.extend(id);
        object.append_section_data(note, &data, 4);
    }
    object.write().unwrap()
}

/// A statement's symbol, as defmt's macros and the kernel's make it.
pub fn symbol(tag: &str, data: &str) -> String {
    serde_json::json!({
        "package": "orrery", "tag": tag, "data": data, "disambiguator": "1", "crate_name": "orrery",
    })
    .to_string()
}

fn error(image: &[u8]) -> String {
    let error = Schema::from_elf(image).unwrap_err();
    assert!(matches!(error, Error::Elf(_) | Error::Schema(_)));
    error.to_string()
}

#[test]
fn reads_events_and_log_lines() {
    let image = elf(
        Some(&[0xAB, 0x01]),
        &[
            (
                9,
                &symbol("defmt_trace", "sched:sched_switch next={=u32} prev_state={=u8} seq={=u8}"),
            ),
            (5, &symbol("defmt_info", "cpu {=u8} up")),
            (4, &symbol("defmt_trace", "entering {=str}")),
            (3, &symbol("defmt_timestamp", "{=u64:us}")),
            (2, "__DEFMT_MARKER_END"),
            (6, &symbol("custom", "not ours")),
        ],
    );
    let schema = Schema::from_elf(&image).unwrap();
    assert_eq!(schema.build_id, "ab01");
    assert_eq!(schema.events.len(), 1);
    let event = &schema.events[0];
    assert_eq!((event.index, &*event.category, &*event.name), (9, "sched", "sched_switch"));
    let logs: Vec<_> = schema.logs.iter().map(|l| (l.index, &*l.tag, &*l.format)).collect();
    assert_eq!(logs, [(4, "trace", "entering {=str}"), (5, "info", "cpu {=u8} up")]);
    assert_eq!(schema.log_timestamp.as_deref(), Some("{=u64:us}"));
    assert_eq!(Schema::from_json(&schema.to_json()).unwrap(), schema);
}

#[test]
fn says_what_an_image_lacks() {
    let tick = symbol("defmt_trace", "idle:tick");
    assert!(error(b"not an elf").contains("not a usable kernel ELF"));
    assert!(error(&elf(None, &[(1, &tick)])).contains("--build-id"));
    assert!(error(&elf(Some(&[1]), &[])).contains("no kernel event"));
    assert!(error(&elf(Some(&[1]), &[(0x1_0000, &tick)])).contains("beyond 16 bits"));
    assert!(error(&elf(Some(&[1]), &[(1, "{not json"), (2, &tick)])).contains("{not json"));
    let twice = elf(Some(&[1]), &[(1, &tick), (1, &symbol("defmt_trace", "idle:tock"))]);
    assert!(error(&twice).contains("index 1"));
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let note = object.add_section(Vec::new(), b".note.gnu.build-id".to_vec(), SectionKind::Note);
    object.append_section_data(note, b"\x04\0\0\0\x01\0\0\0\x03\0\0\0GNU\0\x07", 4);
    assert!(error(&object.write().unwrap()).contains(".defmt"));
}

#[test]
fn symbols_name_addresses_without_debug_information() {
    let symbols = Symboliser::from_elf(&elf(Some(&[1]), &[])).unwrap();
    let name = |address| symbols.places(address).first().and_then(|place| place.function.clone());
    assert_eq!(name(8).as_deref(), Some("kernel::main"));
    assert_eq!(name(23).as_deref(), Some("kernel::main"));
    assert_eq!(name(24), None);
    assert_eq!(name(7), None);
    assert_eq!(symbols.call_places(24)[0].function.as_deref(), Some("kernel::main"));
    assert!(Symboliser::from_elf(b"junk").is_err());
}

#[test]
fn symbols_find_lines_in_debug_information() {
    // This test's own executable has some.
    let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*image).unwrap();
    let address = {
        use object::{Object as _, ObjectSymbol};
        file.symbols()
            .find(|symbol| symbol.name().is_ok_and(|name| name.contains("symbols_find_lines_in")))
            .unwrap()
            .address()
    };
    let symbols = Symboliser::from_elf(&image).unwrap();
    let places = symbols.places(address);
    let place = places.last().unwrap();
    assert!(place.function.as_ref().unwrap().contains("symbols_find_lines_in"), "{places:?}");
    assert!(place.file.as_ref().unwrap().ends_with("elf.rs"), "{places:?}");
    assert!(place.line.is_some());
}

proptest! {
    #[test]
    fn a_damaged_image_never_panics(flips: Vec<(prop::sample::Index, u8)>, cut: prop::sample::Index) {
        let tick = symbol("defmt_trace", "idle:tick");
        let mut image = elf(Some(&[1, 2, 3]), &[(1, &tick), (2, &symbol("defmt_info", "x {=u8}"))]);
        for (at, value) in &flips {
            let at = at.index(image.len());
            image[at] ^= value;
        }
        image.truncate(cut.index(image.len() * 4).max(1));
        if let Ok(schema) = Schema::from_elf(&image) {
            let _ = trace_tools::Decoder::new(schema);
        }
        let _ = Symboliser::from_elf(&image).map(|symbols| symbols.places(8));
    }
}
