//! Tables and lists of values for people: aligned with blanks, coloured where asked.

use std::fmt::Write;

use crate::output::{has_colours, printable};

/// A cell's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Bold,
    Green,
    Red,
    Yellow,
}

impl Colour {
    /// The parameter of ECMA-48 §8.3.117 (SGR).
    const fn sgr(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Bold => Some(1),
            Self::Red => Some(31),
            Self::Green => Some(32),
            Self::Yellow => Some(33),
        }
    }
}

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    colour: Colour,
    right: bool,
}

impl Cell {
    /// Text, at the left of its column.
    pub(crate) fn text(text: impl ToString) -> Self {
        let text = printable(&text.to_string()).replace('\n', " ");
        Self { text, colour: Colour::Plain, right: false }
    }

    /// A number, at the right of its column.
    pub(crate) fn number(number: impl ToString) -> Self {
        Self { right: true, ..Self::text(number) }
    }

    pub(crate) fn coloured(self, colour: Colour) -> Self {
        Self { colour, ..self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// The text in a column of `width`; without `width`, nothing is put behind it.
    fn write(&self, out: &mut String, width: Option<usize>, colours: bool) {
        let missing = width.unwrap_or(0).saturating_sub(self.width());
        let (before, behind) = if self.right { (missing, 0) } else { (0, missing) };
        let text = match self.colour.sgr().filter(|_| colours) {
            Some(sgr) => format!("\x1b[{sgr}m{}\x1b[0m", self.text),
            None => self.text.clone(),
        };
        // Writing to a string has no way to fail.
        let _ = write!(out, "{:before$}{text}{:behind$}", "", "");
    }
}

/// Rows below a header.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(|name| Cell::text(name).coloured(Colour::Bold)).into()] }
    }

    /// Adds a row; it has as many cells as the header.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The table as it is for standard output.
    pub(crate) fn render(&self) -> String {
        self.render_with(has_colours())
    }

    fn render_with(&self, colours: bool) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let column = |index: usize| self.rows.iter().filter_map(move |row| row.get(index));
        let widths: Vec<usize> =
            (0..columns).map(|index| column(index).map(Cell::width).max().unwrap_or(0)).collect();
        // A header stands over its numbers.
        let right: Vec<bool> =
            (0..columns).map(|index| column(index).skip(1).any(|cell| cell.right)).collect();
        let mut out = String::new();
        for row in &self.rows {
            for (index, cell) in row.iter().enumerate() {
                let last = index + 1 == columns;
                let cell = Cell { right: right[index], ..cell.clone() };
                let width = (!last || cell.right).then_some(widths[index]);
                cell.write(&mut out, width, colours);
                out.push_str(if last { "\n" } else { "  " });
            }
        }
        out
    }
}

/// Names and values, one pair a line.
#[derive(Debug, Default)]
pub(crate) struct Pairs(Vec<(String, Cell)>);

impl Pairs {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: Cell) {
        self.0.push((name.into(), value));
    }

    /// The list as it is for standard output.
    pub(crate) fn render(&self) -> String {
        self.render_with(has_colours())
    }

    fn render_with(&self, colours: bool) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or(0);
        let mut out = String::new();
        for (name, value) in &self.0 {
            let name = if name.is_empty() { String::new() } else { format!("{name}:") };
            let _ = write!(out, "{name:width$}  ");
            value.write(&mut out, None, colours);
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "STATE", "GUESTS"]);
        table.row([
            Cell::text("default"),
            Cell::text("active").coloured(Colour::Green),
            Cell::number(12),
        ]);
        table.row([Cell::text("a"), Cell::text("-"), Cell::number(1)]);
        table
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_at_the_right() {
        assert_eq!(
            table().render_with(false),
            "NAME     STATE   GUESTS\n\
             default  active      12\n\
             a        -            1\n"
        );
    }

    #[test]
    fn colours_change_no_alignment() {
        let coloured = table().render_with(true);
        assert!(coloured.contains("\x1b[32mactive\x1b[0m      12"), "{coloured:?}");
        let plain = ["\x1b[1m", "\x1b[32m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(plain, table().render_with(false));
    }

    #[test]
    fn no_line_ends_in_blanks() {
        let mut table = Table::new(["A", "LONGER"]);
        table.row([Cell::text("x"), Cell::text("y")]);
        assert_eq!(table.render_with(false), "A  LONGER\nx  y\n");
    }

    #[test]
    fn a_cell_cannot_leave_its_line_or_colour_it() {
        let mut table = Table::new(["A"]);
        table.row([Cell::text("x\n\x1b[31my")]);
        assert_eq!(table.render_with(true), "\x1b[1mA\x1b[0m\nx ?[31my\n");
    }

    #[test]
    fn pairs_are_aligned() {
        let mut pairs = Pairs::default();
        pairs.add("name", Cell::text("default"));
        pairs.add("DHCP range", Cell::text("none"));
        pairs.add("", Cell::text("more"));
        assert_eq!(
            pairs.render_with(false),
            "name:        default\nDHCP range:  none\n             more\n"
        );
    }
}
