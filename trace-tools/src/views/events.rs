//! Events and what surrounds them, a line each: text for people, JSON for programs.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
};

use orrery_core::trace::wire::Stream;
use serde_json::json;

use crate::{
    events::{EventRef, Known, Value},
    model::TaskState,
    schema::LogTable,
    session::{Decoder, Item},
    symbols::Symboliser,
    transport::{End, Gap, Hello, Panic},
};

use super::timestamp;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line, each with its `kind`.
    Json,
}

/// Writes items as lines. Learns task names as they come by.
#[derive(Debug)]
pub struct EventWriter<'a, W: Write> {
    output: W,
    format: Format,
    decoder: Decoder,
    symbols: Option<&'a Symboliser>,
    tick_hz: u64,
    names: HashMap<u32, String>,
    line: String,
}

impl<'a, W: Write> EventWriter<'a, W> {
    /// A writer of lines; `symbols` make a panic's backtrace readable.
    pub fn new(
        output: W,
        format: Format,
        decoder: Decoder,
        symbols: Option<&'a Symboliser>,
    ) -> Self {
        let names = HashMap::from([(0, "idle".to_owned())]);
        Self { output, format, decoder, symbols, tick_hz: 1, names, line: String::new() }
    }

    /// Writes the line or lines of an item; packets and foreign bytes have none.
    ///
    /// # Errors
    /// What writing gives.
    pub fn item(&mut self, item: &Item<'_>) -> io::Result<()> {
        match item {
            Item::Packet(_) | Item::Foreign(_) => Ok(()),
            Item::Hello(hello) => self.hello(hello),
            Item::Gap { cpu, gap } => self.gap(*cpu, gap),
            Item::Event(event) => self.event(event),
            Item::Console { time_ticks, cpu, text } => {
                self.text("console", *time_ticks, *cpu, text)
            }
            Item::Output { time_ticks, cpu, stream, bytes } => {
                let source = match stream {
                    Stream::Out => "stdout",
                    Stream::Err => "stderr",
                };
                self.text(source, *time_ticks, *cpu, bytes)
            }
            Item::Panic(panic) => self.panic(panic),
            Item::End(end) => self.end(end),
            Item::Malformed { cpu, reason } => {
                let text = format!("malformed block of cpu {cpu}: {reason}");
                self.note("malformed", &text, json!({"cpu": cpu, "reason": reason.to_string()}))
            }
        }
    }

    /// Writes the stream's hello, and takes the clock's rate from it.
    ///
    /// # Errors
    /// What writing gives.
    pub fn hello(&mut self, hello: &Hello) -> io::Result<()> {
        self.tick_hz = hello.tick_hz;
        let text = format!(
            "build {}, {} CPUs, {} ticks/s, {} mode, command line: {}",
            hello.build_id,
            hello.cpus,
            hello.tick_hz,
            hello.mode.as_str(),
            hello.cmdline
        );
        let value = json!({
            "build_id": hello.build_id, "cpus": hello.cpus, "tick_hz": hello.tick_hz,
            "mode": hello.mode, "cmdline": hello.cmdline,
        });
        self.note("hello", &text, value)
    }

    /// Writes what was missing.
    ///
    /// # Errors
    /// What writing gives.
    pub fn gap(&mut self, cpu: u16, gap: &Gap) -> io::Result<()> {
        let text = format!(
            "missing before the next block of cpu {cpu}: {} packets of any cpu, {} records lost, {} dropped",
            gap.packets, gap.records, gap.dropped
        );
        let value = json!({
            "cpu": cpu, "packets": gap.packets, "records": gap.records, "dropped": gap.dropped,
        });
        self.note("gap", &text, value)
    }

