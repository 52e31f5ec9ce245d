//! The statements of kernel events: `category:name field={=type} …`.
//!
//! A statement is an ordinary defmt format string, parsed by `defmt-parser`; what makes it a kernel
//! event is its shape: two names joined by a colon, then fields that are each `name={=type}` with a
//! type of the trace format. Every other defmt string is a log line.

use defmt_parser::{Fragment, ParserMode, Type};
use serde::{Deserialize, Serialize};

/// Type of an event's field. Integers are little-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum FieldType {
    #[serde(rename = "u8")]
    U8,
    #[serde(rename = "u16")]
    U16,
    #[serde(rename = "u32")]
    U32,
    #[serde(rename = "u64")]
    U64,
    #[serde(rename = "i8")]
    I8,
    #[serde(rename = "i16")]
    I16,
    #[serde(rename = "i32")]
    I32,
    #[serde(rename = "i64")]
    I64,
    #[serde(rename = "bool")]
    Bool,
    /// A `u32` length in bytes and UTF-8 text.
    #[serde(rename = "str")]
    Str,
    /// A `u32` length in bytes and the bytes.
    #[serde(rename = "[u8]")]
    Bytes,
}

impl FieldType {
    /// Bytes on the wire, or `None` where the field carries its own length.
    pub const fn fixed_len(self) -> Option<usize> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 => 8,
            Self::Str | Self::Bytes => return None,
        })
    }

    fn from_defmt(ty: &Type) -> Option<Self> {
        Some(match ty {
            Type::U8 => Self::U8,
            Type::U16 => Self::U16,
            Type::U32 => Self::U32,
            Type::U64 => Self::U64,
            Type::I8 => Self::I8,
            Type::I16 => Self::I16,
            Type::I32 => Self::I32,
            Type::I64 => Self::I64,
            Type::Bool => Self::Bool,
            Type::Str => Self::Str,
            Type::U8Slice => Self::Bytes,
            _ => return None,
        })
    }
}

/// A field of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name, unique in the event.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: FieldType,
}

/// The statement of a kernel event, without its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Category that switches it on and off.
    pub category: String,
    /// Name within the category.
    pub name: String,
    /// Its fields in wire order.
    pub fields: Vec<Field>,
}

/// Whether `text` can name a category, an event or a field.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Statement {
    /// Reads a defmt format string as a kernel event, if it has the shape of one.
    pub fn parse(format: &str) -> Option<Self> {
        let fragments = defmt_parser::parse(format, ParserMode::Strict).ok()?;
        let mut fragments = fragments.into_iter();
        let Some(Fragment::Literal(head)) = fragments.next() else {
            return None;
        };
        // The text before a field is `…rest-of-the-previous-part name=`.
        let (title, mut before) = match head.split_once(' ') {
            Some((title, rest)) => (title.to_owned(), rest.to_owned()),
            None => (head.into_owned(), String::new()),
        };
        let (category, name) = title.split_once(':')?;
        if !is_name(category) || !is_name(name) {
            return None;
        }
        let mut fields: Vec<Field> = Vec::new();
        loop {
            match fragments.next() {
                Some(Fragment::Parameter(parameter)) => {
                    let name = before.strip_suffix('=')?;
                    let ty = FieldType::from_defmt(&parameter.ty)?;
                    let fresh = fields.iter().all(|field| field.name != name);
                    if !is_name(name) || !fresh || parameter.index != fields.len() {
                        return None;
                    }
                    fields.push(Field { name: name.to_owned(), ty });
                    before.clear();
                }
                Some(Fragment::Literal(text)) => before = text.strip_prefix(' ')?.to_owned(),
                None if before.is_empty() => break,
                None => return None,
            }
        }
        Some(Self { category: category.to_owned(), name: name.to_owned(), fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_an_event() {
        let event =
            Statement::parse("sched:sched_switch next={=u32} prev_state={=u8} seq={=u8}").unwrap();
        assert_eq!((&*event.category, &*event.name), ("sched", "sched_switch"));
        let fields: Vec<_> = event.fields.iter().map(|f| (&*f.name, f.ty)).collect();
        assert_eq!(
            fields,
            [("next", FieldType::U32), ("prev_state", FieldType::U8), ("seq", FieldType::U8)]
        );
        assert_eq!(Statement::parse("idle:tick").unwrap().fields, []);
        let log = Statement::parse("log:log frame={=[u8]}").unwrap();
        assert_eq!(log.fields[0].ty, FieldType::Bytes);
    }

    #[test]
    fn log_lines_are_not_events() {
        for line in [
            "booted in {=u32} ticks",
            "cpu: {=u32}",
            "sched:switch next {=u32}",
            "sched:switch next={=u32} and more",
            "sched:switch next={=u32}next={=u32}",
            "sched:switch next={=u32} next={=u32}",
            "sched:switch next={=?}",
            "sched:switch next={1=u32} x={0=u32}",
            "a:b:c x={=u8}",
            "",
        ] {
            assert_eq!(Statement::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "([a-z:= ]|\\{=u8\\}|\\{|\\}){0,20}") {
            let _ = Statement::parse(&text);
        }
    }
}
