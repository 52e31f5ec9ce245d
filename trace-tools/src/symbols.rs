//! Addresses as functions and lines, from the kernel's ELF.
//!
//! Line tables come from DWARF by `addr2line`, inlined calls included; where an image has none, the
//! symbol table still gives function names.

use std::{fmt, sync::Arc};

use addr2line::Context;
use gimli::{Dwarf, EndianArcSlice, RunTimeEndian};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use serde::Serialize;

use crate::Error;

type Reader = EndianArcSlice<RunTimeEndian>;

/// Parts of the paths of files whose code belongs to the end of a guard, or to a pause, wherever that is inlined.
const GUARDS: [&str; 6] = [
    "/sync/",
    "/arch/irq.rs",
    "/arch/latency.rs",
    "/sched/pausing.rs",
    "/mm/space/memory.rs",
    "/library/core/",
];

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Function, demangled.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.as_deref().unwrap_or("?"))?;
        let Some(file) = &self.file else { return Ok(()) };
        write!(f, " at {file}")?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Finds places by address.
pub struct Symboliser {
    context: Context<Reader>,
    /// Functions by address: (start, length in bytes, name).
    functions: Vec<(u64, u64, String)>,
}

impl Symboliser {
    /// Reads an image's symbols and debug information.
    ///
    /// # Errors
    /// [`Error::Elf`] where it is not an ELF file or its debug information is malformed.
    pub fn from_elf(image: &[u8]) -> Result<Self, Error> {
        let bad = |error: &dyn std::fmt::Display| Error::Elf(error.to_string());
        let file = object::File::parse(image).map_err(|error| bad(&error))?;
        let endian =
            if file.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
        let load = |id: gimli::SectionId| -> Result<Reader, Error> {
            let data = match file.section_by_name(id.name()) {
                Some(section) => section.uncompressed_data().map_err(|error| bad(&error))?,
                None => Default::default(),
            };
            Ok(EndianArcSlice::new(Arc::from(&*data), endian))
        };
        let dwarf = Dwarf::load(load)?;
        let context = Context::from_dwarf(dwarf).map_err(|error| bad(&error))?;
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text)
            .filter_map(|symbol| {
                let name = addr2line::demangle_auto(symbol.name().ok()?.into(), None).into_owned();
                Some((symbol.address(), symbol.size(), name))
            })
            .collect();
        functions.sort();
        Ok(Self { context, functions })
    }

    /// The places an address belongs to: the innermost inlined function first, the function that
    /// was really called last. Empty where nothing is known.
    pub fn places(&self, address: u64) -> Vec<Place> {
        let mut places = self.line_table(address).unwrap_or_default();
        if places.is_empty() {
            places.extend(self.function(address).map(|name| Place {
                function: Some(name.to_owned()),
                file: None,
                line: None,
            }));
        }
        places
    }

    /// The place where a section with preemption or interrupts off ended: not in the guard's own code, as far as
    /// that is inlined there.
    pub fn section_place(&self, site: u64) -> Option<Place> {
        let mut places = self.places(site);
        let is_guard = |file: &str| GUARDS.iter().any(|guard| file.contains(guard));
        let chosen = places
            .iter()
            .position(|place| place.file.as_deref().is_some_and(|file| !is_guard(file)));
        let last = places.len().checked_sub(1)?;
        Some(places.swap_remove(chosen.unwrap_or(last)))
    }

    /// The places of a return address: those of the call before it.
    pub fn call_places(&self, return_address: u64) -> Vec<Place> {
        self.places(return_address.saturating_sub(1))
    }

    fn line_table(&self, address: u64) -> Result<Vec<Place>, gimli::Error> {
        let mut places = Vec::new();
        let mut frames = self.context.find_frames(address).skip_all_loads()?;
        while let Some(frame) = frames.next()? {
            let function = match frame.function {
                Some(function) => function.demangle().ok().map(|name| name.into_owned()),
                None => None,
            };
            let (file, line) = match frame.location {
                Some(location) => (location.file.map(str::to_owned), location.line),
                None => (None, None),
            };
            if function.is_some() || file.is_some() {
                places.push(Place { function, file, line });
            }
        }
        Ok(places)
    }

    fn function(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(start, _, _)| *start <= address);
        let (start, len, name) = self.functions.get(after.checked_sub(1)?)?;
        // Assembly often has no size.
        (*len == 0 || address - start < *len).then_some(name)
    }
}

impl fmt::Debug for Symboliser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symboliser")
            .field("functions", &self.functions.len())
            .finish_non_exhaustive()
    }
}
