//! Comparisons as JUnit XML, which continuous integration shows test by test.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{Report, breakdown_text};
use crate::{Error, compare::Row};

/// The comparison as a test suite: a test a metric, a failure a regression.
///
/// # Errors
/// Where it cannot be written as XML.
pub fn junit(report: &Report) -> crate::Result<String> {
    let mut suite = TestSuite::new("latency");
    for row in &report.comparison.rows {
        let mut case = TestCase::new(row.metric.clone(), status(row));
        case.set_classname(format!("latency.{}", row.precision.as_str()));
        if let (Some(base), Some(now)) = (row.base_ticks, row.now_ticks) {
            case.set_system_out(format!("base {base} ticks, now {now} ticks"));
        }
        suite.add_test_case(case);
    }
    let mut junit = quick_junit::Report::new("latency");
    junit.add_test_suite(suite);
    junit
        .to_string()
        .map_err(|error| Error::Content { path: "junit".into(), problem: error.to_string() })
}

fn status(row: &Row) -> TestCaseStatus {
    if !row.verdict.is_regression() {
        return TestCaseStatus::success();
    }
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    let ticks = |ticks: Option<f64>| ticks.map_or("-".to_owned(), |ticks| ticks.to_string());
    let (base, now, limit) = (ticks(row.base_ticks), ticks(row.now_ticks), ticks(row.limit_ticks));
    status
        .set_message(format!("{}: {now} ticks, base {base}, limit {limit}", row.verdict.as_str()));
    let breakdown = row.breakdown.as_ref().map(|it| breakdown_text(&row.metric, it));
    status.set_description(breakdown.or_else(|| row.note.clone()).unwrap_or_default());
    status
}
