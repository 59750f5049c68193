//! What a command prints on standard output: text for people or JSON for programs.

use std::io::{self, BufWriter, Stdout, Write};

use serde_json::Value;

use crate::arguments::Global;
use crate::json;

/// Standard output, buffered; written out at the latest when the command is done.
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        Self { stdout: BufWriter::with_capacity(64 << 10, io::stdout()), json: global.json, quiet: global.quiet }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A result that was asked for: the object for programs, the text for people.
    pub(crate) fn item(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.json { writeln!(self.stdout, "{}", json::line(&json())) } else { writeln!(self.stdout, "{}", text()) }
    }

    /// What was done, for people who didn't ask for quiet; programs always get it.
    pub(crate) fn summary(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> io::Result<()> {
        if self.json || !self.quiet { self.item(json, text) } else { Ok(()) }
    }

    /// Rows in columns; an object each for programs.
    pub(crate) fn table(&mut self, table: &Table, objects: impl IntoIterator<Item = Value>) -> io::Result<()> {
        if self.json {
            objects.into_iter().try_for_each(|object| writeln!(self.stdout, "{}", json::line(&object)))
        } else {
            table.write(&mut self.stdout)
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows whose columns are as wide as what they hold.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: impl Into<Vec<(&'static str, Align)>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let lines = || std::iter::once(&titles).chain(&self.rows);
        let width =
            |column| lines().filter_map(|cells| cells.get(column)).map(|cell: &String| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        for cells in lines() {
            let mut line = String::new();
            for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(to, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_they_hold() {
        let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right), ("NOTE", Align::Left)]);
        let mut written = Vec::new();
        table.write(&mut written).unwrap();
        assert!(written.is_empty(), "no rows, no titles");
        table.row(["caf\u{e9} au lait".to_owned(), "1".to_owned(), String::new()]);
        table.row(["b".to_owned(), "12345".to_owned(), "x".to_owned()]);
        table.write(&mut written).unwrap();
        let expected = "NAME           SIZE  NOTE\ncaf\u{e9} au lait      1\nb             12345  x\n";
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}
