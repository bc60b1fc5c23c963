//! A progress bar on the terminal, for people who wait; silent in scripts and with `--json`.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One bar, reused for every step.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar if `wanted` and standard error is a terminal, otherwise nothing visible.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        let visible = wanted && std::io::stderr().is_terminal();
        let bar = if visible {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        Self { bar }
    }

    /// A new step begins.
    pub fn begin(&self, what: &str, operations: Option<u64>) {
        let style = match operations {
            Some(_) => "{msg:32} {wide_bar} {pos}/{len} {per_sec}, {eta} left",
            None => "{msg:32} {spinner} {pos} {per_sec}, {elapsed}",
        };
        let style = ProgressStyle::with_template(style).expect("the templates are constants");
        self.bar.set_style(style);
        self.bar.reset();
        match operations {
            Some(operations) => self.bar.set_length(operations),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    /// The step has done so many operations.
    pub fn advance(&self, operations: u64) {
        self.bar.set_position(operations);
    }

    /// Clears the line, before the report.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
