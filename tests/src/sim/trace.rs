//! What happened, line by line, for people; kept only when asked for, for the same seed tells it again.

use super::env::{Micros, SECOND};

#[derive(Debug, Default)]
pub struct Trace {
    on: bool,
    lines: Vec<String>,
}

impl Trace {
    pub fn on() -> Trace {
        Trace { on: true, lines: Vec::new() }
    }

    pub fn off() -> Trace {
        Trace::default()
    }

    pub fn is_on(&self) -> bool {
        self.on
    }

    pub fn line(&mut self, now: Micros, what: String) {
        if self.on {
            self.lines.push(format!("{:>4}.{:06}  {what}", now / SECOND, now % SECOND));
        }
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
