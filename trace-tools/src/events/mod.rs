//! Records as events: named, typed, with the CPU, the time and the task that ran.
//!
//! [`Plans`] are compiled once from a [`Schema`]; after that a record is decoded without
//! allocation, and names are only looked at when asked for. [`Event`] is the compact form that
//! whole traces are kept in, [`EventRef`] the convenient one that borrows its plan and its bytes,
//! and [`Known`] the one that analyses match on. Fields are bound by name, so a kernel that adds a
//! field or moves one is still understood.

mod known;
mod plan;

pub use known::{Known, KnownKind};
pub use plan::{BadRecord, Plan, Plans};

use crate::schema::FieldType;

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An unsigned integer.
    Unsigned(u64),
    /// A signed integer.
    Signed(i64),
    /// A truth value.
    Bool(bool),
    /// Text; UTF-8 by convention, so what a program sends may be malformed.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The value as an unsigned integer, if it is one.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            Self::Bool(value) => Some(u64::from(value)),
            Self::Text(_) | Self::Bytes(_) => None,
        }
    }

    /// The value as a signed integer, if it fits.
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::Signed(value) => Some(value),
            other => other.as_u64().and_then(|value| i64::try_from(value).ok()),
        }
    }

    /// The value's bytes, if it is text or bytes.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(bytes) | Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Reads a value of this type from the start of `bytes`; also says how many it took.
    fn read(ty: FieldType, bytes: &'a [u8]) -> Option<(Self, usize)> {
        fn int<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
            bytes.first_chunk().copied()
        }
        let value = match ty {
            FieldType::U8 => Self::Unsigned(u8::from_le_bytes(int(bytes)?).into()),
            FieldType::U16 => Self::Unsigned(u16::from_le_bytes(int(bytes)?).into()),
            FieldType::U32 => Self::Unsigned(u32::from_le_bytes(int(bytes)?).into()),
            FieldType::U64 => Self::Unsigned(u64::from_le_bytes(int(bytes)?)),
            FieldType::I8 => Self::Signed(i8::from_le_bytes(int(bytes)?).into()),
            FieldType::I16 => Self::Signed(i16::from_le_bytes(int(bytes)?).into()),
            FieldType::I32 => Self::Signed(i32::from_le_bytes(int(bytes)?).into()),
            FieldType::I64 => Self::Signed(i64::from_le_bytes(int(bytes)?)),
            FieldType::Bool => Self::Bool(*bytes.first()? != 0),
            FieldType::Str | FieldType::Bytes => {
                let len = u32::from_le_bytes(int(bytes)?) as usize;
                let content = bytes.get(4..)?.get(..len)?;
                let value =
                    if ty == FieldType::Str { Self::Text(content) } else { Self::Bytes(content) };
                return Some((value, 4 + len));
            }
        };
        Some((value, ty.fixed_len()?))
    }
}

/// An event in the form that whole traces are kept in; [`crate::Trace`] has what it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in ticks of the trace clock.
    pub time_ticks: u64,
    /// Where its fields start in the trace's bytes.
    pub(crate) data: u64,
    /// Task that ran; 0 is the CPU's idle task.
    pub pid: u32,
    /// CPU it happened on.
    pub cpu: u16,
    /// Number of its plan.
    pub(crate) plan: u16,
}

/// An event with everything that is known of it.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// When it happened, in ticks of the trace clock.
    pub time_ticks: u64,
    /// CPU it happened on.
    pub cpu: u16,
    /// Task that ran; 0 is the CPU's idle task. For a `sched_switch`, the task that stops.
    pub pid: u32,
    /// What it is.
    pub plan: &'a Plan,
    /// Its fields as they came.
    pub(crate) bytes: &'a [u8],
}

impl<'a> EventRef<'a> {
    /// Its name within the category.
    pub fn name(&self) -> &'a str {
        &self.plan.name
    }

    /// Its category.
    pub fn category(&self) -> &'a str {
        &self.plan.category
    }

    /// The fields with their names, in wire order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let mut rest = self.bytes;
        self.plan.fields().iter().map_while(move |field| {
            let (value, len) = Value::read(field.ty, rest)?;
            rest = &rest[len..];
            Some((&*field.name, value))
        })
    }

    /// The field with this name, if the event has one.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        self.plan.value(self.plan.slot(name)?, self.bytes)
    }

    /// The unsigned integer field with this name, if the event has one.
    pub fn u64(&self, name: &str) -> Option<u64> {
        self.field(name)?.as_u64()
    }

    /// The event in typed form, if it is one that this program knows.
    pub fn known(&self) -> Known<'a> {
        Known::read(self.plan, self.bytes)
    }
}