    /// Writes a fatal error with its backtrace.
    ///
    /// # Errors
    /// What writing gives.
    pub fn panic(&mut self, panic: &Panic) -> io::Result<()> {
        match self.format {
            Format::Text => self.output.write_all(panic_text(panic, self.symbols).as_bytes()),
            Format::Json => {
                let value = serde_json::to_value(panic).map_err(io::Error::other)?;
                self.note("panic", "", value)
            }
        }
    }

    /// Writes the end of the stream.
    ///
    /// # Errors
    /// What writing gives.
    pub fn end(&mut self, end: &End) -> io::Result<()> {
        let text = format!("end, status {}", end.status);
        self.note("end", &text, json!({"status": end.status, "cpus": end.cpus}))
    }

    /// Writes what the kernel (`console`) or a program wrote; in text form, line by line.
    fn text(&mut self, source: &str, time_ticks: u64, cpu: u16, text: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(text);
        if self.format == Format::Json {
            let value = json!({"time_ticks": time_ticks, "cpu": cpu, "text": text});
            return self.note(source, "", value);
        }
        let time = timestamp(time_ticks, self.tick_hz);
        for line in text.lines() {
            writeln!(self.output, "{source:>22}  [{cpu:03}] {time:>14}: {}", printable(line))?;
        }
        Ok(())
    }

    /// Writes an event.
    ///
    /// # Errors
    /// What writing gives.
    pub fn event(&mut self, event: &EventRef<'_>) -> io::Result<()> {
        let known = self.learn(event);
        self.line.clear();
        match self.format {
            Format::Text => self.text_line(event, &known),
            Format::Json => {
                json_line(&mut self.line, event, &known, &self.decoder.logs);
            }
        }
        self.line.push('\n');
        self.output.write_all(self.line.as_bytes())
    }

    /// Takes from an event what later lines need, without writing it.
    pub fn learn<'e>(&mut self, event: &EventRef<'e>) -> Known<'e> {
        let known = event.known();
        match known {
            Known::TaskAttr { pid, name, .. } => {
                self.names.insert(pid, name.to_text());
            }
            Known::TaskNew { pid, .. } => {
                self.names.remove(&pid);
            }
            _ => {}
        }
        known
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// What flushing gives.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Gives the output back.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn text_line(&mut self, event: &EventRef<'_>, known: &Known<'_>) {
        let Self { line, names, tick_hz, decoder, .. } = self;
        let name = names.get(&event.pid).map_or("?", String::as_str);
        let task = format!("{}-{}", printable(name), event.pid);
        let time = timestamp(event.time_ticks, *tick_hz);
        // Writing to a string does not fail.
        let _ = write!(line, "{task:>22}  [{:03}] {time:>14}: {}:", event.cpu, event.name());
        if let Known::Log { frame } = known {
            let _ = write!(line, " {}", printable(&decoder.logs.render(frame)));
            return;
        }
        for (field, value) in event.fields() {
            let _ = write!(line, " {field}=");
            let _ = match (field, value) {
                ("next" | "pid" | "parent", Value::Unsigned(pid)) => {
                    match u32::try_from(pid).ok().and_then(|pid| names.get(&pid)) {
                        Some(name) => write!(line, "{}-{pid}", printable(name)),
                        None => write!(line, "{pid}"),
                    }
                }
                ("prev_state" | "state", Value::Unsigned(state)) => {
                    match u8::try_from(state).ok().and_then(TaskState::from_number) {
                        Some(state) => write!(line, "{}", state.letter()),
                        None => write!(line, "{state}"),
                    }
                }
                (
                    "address" | "ip" | "site" | "function" | "lock" | "affinity",
                    Value::Unsigned(n),
                ) => {
                    write!(line, "{n:#x}")
                }
                (_, Value::Unsigned(n)) => write!(line, "{n}"),
                (_, Value::Signed(n)) => write!(line, "{n}"),
                (_, Value::Bool(b)) => write!(line, "{b}"),
                (_, Value::Text(text)) => {
                    write!(line, "{:?}", String::from_utf8_lossy(text))
                }
                (_, Value::Bytes(bytes)) => bytes.iter().try_for_each(|b| write!(line, "{b:02x}")),
            };
        }
    }

    fn note(&mut self, kind: &str, text: &str, value: serde_json::Value) -> io::Result<()> {
        match self.format {
            Format::Text => writeln!(self.output, "# {}", printable(text)),
            Format::Json => {
                let mut line = json!({"kind": kind});
                if let (Some(line), serde_json::Value::Object(fields)) =
                    (line.as_object_mut(), value)
                {
                    line.extend(fields);
                }
                writeln!(self.output, "{line}")
            }
        }
    }
}

