//! A line on a terminal that says what is being waited for. Nothing at all where standard error is no terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// Redraws often enough to look alive, seldom enough to cost nothing.
const TICK: Duration = Duration::from_millis(120);

#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn start(message: impl Into<String>) -> Progress {
        let bar = ProgressBar::new_spinner().with_style(style());
        bar.set_message(message.into());
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Progress(bar)
    }

    pub fn say(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }

    /// Takes the line away, so that something else can be written there.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}").expect("the template is well formed")
}
