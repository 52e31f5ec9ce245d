//! Decode plans: what a statement says, laid out so that a record costs a few loads.

use orrery_core::trace::wire::Header;

use crate::schema::{Field, Schema};

use super::{EventRef, KnownKind, Value};

/// Bytes of a record before its fields: index and time offset.
const RECORD_HEAD: usize = 6;
/// In [`Plans::by_index`]: no statement has this index.
const NONE: u16 = u16::MAX;

/// How to decode one kind of event.
#[derive(Debug)]
pub struct Plan {
    /// Its place in [`Plans`].
    pub(crate) number: u16,
    /// Category that switches it on and off.
    pub category: String,
    /// Name within the category.
    pub name: String,
    fields: Vec<Field>,
    /// Offset of each field, as far as the fields before it have fixed sizes.
    offsets: Vec<Option<usize>>,
    /// Bytes of all fields, where that is fixed.
    fixed_len: Option<usize>,
    /// For the event that changes the running task: offset of the next task's pid.
    switch_to: Option<usize>,
    pub(super) known: Option<KnownKind>,
    /// Fields of the known event, in the order in which [`super::Known`] declares them.
    pub(super) slots: Vec<usize>,
}

impl Plan {
    fn new(number: u16, category: &str, name: &str, fields: &[Field]) -> Self {
        let mut offsets = Vec::with_capacity(fields.len());
        let mut at = Some(0);
        for field in fields {
            offsets.push(at);
            at = at.zip(field.ty.fixed_len()).map(|(at, len)| at + len);
        }
        let mut plan = Self {
            number,
            category: category.to_owned(),
            name: name.to_owned(),
            fields: fields.to_vec(),
            offsets,
            fixed_len: at,
            switch_to: None,
            known: None,
            slots: Vec::new(),
        };
        if let Some((kind, slots)) = KnownKind::bind(&plan) {
            plan.known = Some(kind);
            plan.slots = slots;
            if kind == KnownKind::SchedSwitch {
                plan.switch_to = plan.slots.first().and_then(|&slot| plan.offsets[slot]);
            }
        }
        plan
    }

    /// Names and types of the fields, in wire order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Position of the field with this name.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The kind, if it is an event that this program knows.
    pub fn known(&self) -> Option<KnownKind> {
        self.known
    }

    /// The field at this position, from an event's bytes.
    pub(super) fn value<'a>(&self, slot: usize, bytes: &'a [u8]) -> Option<Value<'a>> {
        let field = self.fields.get(slot)?;
        let at = match self.offsets[slot] {
            Some(at) => at,
            None => self.len_up_to(slot, bytes)?,
        };
        Value::read(field.ty, bytes.get(at..)?).map(|(value, _)| value)
    }

    /// Bytes of the event's fields at the start of `bytes`, or `None` where they do not fit.
    #[inline]
    pub(crate) fn len(&self, bytes: &[u8]) -> Option<usize> {
        match self.fixed_len {
            Some(len) => (len <= bytes.len()).then_some(len),
            None => self.len_up_to(self.fields.len(), bytes),
        }
    }

    fn len_up_to(&self, slot: usize, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        for field in &self.fields[..slot] {
            at += match field.ty.fixed_len() {
                Some(len) => len,
                None => Value::read(field.ty, bytes.get(at..)?)?.1,
            };
        }
        (at <= bytes.len()).then_some(at)
    }
}

/// Why a block stopped making sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// No statement has this index.
    UnknownIndex(u16),
    /// The block ends inside a record.
    Truncated,
    /// The time is beyond 64 bits.
    Time,
    /// Bytes are left after the last record.
    Trailing,
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownIndex(index) => write!(f, "no statement has index {index}"),
            Self::Truncated => write!(f, "the block ends inside a record"),
            Self::Time => write!(f, "a record's time is beyond 64 bits"),
            Self::Trailing => write!(f, "bytes are left after the last record"),
        }
    }
}

/// The plans of one build.
#[derive(Debug)]
pub struct Plans {
    plans: Vec<Plan>,
    /// From a statement's index to its plan.
    by_index: Vec<u16>,
}

impl Plans {
    /// Compiles the plans of a schema.
    pub fn new(schema: &Schema) -> Self {
        let mut by_index = vec![NONE; 1 << 16];
        let mut plans = Vec::with_capacity(schema.events.len());
        // `NONE` cannot be a plan's number: 65,535 events leave no index for anything else.
        for event in schema.events.iter().take(usize::from(NONE)) {
            let number = plans.len() as u16;
            by_index[usize::from(event.index)] = number;
            plans.push(Plan::new(number, &event.category, &event.name, &event.fields));
        }
        Self { plans, by_index }
    }

    /// All plans, by number.
    pub fn all(&self) -> &[Plan] {
        &self.plans
    }

    /// The plan with this number.
    pub(crate) fn get(&self, number: u16) -> &Plan {
        &self.plans[usize::from(number)]
    }

    /// Decodes the records of a block, one by one.
    ///
    /// # Errors
    /// [`BadRecord`] at the first record that makes no sense; those before it were handed out.
    #[inline]
    pub(crate) fn decode<'a>(
        &'a self,
        header: &Header,
        payload: &'a [u8],
        mut sink: impl FnMut(EventRef<'a>),
    ) -> Result<(), BadRecord> {
        let mut rest = payload;
        let mut pid = header.running_pid;
        for _ in 0..header.records {
            let Some((head, fields)) = rest.split_first_chunk::<RECORD_HEAD>() else {
                return Err(BadRecord::Truncated);
            };
            let index = u16::from_le_bytes([head[0], head[1]]);
            let offset_ticks = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
            let number = self.by_index[usize::from(index)];
            let plan = self.plans.get(usize::from(number)).ok_or(BadRecord::UnknownIndex(index))?;
            let len = plan.len(fields).ok_or(BadRecord::Truncated)?;
            let (bytes, next) = fields.split_at(len);
            let time_ticks =
                header.base_ticks.checked_add(offset_ticks.into()).ok_or(BadRecord::Time)?;
            sink(EventRef { time_ticks, cpu: header.cpu, pid, plan, bytes });
            if let Some(&to) = plan.switch_to.and_then(|at| bytes.get(at..)?.first_chunk::<4>()) {
                pid = u32::from_le_bytes(to);
            }
            rest = next;
        }
        if rest.is_empty() { Ok(()) } else { Err(BadRecord::Trailing) }
    }
}