fn json_line(line: &mut String, event: &EventRef<'_>, known: &Known<'_>, logs: &LogTable) {
    let _ = write!(
        line,
        r#"{{"kind":"event","time_ticks":{},"cpu":{},"pid":{},"category":"{}","name":"{}""#,
        event.time_ticks,
        event.cpu,
        event.pid,
        event.category(),
        event.name()
    );
    if let Known::Log { frame } = known {
        let _ = write!(line, r#","text":{}}}"#, json!(logs.render(frame)));
        return;
    }
    line.push_str(r#","fields":{"#);
    for (number, (field, value)) in event.fields().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // Names of a schema need no escapes: letters, digits and underscores.
        let _ = write!(line, r#"{comma}"{field}":"#);
        let _ = match value {
            Value::Unsigned(n) => write!(line, "{n}"),
            Value::Signed(n) => write!(line, "{n}"),
            Value::Bool(b) => write!(line, "{b}"),
            Value::Text(text) => write!(line, "{}", json!(String::from_utf8_lossy(text))),
            Value::Bytes(bytes) => write!(line, "{}", json!(bytes)),
        };
    }
    line.push_str("}}");
}

/// Text of a guest made safe for a terminal: control characters but tabs are shown, not obeyed.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() && c != '\t') {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().map(|c| match c {
        '\t' => '\t'.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    });
    Cow::Owned(shown.collect())
}

/// A fatal error of the kernel as people read it, with functions and lines where `symbols` know them.
pub fn panic_text(panic: &Panic, symbols: Option<&Symboliser>) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write!(text, "kernel panic: {}", printable(&panic.message));
    if let Some(location) = &panic.location {
        let _ = write!(text, "\n  at {}", printable(location));
    }
    let unknown = || "?".to_owned();
    let _ = writeln!(
        text,
        "\n  on cpu {}, task {} (pid {})",
        panic.cpu.map_or_else(unknown, |cpu| cpu.to_string()),
        printable(panic.task.as_deref().unwrap_or("?")),
        panic.pid.map_or_else(unknown, |pid| pid.to_string()),
    );
    for register in panic.registers.chunks(4) {
        let _ = writeln!(text, "  {}", printable(&register.join("  ")));
    }
    for lock in &panic.locks {
        let _ = writeln!(text, "  holds {}", printable(lock));
    }
    if !panic.frames.is_empty() {
        let _ = writeln!(text, "backtrace:");
    }
    for (number, &address) in panic.frames.iter().enumerate() {
        let places = symbols.map(|symbols| symbols.call_places(address)).unwrap_or_default();
        let _ = write!(text, "{number:4}: {address:#018x}");
        if places.is_empty() {
            text.push('\n');
        }
        for (depth, place) in places.iter().enumerate() {
            let indent = if depth == 0 { " " } else { "                         " };
            let inlined = if depth + 1 < places.len() { " (inlined)" } else { "" };
            let function = place.function.as_deref().unwrap_or("?");
            let _ = write!(text, "{indent}{function}{inlined}");
            if let Some(file) = &place.file {
                let _ = write!(text, "\n                           at {file}");
                if let Some(line) = place.line {
                    let _ = write!(text, ":{line}");
                }
            }
            text.push('\n');
        }
    }
    text
}
