//! Log lines: defmt frames made readable by `defmt-decoder`.
//!
//! Frames arrive in packets whose CRC agreed and whose build matches, so they are well-formed unless
//! the kernel or the recording was tampered with. The decoder is not robust against that: it
//! allocates what a slice's length claims, recurses per nested value, and panics on some
//! arguments. So formats with slices of formats are not rendered, frames are limited in length
//! (hence in depth), and a panic is caught.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use defmt_decoder::Table;
use defmt_parser::{Fragment, ParserMode, Type};
use serde_json::{Map, json};

use super::Schema;
use crate::Error;

/// Longest frame that is rendered, in bytes.
const FRAME_MAX: usize = 1024;

/// Renders the log lines of one build.
#[derive(Debug)]
pub struct LogTable {
    table: Table,
    /// Statements whose rendering would trust a length in the data, directly or by nesting.
    not_rendered: BTreeSet<u16>,
}

impl LogTable {
    /// The table for this schema.
    ///
    /// # Errors
    /// [`Error::Schema`] where a statement is not a defmt format string.
    pub fn new(schema: &Schema) -> Result<Self, Error> {
        let mut entries = Map::new();
        let (mut trusting, mut nesting) = (BTreeSet::new(), BTreeSet::new());
        for log in &schema.logs {
            let malformed = |reason: String| {
                Error::Schema(format!("statement {} `{}`: {reason}", log.index, log.format))
            };
            let fragments = defmt_parser::parse(&log.format, ParserMode::ForwardsCompatible)
                .map_err(|error| malformed(error.to_string()))?;
            for fragment in &fragments {
                let Fragment::Parameter(parameter) = fragment else { continue };
                match parameter.ty {
                    Type::FormatSlice | Type::FormatArray(_) | Type::U8Array(_) => {
                        trusting.insert(log.index);
                    }
                    Type::Format | Type::FormatSequence => {
                        nesting.insert(log.index);
                    }
                    _ => {}
                }
            }
            // An unused kind of symbol (a bitflags value, say) has no place in the table.
            let Some(tag) = tag(&log.tag) else {
                continue;
            };
            entries.insert(
                log.index.to_string(),
                json!({"string": {"tag": tag, "string": log.format}, "raw_symbol": ""}),
            );
        }
        let timestamp = match &schema.log_timestamp {
            Some(format) => {
                defmt_parser::parse(format, ParserMode::ForwardsCompatible)
                    .map_err(|error| Error::Schema(format!("timestamp `{format}`: {error}")))?;
                json!({"string": {"tag": "Timestamp", "string": format}, "raw_symbol": ""})
            }
            None => json!(null),
        };
        let table = json!({
            "timestamp": timestamp, "entries": entries, "bitflags": {}, "encoding": "Raw",
        });
        let table = serde_json::from_value(table)
            .map_err(|error| Error::Schema(format!("log table: {error}")))?;
        let mut not_rendered = trusting;
        if !not_rendered.is_empty() {
            not_rendered.append(&mut nesting);
        }
        Ok(Self { table, not_rendered })
    }

    /// The log line in a frame as `LEVEL text`, or a description of a frame that makes no sense.
    pub fn render(&self, frame: &[u8]) -> String {
        if frame.is_empty() {
            return "(a log line longer than the kernel keeps)".to_owned();
        }
        let unreadable = || {
            let bytes: Vec<String> = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("(unreadable log frame: {})", bytes.join(" "))
        };
        let index = frame.first_chunk().map(|index| u16::from_le_bytes(*index));
        if frame.len() > FRAME_MAX || index.is_none_or(|index| self.not_rendered.contains(&index)) {
            return unreadable();
        }
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            let (frame, _) = self.table.decode(frame).ok()?;
            let text = frame.display_message().to_string();
            Some(match frame.level() {
                Some(level) => format!("{} {text}", level.as_str().to_uppercase()),
                None => text,
            })
        }));
        rendered.ok().flatten().unwrap_or_else(unreadable)
    }
}

/// defmt-decoder's name of a symbol's tag.
fn tag(name: &str) -> Option<&'static str> {
    Some(match name {
        "prim" => "Prim",
        "derived" => "Derived",
        "bitflags" => "Bitflags",
        "write" => "Write",
        "str" => "Str",
        "println" => "Println",
        "trace" => "Trace",
        "debug" => "Debug",
        "info" => "Info",
        "warn" => "Warn",
        "error" => "Error",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{EventStatement, LogStatement};
    use proptest::prelude::*;

    fn table(lines: &[(&str, &str)]) -> LogTable {
        let event =
            EventStatement { index: 0, category: "a".into(), name: "b".into(), fields: Vec::new() };
        let logs = lines
            .iter()
            .zip(1..)
            .map(|((tag, format), index)| LogStatement {
                index,
                tag: (*tag).into(),
                format: (*format).into(),
            })
            .collect();
        LogTable::new(&Schema::new("ab".into(), vec![event], logs, None).unwrap()).unwrap()
    }

    #[test]
    fn renders_a_line() {
        let table = table(&[("info", "cpu {=u8} up"), ("println", "{=str}!")]);
        assert_eq!(table.render(&[1, 0, 3]), "INFO cpu 3 up");
        assert_eq!(table.render(&[2, 0, 2, 0, 0, 0, b'h', b'i']), "hi!");
    }

    #[test]
    fn what_makes_no_sense_is_shown_as_bytes() {
        let table = table(&[("info", "cpu {=u8} up")]);
        assert_eq!(table.render(&[1, 0]), "(unreadable log frame: 01 00)");
        assert_eq!(table.render(&[]), "(a log line longer than the kernel keeps)");
        assert_eq!(table.render(&[7, 7, 7]), "(unreadable log frame: 07 07 07)");
    }

    #[test]
    fn lengths_in_the_data_are_not_trusted() {
        let table =
            table(&[("info", "{=[?]}"), ("prim", "{=u8}"), ("info", "{=?}"), ("info", "ok")]);
        assert!(table.render(&[1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0]).starts_with("(unreadable"));
        let nested = [3, 0, 1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0];
        assert!(table.render(&nested).starts_with("(unreadable"));
        assert_eq!(table.render(&[4, 0]), "INFO ok");
    }

    proptest! {
        #[test]
        fn never_panics(frame in prop::collection::vec(0u8..6, 0..40)) {
            let table = table(&[
                ("info", "{=?} {=str} {=bool}"), ("derived", "A|B({=?})|C {=char}"),
                ("prim", "{=u8}"), ("write", "{=__internal_Display} {=0..3}"),
            ]);
            let _ = table.render(&frame);
        }
    }
}
