//! The events that this program knows, typed.
//!
//! `kernel/src/trace/events.rs` declares them, and may move them to another category. An event whose statement has another name, or lacks
//! a field that is listed here, or has it with another type, is [`Known::Other`] and still decodes
//! by name.

use super::{Plan, Value};
use crate::schema::FieldType;

/// What a field of a known event may be.
trait Typed<'a>: Sized {
    const TYPE: FieldType;
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! typed {
    ($($ty:ty = $field:ident via $get:ident),* $(,)?) => {$(
        impl<'a> Typed<'a> for $ty {
            const TYPE: FieldType = FieldType::$field;
            fn from_value(value: Value<'a>) -> Option<Self> {
                value.$get()?.try_into().ok()
            }
        }
    )*};
}

typed!(u8 = U8 via as_u64, u16 = U16 via as_u64, u32 = U32 via as_u64, u64 = U64 via as_u64,
       i8 = I8 via as_i64, i32 = I32 via as_i64);

/// Text of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl<'a> Typed<'a> for Text<'a> {
    const TYPE: FieldType = FieldType::Str;
    fn from_value(value: Value<'a>) -> Option<Self> {
        value.as_bytes().map(Text)
    }
}

impl Text<'_> {
    /// The text, with what is not UTF-8 replaced.
    pub fn to_text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

impl<'a> Typed<'a> for &'a [u8] {
    const TYPE: FieldType = FieldType::Bytes;
    fn from_value(value: Value<'a>) -> Option<Self> {
        value.as_bytes()
    }
}

macro_rules! known {
    ($($variant:ident = $name:literal { $($field:ident: $ty:ty),* $(,)? })*) => {
        /// Which known event a plan decodes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum KnownKind { $($variant),* }

        impl KnownKind {
            /// The known event that a plan decodes and where its fields are, in the order below.
            pub(super) fn bind<'a>(plan: &'a Plan) -> Option<(Self, Vec<usize>)> {
                match &*plan.name {
                    $($name => {
                        #[allow(unused_mut)]
                        let mut slots = Vec::new();
                        $(
                            let slot = plan.slot(stringify!($field))?;
                            if plan.fields()[slot].ty != <$ty as Typed<'a>>::TYPE {
                                return None;
                            }
                            slots.push(slot);
                        )*
                        Some((Self::$variant, slots))
                    })*
                    _ => None,
                }
            }
        }

        /// An event with typed fields. Task states are [`crate::model::TaskState`]'s numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Known<'a> {
            $($variant { $($field: $ty),* },)*
            /// An event this program does not know by name.
            Other,
        }

        impl<'a> Known<'a> {
            pub(super) fn read(plan: &Plan, bytes: &'a [u8]) -> Self {
                #[allow(unused_mut, unused_variables)]
                let mut slots = plan.slots.iter().copied();
                match plan.known {
                    $(Some(KnownKind::$variant) => {
                        $(
                            let value = slots.next().and_then(|slot| plan.value(slot, bytes));
                            let Some($field) = value.and_then(Typed::from_value) else {
                                return Self::Other;
                            };
                        )*
                        Self::$variant { $($field),* }
                    })*
                    None => Self::Other,
                }
            }
        }
    };
}

known! {
    SchedSwitch = "sched_switch" { next: u32, prev_state: u8, seq: u8 }
    SchedWakeup = "sched_wakeup" { pid: u32, target: u8, seq: u8 }
    SchedEnqueue = "sched_enqueue" { pid: u32, queued: u16, seq: u8 }
    InboxDrain = "inbox_drain" { count: u16 }
    NeedResched = "need_resched" { pid: u32 }
    SchedMigrate = "sched_migrate" { pid: u32, from: u8, to: u8, seq: u8, reason: u8 }
    IpiSend = "ipi_send" { target: u8, kind: u8 }
    IpiReceive = "ipi_receive" { kind: u8 }
    IrqEnter = "irq_enter" { vector: u8 }
    IrqExit = "irq_exit" { vector: u8 }
    SoftirqEnter = "softirq_enter" { kind: u8 }
    SoftirqExit = "softirq_exit" { kind: u8 }
    WorkStart = "work_start" { function: u64 }
    WorkEnd = "work_end" { function: u64 }
    TimerArm = "timer_arm" { deadline: u64 }
    TimerExpire = "timer_expire" { late: u32, pid: u32 }
    IdleEnter = "idle_enter" { mode: u8 }
    IdleExit = "idle_exit" { mode: u8 }
    PreemptOff = "preempt_off" { ticks: u32, site: u64 }
    IrqOff = "irq_off" { ticks: u32, site: u64 }
    TaskNew = "task_new" { pid: u32, parent: u32 }
    TaskAttr = "task_attr" {
        pid: u32, class: u8, priority: u8, nice: i8, affinity: u64, name: Text<'a>,
    }
    TaskExit = "task_exit" { pid: u32, code: i32 }
    TaskDump = "task_dump" { pid: u32, parent: u32, state: u8, cpu: u8 }
    LockContended = "lock_contended" { lock: u64, ticks: u32, owner: u8 }
    PageFault = "page_fault" { address: u64, ip: u64, code: u32 }
    Mark = "mark" { value: u64, text: Text<'a> }
    Log = "log" { frame: &'a [u8] }
}
