//! What was measured, as a table of Markdown: a row for each thing, a column for each server.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;

use super::load::Highest;
use super::server::Kind;
use super::station::Crowd;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell {
    Time(Duration),
    /// Processor time for one exchange.
    Cpu(Duration),
    /// Exchanges a second, and the processor time for one.
    Rate(Highest),
    /// So many were to be bound.
    Crowd(u32, Crowd),
    /// Messages went unanswered.
    TooFast,
    /// Cannot be measured.
    Nothing,
}

pub(super) struct Table {
    kinds: Vec<Kind>,
    versions: Vec<String>,
    /// What one flush to the disk takes.
    flush: Duration,
    rows: Vec<(String, Vec<Option<Cell>>)>,
}

impl Table {
    pub(super) fn new(kinds: &[Kind], flush: Duration) -> Result<Self> {
        let mut versions = kinds.iter().map(|kind| kind.version()).collect::<Result<Vec<_>>>()?;
        versions.dedup();
        Ok(Self { kinds: kinds.to_vec(), versions, flush, rows: Vec::new() })
    }

    pub(super) fn put(&mut self, kind: Kind, row: &str, cell: Cell) {
        println!("{}: {row}: {cell}", kind.name());
        let columns = self.kinds.len();
        let Some(column) = self.kinds.iter().position(|other| *other == kind) else { return };
        match self.rows.iter_mut().find(|(name, _)| name == row) {
            Some((_, cells)) => cells[column] = Some(cell),
            None => {
                let mut cells = vec![None; columns];
                cells[column] = Some(cell);
                self.rows.push((row.to_owned(), cells));
            }
        }
    }

    /// The whole of it.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}. One flush of the disk: {:.2} ms.\n\n| |",
            self.versions.join(", "),
            self.flush.as_secs_f64() * 1000.0
        );
        // Writing to a string has no way to fail.
        let _ = write!(
            text,
            " {} |\n|---|",
            self.kinds.iter().map(|k| k.name()).collect::<Vec<_>>().join(" | ")
        );
        text.push_str(&"---|".repeat(self.kinds.len()));
        for (name, cells) in &self.rows {
            let _ = write!(text, "\n| {name} |");
            for cell in cells {
                let _ = match cell {
                    Some(cell) => write!(text, " {cell} |"),
                    None => write!(text, " – |"),
                };
            }
        }
        text.push('\n');
        text
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |time: &Duration| time.as_secs_f64() * 1e6;
        match self {
            Self::Time(time) | Self::Crowd(_, Crowd { last: time, repeated: 0, .. }) => {
                write!(f, "{:.2} ms", time.as_secs_f64() * 1000.0)
            }
            Self::Cpu(cpu) => write!(f, "{:.0} µs", micros(cpu)),
            Self::Rate(Highest { best, more }) => {
                let least = if *more { "≥ " } else { "" };
                write!(f, "{least}{}/s; {:.0} µs", best.rate, micros(&best.cpu))
            }
            Self::Crowd(count, crowd) if crowd.bound < *count => {
                write!(f, "{} of {count} bound", crowd.bound)
            }
            Self::Crowd(_, crowd) => {
                let (last, repeated) = (crowd.last.as_secs_f64(), crowd.repeated);
                write!(f, "{last:.1} s, {repeated} sent again")
            }
            Self::TooFast => f.write_str("not clean"),
            Self::Nothing => f.write_str("–"),
        }
    }
}
