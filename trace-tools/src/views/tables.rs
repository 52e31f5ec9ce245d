//! `info`, `report` and `regions` as tables.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::duration;
use crate::analyses::{Info, Measured, Off, Percentiles, Regions, Report, SectionRow};

fn table(headings: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings);
    for (number, column) in table.column_iter_mut().enumerate() {
        let alignment = if number < left { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(alignment);
    }
    table
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

/// Regions by name, as text; times are of one operation, in ticks of the trace clock.
pub fn regions_text(regions: &Regions) -> String {
    let headings = ["region", "count", "min", "p50", "p99", "max"];
    let mut table = table(&headings, 1);
    for (name, measured) in &regions.by_name {
        let mut ticks: Vec<f64> = measured.iter().map(Measured::ticks_per_op).collect();
        ticks.sort_unstable_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (ticks.len() * percent).div_ceil(100).max(1);
            ticks.get(rank - 1).map_or(String::new(), |ticks| format!("{ticks:.1}"))
        };
        let count = ticks.len().to_string();
        table.add_row([name.clone(), count, rank(0), rank(50), rank(99), rank(100)]);
    }
    format!("{}\n", table.trim_fmt())
}

/// What a trace is, as text.
pub fn info_text(info: &Info) -> String {
    let mut text = String::new();
    let unknown = || "unknown (no hello packet)".to_owned();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<18}{value}");
    };
    line("build id", info.build_id.clone());
    line("command line", info.cmdline.clone().unwrap_or_else(unknown));
    line("CPUs", info.cpu_count.map_or_else(unknown, |n| n.to_string()));
    line("clock", info.tick_hz.map_or_else(unknown, |hz| format!("{hz} ticks/s")));
    line("mode", info.mode.map_or_else(unknown, |mode| mode.as_str().to_owned()));
    line("duration", duration(info.duration_ticks, info.tick_hz.unwrap_or(1)));
    line("events", info.events.to_string());
    line(
        "ended",
        match (info.ended, info.status) {
            (true, Some(status)) => format!("yes, status {status}"),
            _ => "no: the end packet is missing".to_owned(),
        },
    );
    if info.panics > 0 {
        line("kernel panics", info.panics.to_string());
    }
    line(
        "packets",
        format!(
            "{} received, {} lost, {} duplicate, {} undecodable",
            info.packets, info.lost_packets, info.duplicate_packets, info.undecodable
        ),
    );
    line(
        "other bytes",
        format!("{} before the first packet, {} damaged", info.leading_bytes, info.damaged_bytes),
    );
    let inversions = &info.clock_inversions;
    line(
        "clock inversions",
        match inversions.wakeups {
            0 => "0".to_owned(),
            n => format!(
                "{n}, by up to {}",
                duration(inversions.largest_ticks, info.tick_hz.unwrap_or(1))
            ),
        },
    );
    if inversions.backward_steps > 0 {
        line("backward steps", inversions.backward_steps.to_string());
    }
    let mut cpus = table(&["CPU", "produced", "received", "lost", "dropped"], 0);
    for cpu in &info.cpus {
        cpus.add_row([
            cpu.cpu.to_string(),
            cpu.produced.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            cpu.received.to_string(),
            cpu.lost.to_string(),
            cpu.dropped.to_string(),
        ]);
    }
    let verdict = match (info.whole, info.lossy) {
        (true, false) => "whole",
        (true, true) => "whole as sent, but the kernel dropped records",
        (false, _) => "NOT whole",
    };
    format!("{text}\n{cpus}\n\nThe trace is {verdict}.\n")
}

fn percentile_cells(p: &Percentiles, tick_hz: u64) -> [String; 4] {
    [p.p50_ticks, p.p90_ticks, p.p99_ticks, p.max_ticks].map(|ticks| match p.count {
        0 => "-".to_owned(),
        _ => duration(ticks, tick_hz),
    })
}

/// Reports show this many tasks unless asked for all.
const TASKS_SHOWN: usize = 40;
/// And at least so many places where preemption or interrupts were off for long.
const SECTIONS_SHOWN: usize = 10;

fn sections(rows: &[SectionRow], tick_hz: u64, limit: Option<usize>) -> Table {
    let mut table = table(&["off for long", "longest", "times", "ended in"], 1);
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    for row in rows.iter().take(limit.unwrap_or(0).max(SECTIONS_SHOWN)) {
        let off = match row.off {
            Off::Interrupts => "interrupts",
            Off::Preemption => "preemption",
        };
        let place = match &row.place {
            Some(place) => place.to_string(),
            None => format!("{:#x} (--elf names it)", row.site),
        };
        table.add_row([
            off.to_owned(),
            duration(row.longest_ticks, tick_hz),
            row.count.to_string(),
            place,
        ]);
    }
    table
}

/// A report as text; `limit` is how many tasks are listed, 40 where it is `None`.
pub fn report_text(report: &Report, limit: Option<usize>) -> String {
    let hz = report.tick_hz;
    let mut tasks = table(
        &[
            "task",
            "pid",
            "runtime",
            "switches",
            "preempted",
            "wakeups",
            "migr",
            "delay avg",
            "delay max",
            "wake p50",
            "p90",
            "p99",
            "max",
        ],
        1,
    );
    let shown = limit.unwrap_or(TASKS_SHOWN).min(report.tasks.len());
    for task in &report.tasks[..shown] {
        let mut row = vec![
            task.name.clone(),
            task.pid.to_string(),
            duration(task.runtime_ticks, hz),
            task.switches.to_string(),
            task.preemptions.to_string(),
            task.wakeups.to_string(),
            task.migrations.to_string(),
            duration(task.average_delay_ticks, hz),
            duration(task.max_delay_ticks, hz),
        ];
        row.extend(percentile_cells(&task.wake_latency, hz));
        tasks.add_row(row);
    }
    let mut cpus = table(
        &[
            "CPU",
            "busy",
            "idle",
            "unknown",
            "busy %",
            "switches",
            "interrupts",
            "IPIs sent",
            "wakeups",
        ],
        0,
    );
    for cpu in &report.cpus {
        cpus.add_row([
            cpu.cpu.to_string(),
            duration(cpu.busy_ticks, hz),
            duration(cpu.idle_ticks, hz),
            duration(cpu.unknown_ticks, hz),
            percent(cpu.busy_ticks, cpu.busy_ticks + cpu.idle_ticks),
            cpu.switches.to_string(),
            cpu.interrupts.to_string(),
            cpu.ipis_sent.to_string(),
            cpu.wakeups_sent.to_string(),
        ]);
    }
    let [p50, p90, p99, max] = percentile_cells(&report.wake_latency, hz);
    let mut text = format!("{tasks}\n");
    if shown < report.tasks.len() {
        let _ = writeln!(text, " … and {} tasks more (--all)", report.tasks.len() - shown);
    }
    let _ = write!(text, "\n{cpus}\n\n");
    if !report.sections.is_empty() {
        let _ = write!(text, "{}\n\n", sections(&report.sections, hz, limit));
    }
    let _ = write!(
        text,
        "wake latency   p50 {p50}   p90 {p90}   p99 {p99}   max {max}   ({} wake-ups)\n\
         {} events in {}: {} lost, {} dropped, {} bytes damaged{}\n",
        report.wake_latency.count,
        report.events,
        duration(report.duration_ticks, hz),
        report.lost,
        report.dropped,
        report.damaged_bytes,
        if report.whole { "" } else { " - the trace is NOT whole" },
    );
    text
}
