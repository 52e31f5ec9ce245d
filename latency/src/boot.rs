//! One boot: from a machine to its trace.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use machine::{Bundle, ENVIRONMENT, Machine, Memory, Port, Status};
use trace_tools::{Decoder, Schema, Session, Trace, trace::Builder};

use crate::{
    Error, Result,
    suite::{Boot, Choice, Clock, Job, begins},
};

/// Memory of every boot: what the suite needs, and what is traced.
const MEMORY: Option<Memory> = Memory::from_mib(1024);
/// Host time after which a boot has failed; a limit for guests that hang.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What is measured: an image, and the programs that it finds.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The kernel's ELF.
    pub image: PathBuf,
    /// The files of its programs.
    pub bundle: Bundle,
    /// Stops its machines when it becomes true.
    pub stop: Option<Arc<AtomicBool>>,
}

/// What a boot records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Regions only: nothing disturbs what is measured.
    Regions,
    /// Every event on the way through them, which costs some instructions each.
    Paths,
}

impl Recorded {
    /// The kernel's words for it. Nothing is drained before the end; the rings hold what is recorded until then.
    fn words(self) -> &'static str {
        match self {
            Self::Regions => "trace=mark trace_mode=snapshot trace_buf=4096",
            Self::Paths => "trace=all trace_mode=snapshot trace_buf=65536",
        }
    }
}

/// Boots the subject and returns its trace.
///
/// # Errors
/// Where it cannot be booted, does not end with status 0, or its trace is not whole.
pub fn run(boot: &Boot, subject: &Subject, only: &[Choice], recorded: Recorded) -> Result<Trace> {
    let prefixes = prefixes(boot, only);
    let scratch = tempfile::NamedTempFile::new().map_err(Error::write("a temporary file"))?;
    let archive = bundle(boot, subject, &prefixes).archive();
    std::fs::write(scratch.path(), archive).map_err(Error::write(scratch.path()))?;
    let mut machine = Machine::new(&subject.image);
    machine.cpus = boot.cpus;
    machine.memory = MEMORY.unwrap_or_default();
    machine.clock = match boot.clock {
        Clock::Instructions => machine::Clock::Instructions,
        Clock::Host => machine::Clock::Host,
    };
    machine.port = Port::Virtio;
    machine.bundle = Some(scratch.path().to_owned());
    machine.cmdline = cmdline(boot, &prefixes, recorded);
    machine.timeout = Some(TIMEOUT);
    machine.stop = subject.stop.clone();
    let failed = |problem: String| Error::Boot {
        boot: boot.name.clone(),
        image: subject.image.clone(),
        problem,
    };
    let (status, trace) = follow(&machine, &subject.image)?;
    let console = || {
        let text = trace.console().iter().flat_map(|chunk| chunk.text.iter().copied());
        let text = text.chain(trace.output_of(trace_tools::Stream::Err)).collect::<Vec<_>>();
        String::from_utf8_lossy(&text).trim_end().to_owned()
    };
    if status != Status::Guest(0) {
        return Err(failed(format!("it ended with {status:?}; it wrote:\n{}", console())));
    }
    if !trace.is_whole() {
        return Err(failed(format!("its trace is not whole: {:?}", trace.accounts())));
    }
    if recorded == Recorded::Regions && trace.accounts().dropped() > 0 {
        let dropped = trace.accounts().dropped();
        return Err(failed(format!("{dropped} marks did not fit into the trace's rings")));
    }
    Ok(trace)
}

/// The beginnings of the regions' names that the job itself is asked for: the wanted ones that the boot has, or all
/// that the boot has. None is all there are.
fn prefixes(boot: &Boot, only: &[Choice]) -> Vec<String> {
    // Where the boot has only parts of what is wanted, those; else what is wanted.
    let narrower = |wanted: &str| {
        let parts =
            boot.only.iter().filter(|only| begins(only, wanted) && only.len() > wanted.len());
        let parts: Vec<_> = parts.cloned().collect();
        if parts.is_empty() { vec![wanted.to_owned()] } else { parts }
    };
    if only.is_empty() {
        return boot.only.clone();
    }
    let mine = only.iter().filter(|choice| choice.is_of(boot));
    mine.flat_map(|choice| narrower(choice.prefix())).collect()
}

fn bundle(boot: &Boot, subject: &Subject, prefixes: &[String]) -> Bundle {
    let mut bundle = subject.bundle.clone();
    if let Job::Program(words) = &boot.job {
        let mut words = words.clone();
        if boot.is_suites_own {
            words.extend(["--idle".into(), boot.idle.as_str().into()]);
            words.extend(prefixes.iter().flat_map(|prefix| ["--only".into(), prefix.clone()]));
        }
        if !words[0].contains('/') {
            words[0].insert_str(0, "/bin/");
        }
        bundle.instruct("argv", words);
        bundle.instruct("env", ENVIRONMENT);
    }
    bundle
}

fn cmdline(boot: &Boot, prefixes: &[String], recorded: Recorded) -> String {
    let mut words = vec![recorded.words().to_owned(), format!("trace_out={}", Port::Virtio)];
    words.push(format!("idle={} aslr=off seed=1", boot.idle.as_str()));
    if let Job::Workload(name) = &boot.job {
        let only = if prefixes.is_empty() {
            String::new()
        } else {
            format!(",only={}", prefixes.join(","))
        };
        words.push(format!("workload={name}{only}"));
    }
    words.join(" ")
}

/// Runs the machine to its end and decodes what it sent.
fn follow(machine: &Machine, image: &Path) -> Result<(Status, Trace)> {
    let elf = std::fs::read(image).map_err(Error::read(image))?;
    let mut session = Session::new(Decoder::new(Schema::from_elf(&elf)?)?);
    let mut builder = Builder::default();
    let mut running = machine.start()?;
    let mut refused = None;
    let status = running.follow(|port, bytes| -> Result<()> {
        if port == machine.port && refused.is_none() {
            refused = session.push(bytes, |item| builder.add(item)).err();
        }
        Ok(())
    })?;
    if let Some(error) = refused {
        return Err(error.into());
    }
    session.finish(|item| builder.add(item))?;
    Ok((status, builder.finish(&session)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Idle;

    fn boot(only: &[&str]) -> Boot {
        Boot {
            name: "b".into(),
            mark: Some("halt".into()),
            clock: Clock::Instructions,
            cpus: 1,
            idle: Idle::Halt,
            job: Job::Workload("latency".into()),
            only: only.iter().map(|&it| it.into()).collect(),
            except: vec![],
            is_suites_own: true,
        }
    }

    #[test]
    fn a_boot_is_asked_for_what_it_has_of_what_is_wanted() {
        let choices =
            |texts: &[&str]| texts.iter().map(|text| Choice::new(text)).collect::<Vec<_>>();
        assert_eq!(prefixes(&boot(&["timer/idle", "wake"]), &[]), ["timer/idle", "wake"]);
        assert_eq!(prefixes(&boot(&["timer/idle", "wake"]), &choices(&["timer"])), ["timer/idle"]);
        assert_eq!(prefixes(&boot(&["timer"]), &choices(&["timer/idle", "fork"])), ["timer/idle"]);
        assert_eq!(prefixes(&boot(&[]), &choices(&["a", "b@halt", "c@x"])), ["a", "b"]);
        assert_eq!(
            cmdline(&boot(&["timer"]), &["timer".into()], Recorded::Regions),
            "trace=mark trace_mode=snapshot trace_buf=4096 trace_out=virtio idle=halt aslr=off seed=1 \
             workload=latency,only=timer"
        );
    }
}
