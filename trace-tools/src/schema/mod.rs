//! What the statements of one build of the kernel mean: the schema of its traces.
//!
//! [`Schema::from_elf`] reads it from the image's symbols, a recording carries it as JSON. It holds
//! nothing of the host, so the same image always gives the same bytes. What the statements decode
//! to is the next floor, [`crate::events`].

mod elf;
mod log;
mod statement;

pub use log::LogTable;
pub use statement::{Field, FieldType, Statement};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Version of the schema's JSON.
const VERSION: u32 = 1;

/// A kernel event of this build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatement {
    /// Number that stands for it in a record.
    pub index: u16,
    /// Category that switches it on and off.
    pub category: String,
    /// Name within the category.
    pub name: String,
    /// Fields in wire order.
    pub fields: Vec<Field>,
}

/// A defmt statement that is not a kernel event: a log line, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatement {
    /// Number that stands for it in a frame.
    pub index: u16,
    /// defmt's tag, without `defmt_`: `info`, `println`, `derived`…
    pub tag: String,
    /// The format string.
    pub format: String,
}

/// Everything that is needed to decode the traces of one build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    version: u32,
    /// GNU build id, lower-case hex.
    pub build_id: String,
    /// The kernel's events, by rising index.
    pub events: Vec<EventStatement>,
    /// The kernel's log lines and their parts, by rising index.
    pub logs: Vec<LogStatement>,
    /// Format of defmt's own timestamp, where the image defines one.
    pub log_timestamp: Option<String>,
}

impl Schema {
    /// A schema of these statements; indices must be unique.
    ///
    /// # Errors
    /// [`Error::Schema`] where the statements contradict each other.
    pub fn new(
        build_id: String,
        mut events: Vec<EventStatement>,
        mut logs: Vec<LogStatement>,
        log_timestamp: Option<String>,
    ) -> Result<Self, Error> {
        events.sort_by_key(|event| event.index);
        logs.sort_by_key(|log| log.index);
        let schema = Self { version: VERSION, build_id, events, logs, log_timestamp };
        schema.check()?;
        Ok(schema)
    }

    /// Reads the schema from a kernel image.
    ///
    /// # Errors
    /// [`Error::Elf`] where the file is not an ELF file, or lacks a build id or the statements;
    /// [`Error::Schema`] where the statements contradict each other.
    pub fn from_elf(image: &[u8]) -> Result<Self, Error> {
        elf::read(image)
    }

    /// Reads the schema from the JSON that [`Self::to_json`] writes.
    ///
    /// # Errors
    /// [`Error::Schema`] where it is malformed or contradicts itself.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let schema: Self =
            serde_json::from_slice(json).map_err(|error| Error::Schema(error.to_string()))?;
        if schema.version != VERSION {
            return Err(Error::Schema(format!(
                "it has version {}, this program reads version {VERSION}",
                schema.version
            )));
        }
        schema.check()?;
        Ok(schema)
    }

    /// The schema as JSON; the same bytes for the same schema.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a schema has only strings for keys")
    }

    /// Refuses a stream of another build.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where `build_id` is not this schema's.
    pub fn check_build(&self, build_id: &str) -> Result<(), Error> {
        if self.build_id == build_id {
            return Ok(());
        }
        Err(Error::Mismatch { stream: build_id.to_owned(), schema: self.build_id.clone() })
    }

    fn check(&self) -> Result<(), Error> {
        let malformed = |reason: String| Err(Error::Schema(reason));
        if self.events.is_empty() {
            return malformed("it has no kernel event".to_owned());
        }
        let mut indices: Vec<u16> = self.events.iter().map(|event| event.index).collect();
        indices.extend(self.logs.iter().map(|log| log.index));
        indices.sort_unstable();
        if let Some(twice) = indices.windows(2).find(|pair| pair[0] == pair[1]) {
            return malformed(format!("index {} stands for two statements", twice[0]));
        }
        for event in &self.events {
            let names = [&event.category, &event.name];
            let mut fields = event.fields.iter().map(|field| &field.name);
            if let Some(bad) =
                names.into_iter().chain(fields.by_ref()).find(|name| !statement::is_name(name))
            {
                return malformed(format!("`{bad}` is not a name"));
            }
        }
        let mut titles: Vec<_> = self.events.iter().map(|e| (&e.category, &e.name)).collect();
        titles.sort_unstable();
        if let Some(twice) = titles.windows(2).find(|pair| pair[0] == pair[1]) {
            return malformed(format!("event {}:{} is declared twice", twice[0].0, twice[0].1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(index: u16, text: &str) -> EventStatement {
        let Statement { category, name, fields } = Statement::parse(text).unwrap();
        EventStatement { index, category, name, fields }
    }

    fn schema() -> Schema {
        let events = vec![event(9, "mark:mark value={=u64} text={=str}"), event(3, "idle:tick")];
        let logs =
            vec![LogStatement { index: 4, tag: "info".into(), format: "hello {=u8}".into() }];
        Schema::new("ab".into(), events, logs, None).unwrap()
    }

    #[test]
    fn json_round_trips_and_is_stable() {
        let json = schema().to_json();
        assert_eq!(Schema::from_json(&json).unwrap(), schema());
        assert_eq!(Schema::from_json(&json).unwrap().to_json(), json);
    }

    #[test]
    fn contradictions_are_named() {
        let twice = vec![event(3, "a:b"), event(3, "a:c")];
        let error = Schema::new("ab".into(), twice, vec![], None).unwrap_err().to_string();
        assert!(error.contains("index 3"), "{error}");
        let twice = vec![event(3, "a:b"), event(4, "a:b")];
        let error = Schema::new("ab".into(), twice, vec![], None).unwrap_err().to_string();
        assert!(error.contains("a:b is declared twice"), "{error}");
    }

    #[test]
    fn another_version_is_refused() {
        let json = String::from_utf8(schema().to_json()).unwrap();
        let newer = json.replacen("\"version\":1", "\"version\":2", 1);
        assert!(Schema::from_json(newer.as_bytes()).unwrap_err().to_string().contains("version 2"));
    }

    #[test]
    fn a_mismatch_names_both_builds() {
        let error = schema().check_build("cd").unwrap_err().to_string();
        assert!(error.contains("build cd") && error.contains("build ab"), "{error}");
    }
}
