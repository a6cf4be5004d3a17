//! Results on standard output: the reply as it came, or a table. Logs and progress never come here.

use crate::human;
use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ContentArrangement};
use outlive_schemas::view::Status;
use std::io::{self, IsTerminal, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: one JSON document
    Json,
}

/// Writes one line, or more, to standard output.
pub fn line(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Whether standard output takes colours: it is a terminal, and NO_COLOR is not set.
fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Columns under a heading, without borders.
#[derive(Debug)]
pub struct Table {
    table: comfy_table::Table,
}

impl Table {
    pub fn new(heading: &[&str]) -> Table {
        let mut table = plain();
        table.set_header(heading.iter().map(Cell::new));
        Table { table }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.table.add_row(cells);
    }

    pub fn render(&self) -> String {
        trimmed(&self.table)
    }
}

/// One thing, a line for each of its properties.
#[derive(Debug)]
pub struct Details {
    table: comfy_table::Table,
}

impl Details {
    pub fn new() -> Details {
        Details { table: plain() }
    }

    pub fn line(&mut self, name: &str, value: impl ToString) {
        self.table.add_row([Cell::new(name), Cell::new(human::printable(&value.to_string()))]);
    }

    pub fn cell(&mut self, name: &str, value: Cell) {
        self.table.add_row([Cell::new(name), value]);
    }

    /// Only where there is something to say.
    pub fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    pub fn render(&self) -> String {
        trimmed(&self.table)
    }
}

fn plain() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if coloured() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

/// The columns two spaces apart, beginning at the edge, with nothing after the last one.
fn trimmed(table: &comfy_table::Table) -> String {
    let mut table = table.clone();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Text that came from somebody else: control characters must not reach the terminal.
pub fn cell(text: impl ToString) -> Cell {
    Cell::new(human::printable(&text.to_string()))
}

/// A dash where there is nothing.
pub fn maybe(value: Option<impl ToString>) -> Cell {
    value.map_or_else(|| Cell::new("-"), cell)
}

pub fn status(status: Status) -> Cell {
    let color = match status {
        Status::Running | Status::Succeeded => Color::Green,
        Status::Failed => Color::Red,
        Status::Restarting | Status::RollingBack => Color::Yellow,
        Status::Pending | Status::Starting | Status::Updating | Status::Stopping => Color::Cyan,
        Status::Stopped | Status::Cancelled => Color::Grey,
    };
    Cell::new(status).fg(color)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_borders_and_no_trailing_space() {
        let mut table = Table::new(&["ID", "NAME", "STATUS"]);
        table.row(vec![cell("1"), cell("counter"), status(Status::Running)]);
        table.row(vec![cell("22"), maybe(None::<String>), status(Status::Failed)]);
        assert_eq!(
            table.render(),
            "ID  NAME     STATUS\n\
             1   counter  running\n\
             22  -        failed"
        );
    }

    #[test]
    fn details_are_aligned_and_leave_out_what_is_not_there() {
        let mut details = Details::new();
        details.line("Id", "1");
        details.maybe("Executor", None::<String>);
        details.maybe("Checkpoint", Some(7));
        assert_eq!(details.render(), "Id          1\nCheckpoint  7");
    }

    #[test]
    fn what_a_job_wrote_cannot_steer_the_terminal() {
        let mut table = Table::new(&["REASON"]);
        table.row(vec![cell("a\u{1b}[2Jb")]);
        assert!(!table.render().contains('\u{1b}'));
    }
}
