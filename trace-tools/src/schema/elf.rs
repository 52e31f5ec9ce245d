//! Reads the schema from the symbols of a kernel image.
//!
//! defmt interns a statement as a symbol in the section `.defmt`: the symbol's name is JSON with
//! the text, its address is the number that stands for it.

use object::{Object, ObjectSection, ObjectSymbol};
use serde::Deserialize;

use super::{EventStatement, LogStatement, Schema, Statement};
use crate::Error;

/// The name of a symbol in `.defmt`; other keys make it unique and are not needed.
#[derive(Deserialize)]
struct SymbolName {
    tag: String,
    data: String,
}

pub(super) fn read(image: &[u8]) -> Result<Schema, Error> {
    let bad = |reason: String| Error::Elf(reason);
    let file = object::File::parse(image).map_err(|error| bad(error.to_string()))?;
    let build_id = file
        .build_id()
        .map_err(|error| bad(format!("build id: {error}")))?
        .ok_or_else(|| bad("it has no build id; link it with --build-id".to_owned()))?;
    let section = file
        .section_by_name(".defmt")
        .ok_or_else(|| bad("it has no section .defmt; link it with -Tdefmt.x".to_owned()))?
        .index();

    let (mut events, mut logs, mut log_timestamp) = (Vec::new(), Vec::new(), None);
    for symbol in file.symbols().filter(|symbol| symbol.section_index() == Some(section)) {
        let name = symbol.name().map_err(|error| bad(format!("symbol name: {error}")))?;
        // The linker script and objcopy add plain symbols to the section.
        if !name.starts_with('{') {
            continue;
        }
        let SymbolName { tag, data } = serde_json::from_str(name)
            .map_err(|error| bad(format!("symbol `{name}` in .defmt: {error}")))?;
        let Some(tag) = tag.strip_prefix("defmt_") else {
            continue;
        };
        if tag == "timestamp" {
            log_timestamp = Some(data);
            continue;
        }
        let index = u16::try_from(symbol.address()).map_err(|_| {
            bad(format!("statement `{data}` has index {:#x}, beyond 16 bits", symbol.address()))
        })?;
        match Statement::parse(&data).filter(|_| tag == "trace") {
            Some(Statement { category, name, fields }) => {
                events.push(EventStatement { index, category, name, fields });
            }
            None => logs.push(LogStatement { index, tag: tag.to_owned(), format: data }),
        }
    }
    if events.is_empty() {
        return Err(bad("its section .defmt holds no kernel event".to_owned()));
    }
    let build_id = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    Schema::new(build_id, events, logs, log_timestamp)
}
