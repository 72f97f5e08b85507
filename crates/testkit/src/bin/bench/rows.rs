//! What was measured, and how it is printed.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Measurements of one thing.
pub(crate) struct Row {
    what: String,
    times: Vec<Duration>,
    /// The row that this one is compared with.
    against: Option<&'static str>,
}

/// Runs a command to its end, and says how long that took.
pub(crate) fn timed(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(took)
}

impl Row {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), times: Vec::new(), against: None }
    }

    pub(crate) fn against(mut self, other: &'static str) -> Self {
        self.against = Some(other);
        self
    }

    pub(crate) fn add(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// The time that `percent` of the runs do not exceed, in milliseconds: a time that was
    /// measured (nearest rank), no mean of two.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times[rank - 1].as_secs_f64() * 1000.0
    }
}

pub(crate) fn print(rows: &[Row]) {
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    println!("{:width$}  {:>4}  {:>9}  {:>9}", "", "runs", "median ms", "p95 ms");
    for row in rows {
        let (median, p95) = (row.percentile(50), row.percentile(95));
        let ratio = rows.iter().find(|other| row.against == Some(other.what.as_str()));
        let ratio = ratio.map_or_else(String::new, |other| {
            format!("  {:.1} times vnet's median", median / other.percentile(50))
        });
        let runs = row.times.len();
        println!("{:width$}  {runs:>4}  {median:>9.1}  {p95:>9.1}{ratio}", row.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    pub(crate) fn percentiles_are_times_that_were_measured() {
        let mut row = Row::new("x");
        for milliseconds in (1..=20).rev() {
            row.add(Duration::from_millis(milliseconds));
        }
        assert_eq!(row.percentile(50), 10.0);
        assert_eq!(row.percentile(95), 19.0);
        let mut one = Row::new("y");
        one.add(Duration::from_millis(7));
        assert_eq!((one.percentile(50), one.percentile(95)), (7.0, 7.0));
    }
}
