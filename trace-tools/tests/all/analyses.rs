//! The replay and what is computed from it, on traces small enough to check by hand.

use orrery_core::trace::wire::Encoding;
use trace_tools::{
    Trace,
    analyses::{Inversions, Measured, Off, Report, info, inversions, path, regions, report},
    events::{Known, Value},
    model::{Class, Model},
    symbols::Symboliser,
    synthetic::{Block, Fields, Stream},
    views::report_text,
};

use crate::elf::elf;
use crate::stream::{
    HELLO_LINE, IRQ_ENTER, IRQ_OFF, LOG, MARK, MIGRATE, PREEMPT_OFF, SWITCH, TASK_ATTR, TASK_NEW,
    UNHEARD_OF, WAKEUP, attr, decoder, mark, section, switch, wakeup,
};

/// Records of one CPU, starting with this task at time 0.
type Lane<'a> = (u32, &'a [(u32, u16, Fields)]);

fn trace(lanes: &[Lane<'_>]) -> Trace {
    let mut stream = Stream::new(lanes.len() as u32, Encoding::Compact);
    stream.hello();
    for ((running, records), cpu) in lanes.iter().zip(0..) {
        let mut block = Block::new(cpu, 0, *running);
        for (time, index, fields) in *records {
            block.record(*index, *time, fields);
        }
        stream.block(&block);
    }
    stream.end(0);
    Trace::read(decoder(), &*stream.bytes(), |_| {}).unwrap()
}

fn reported(lanes: &[Lane<'_>]) -> Report {
    let trace = trace(lanes);
    report(&trace, &Model::replay(&trace))
}

#[test]
fn events_have_their_fields_by_name_and_type() {
    let flag = Fields::new().int([1]).int((-2i16).to_le_bytes());
    let trace = trace(&[(
        3,
        &[
            (1, MARK, mark(u64::MAX, "é\u{1b}")),
            (2, UNHEARD_OF, flag),
            (3, SWITCH, switch(9, 1, 4)),
            (4, TASK_ATTR, attr(9, "nine")),
            (5, LOG, Fields::new().bytes(&[HELLO_LINE as u8, 0, 7])),
        ],
    )]);
    let events: Vec<_> = trace.iter().collect();
    assert_eq!(events[0].u64("value"), Some(u64::MAX));
    assert_eq!(events[0].field("text"), Some(Value::Text("é\u{1b}".as_bytes())));
    assert_eq!(events[1].known(), Known::Other);
    assert_eq!((events[1].category(), events[1].name()), ("custom", "unheard_of"));
    let fields: Vec<_> = events[1].fields().collect();
    assert_eq!(fields, [("flag", Value::Bool(true)), ("depth", Value::Signed(-2))]);
    assert_eq!(events[2].known(), Known::SchedSwitch { next: 9, prev_state: 1, seq: 4 });
    // The task that ran is the one before the switch, then the one after it.
    assert_eq!(events.iter().map(|event| event.pid).collect::<Vec<_>>(), [3, 3, 3, 9, 9]);
    let Known::TaskAttr { nice: -5, affinity: 0xF, name, .. } = events[3].known() else {
        panic!("{:?}", events[3].known());
    };
    assert_eq!(name.to_text(), "nine");
    let Known::Log { frame } = events[4].known() else { panic!() };
    assert_eq!(trace.decoder().logs.render(frame), "INFO hello 7");
}

#[test]
fn runtime_delay_and_latency_of_a_wakeup() {
    let report = reported(&[
        // 5 runs and wakes 7 at 100, sleeps at 300; the CPU then idles until 1000.
        (
            5,
            &[
                (0, TASK_ATTR, attr(5, "waker")),
                (100, WAKEUP, wakeup(7, 1, 1)),
                (300, SWITCH, switch(0, 1, 0)),
                (1000, IRQ_ENTER, Fields::new().int([32])),
            ],
        ),
        // 7 gets CPU 1 at 160, is preempted by 8 at 400, runs again from 450 to 900.
        (
            0,
            &[
                (10, TASK_ATTR, attr(7, "woken")),
                (160, SWITCH, switch(7, 0, 1)),
                (200, MIGRATE, Fields::new().int(7u32.to_le_bytes()).int([0, 1, 1, 0])),
                (400, SWITCH, switch(8, 0, 0)),
                (450, SWITCH, switch(7, 1, 1)),
                (900, SWITCH, switch(0, 1, 0)),
            ],
        ),
    ]);
    assert_eq!(report.duration_ticks, 1000);
    let task = |pid| report.tasks.iter().find(|task| task.pid == pid).unwrap();
    let woken = task(7);
    assert_eq!(woken.name, "woken");
    assert_eq!(woken.runtime_ticks, 240 + 450);
    assert_eq!((woken.switches, woken.preemptions, woken.wakeups, woken.migrations), (2, 1, 1, 1));
    assert_eq!((woken.average_delay_ticks, woken.max_delay_ticks), (55, 60));
    assert_eq!(woken.max_delay_end_ticks, 160);
    assert_eq!((woken.wake_latency.count, woken.wake_latency.max_ticks), (1, 60));
    assert_eq!(task(5).runtime_ticks, 300);
    assert_eq!(task(8).runtime_ticks, 50);
    assert_eq!(report.wake_latency.p50_ticks, 60);
    let [zero, one] = &report.cpus[..] else { panic!() };
    assert_eq!((zero.busy_ticks, zero.idle_ticks, zero.switches), (300, 700, 1));
    assert_eq!((zero.interrupts, zero.wakeups_sent), (1, 1));
    assert_eq!((one.busy_ticks, one.idle_ticks), (740, 150 + 100));
    assert!(report.whole);
}

#[test]
fn long_sections_are_told_by_where_they_ended() {
    let mut report = reported(&[(
        5,
        &[
            (100, PREEMPT_OFF, section(40, 8)),
            (200, PREEMPT_OFF, section(70, 8)),
            (300, PREEMPT_OFF, section(50, 4096)),
            (400, IRQ_OFF, section(60, 8)),
        ],
    )]);
    let told: Vec<_> = report.sections.iter().map(|it| (it.off, it.site, it.count)).collect();
    let (preemption, interrupts) = (Off::Preemption, Off::Interrupts);
    assert_eq!(told, [(preemption, 8, 2), (interrupts, 8, 1), (preemption, 4096, 1)]);
    let first = &report.sections[0];
    assert_eq!((first.longest_ticks, first.longest_end_ticks, first.total_ticks), (70, 200, 110));
    let text = report_text(&report, None);
    assert!(text.contains("0x1000"), "{text}");
    // What that image has at 8 is called so.
    report.name_places(&Symboliser::from_elf(&elf(Some(&[1]), &[])).unwrap());
    let text = report_text(&report, None);
    assert!(text.contains("kernel::main") && text.contains("0x1000"), "{text}");
}

#[test]
fn a_wakeup_on_the_way_to_sleep_counts_from_the_switch() {
    let report = reported(&[
        (
            7,
            &[
                (200, IRQ_ENTER, Fields::new().int([1])),
                (300, SWITCH, switch(0, 1, 0)),
                (350, SWITCH, switch(7, 0, 1)),
            ],
        ),
        (5, &[(290, WAKEUP, wakeup(7, 0, 1))]),
    ]);
    let woken = report.tasks.iter().find(|task| task.pid == 7).unwrap();
    assert_eq!((woken.wake_latency.count, woken.wake_latency.max_ticks), (1, 50));
}

#[test]
fn a_wakeup_that_a_slow_clock_dates_after_its_switch_does_not_count_for_the_next() {
    let report = reported(&[
        (
            0,
            &[
                (100, SWITCH, switch(7, 0, 1)),
                (300, SWITCH, switch(0, 1, 0)),
                (900, SWITCH, switch(7, 0, 2)),
            ],
        ),
        (5, &[(10, WAKEUP, wakeup(7, 0, 0)), (110, WAKEUP, wakeup(7, 0, 1))]),
    ]);
    let woken = report.tasks.iter().find(|task| task.pid == 7).unwrap();
    assert_eq!((woken.wake_latency.count, woken.wake_latency.max_ticks), (1, 90));
}

#[test]
fn a_pid_used_again_is_another_task() {
    let new = |pid: u32| Fields::new().int(pid.to_le_bytes()).int(2u32.to_le_bytes());
    let trace = trace(&[(
        1,
        &[
            (0, TASK_NEW, new(9)),
            (1, TASK_ATTR, attr(9, "first")),
            (10, SWITCH, switch(9, 1, 1)),
            (30, SWITCH, switch(1, 6, 0)),
            (40, TASK_NEW, new(9)),
            (41, TASK_ATTR, attr(9, "second")),
            (50, SWITCH, switch(9, 1, 1)),
            (55, SWITCH, switch(1, 6, 0)),
        ],
    )]);
    let model = Model::replay(&trace);
    let nines: Vec<_> = model.tasks.iter().filter(|task| task.pid == 9).collect();
    assert_eq!(nines.len(), 2);
    assert_eq!((nines[0].name.as_deref(), nines[0].runtime_ticks), (Some("first"), 20));
    assert_eq!((nines[1].name.as_deref(), nines[1].runtime_ticks), (Some("second"), 5));
    assert_eq!(nines[1].class, Some(Class::Fair));
}

#[test]
fn time_that_records_are_missing_from_is_not_accounted() {
    let mut stream = Stream::new(1, Encoding::Raw);
    stream.hello();
    let mut block = Block::new(0, 0, 5);
    block.record(IRQ_ENTER, 0, &Fields::new().int([1]));
    block.record(IRQ_ENTER, 100, &Fields::new().int([1]));
    stream.block(&block);
    stream.drop_records(0, 3);
    let mut block = Block::new(0, 500, 6);
    block.record(IRQ_ENTER, 0, &Fields::new().int([1]));
    block.record(IRQ_ENTER, 40, &Fields::new().int([1]));
    stream.block(&block);
    stream.end(0);
    let trace = Trace::read(decoder(), &*stream.bytes(), |_| {}).unwrap();
    let report = report(&trace, &Model::replay(&trace));
    assert_eq!(report.cpus[0].busy_ticks, 140);
    assert_eq!(report.cpus[0].unknown_ticks, 400);
    assert_eq!(report.dropped, 3);
    let info = info(&trace);
    assert!(info.whole && info.lossy);
    assert_eq!((info.cpus[0].produced, info.cpus[0].received), (Some(7), 4));
}

#[test]
fn a_switch_before_its_wakeup_is_an_inversion() {
    let first = [(10, WAKEUP, wakeup(7, 1, 255)), (70, WAKEUP, wakeup(7, 1, 0))];
    let second = [(20, SWITCH, switch(7, 0, 255)), (30, SWITCH, switch(0, 1, 0))];
    let late = (60, SWITCH, switch(7, 0, 0));
    let in_order = (80, SWITCH, switch(7, 0, 0));
    let with = |last: (u32, u16, Fields)| {
        let lane: Vec<_> = second.iter().cloned().chain([last]).collect();
        inversions(&trace(&[(5, &first), (0, &lane)]))
    };
    assert_eq!(with(late), Inversions { wakeups: 1, largest_ticks: 10, backward_steps: 0 });
    assert_eq!(with(in_order), Inversions::default());
}

#[test]
fn a_clock_that_runs_backwards_is_noticed() {
    let mut stream = Stream::new(1, Encoding::Raw);
    stream.hello();
    for base in [100, 50] {
        let mut block = Block::new(0, base, 5);
        block.record(IRQ_ENTER, 0, &Fields::new().int([1]));
        stream.block(&block);
    }
    stream.end(0);
    let trace = Trace::read(decoder(), &*stream.bytes(), |_| {}).unwrap();
    assert_eq!(inversions(&trace).backward_steps, 1);
}

#[test]
fn a_block_that_does_not_fit_the_schema_is_reported() {
    let mut stream = Stream::new(1, Encoding::Raw);
    stream.hello();
    let mut block = Block::new(0, 0, 5);
    block.record(IRQ_ENTER, 0, &Fields::new().int([1]));
    block.record(4711, 1, &Fields::new());
    stream.block(&block);
    stream.end(0);
    let trace = Trace::read(decoder(), &*stream.bytes(), |_| {}).unwrap();
    assert_eq!((trace.len(), trace.malformed_blocks()), (1, 1));
    assert!(!trace.is_whole());
}

#[test]
fn regions_are_found_by_their_marks() {
    let trace = trace(&[(
        5,
        &[
            (10, MARK, mark(0, "begin shell")),
            (20, MARK, mark(0, "something else")),
            (60, MARK, mark(0, "end shell")),
            (70, MARK, mark(0, "region fork/call 20 61 2")),
            (80, MARK, mark(0, "region fork/call 62 70 1")),
            (90, MARK, mark(0, "region backwards 9 3 1")),
            (91, MARK, mark(0, "end never-begun")),
            (92, MARK, mark(0, "begin Not A Name")),
        ],
    )]);
    let regions = regions(&trace);
    let ticks = |name: &str| regions.by_name[name].iter().map(Measured::ticks).collect::<Vec<_>>();
    assert_eq!(ticks("shell"), [50]);
    assert_eq!(ticks("fork/call"), [41, 8]);
    assert_eq!(regions.by_name["fork/call"][0].ticks_per_op(), 20.5);
    assert_eq!(regions.malformed.len(), 3, "{:?}", regions.malformed);
    assert!(regions.malformed[0].contains("backwards"), "{:?}", regions.malformed);
}

#[test]
fn the_path_is_the_one_that_most_take() {
    let mut records = Vec::new();
    // Three repetitions of 100 ticks; an interrupt comes into the second, and the third is longer in one step.
    for (start, late) in [(1_000, 0), (2_000, 0), (3_000, 7)] {
        if start == 2_000 {
            records.push((start + 5, IRQ_ENTER, Fields::new().int([32])));
        }
        records.push((start + 30 + late, WAKEUP, wakeup(7, 0, 1)));
        records.push((start + 70 + late, SWITCH, switch(7, 1, 1)));
        let region = format!("region wake {start} {} 1", start + 100 + late);
        records.push((start + 200, MARK, mark(0, &region)));
        records.push((start + 210, SWITCH, switch(5, 1, 1)));
    }
    let trace = trace(&[(5, &records)]);
    let wakes = &regions(&trace).by_name["wake"];
    let path = path(&trace, wakes).unwrap();
    assert_eq!((path.taken, path.repetitions), (2, 3));
    let steps: Vec<_> = path.steps.iter().map(|step| (&*step.to, step.ticks)).collect();
    assert_eq!(steps, [("sched_wakeup", 30), ("sched_switch", 40), ("end", 30)]);
}
