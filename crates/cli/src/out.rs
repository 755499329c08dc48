//! The standard streams: results on standard output, talk on standard error.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::{Format, Global};
use crate::failure::{Exit, Failure};
use crate::render::Style;

/// Where a command writes, and how.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) format: Format,
    /// How tables on standard output look.
    pub(crate) style: Style,
    /// Whether standard error takes colours.
    pub(crate) color_err: bool,
    quiet: bool,
    asks: bool,
    progress: bool,
}

/// Whoever reads standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Still reads.
    There,
    /// Went away (`| head`).
    Gone,
}

impl Out {
    /// The process's streams, as they are connected now.
    pub(crate) fn of_process(global: &Global) -> Self {
        let colors = colors();
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            format: global.output,
            style: Style {
                terminal: stdout,
                color: stdout && colors,
            },
            color_err: stderr && colors,
            quiet: global.quiet,
            asks: !global.yes && stderr && io::stdin().is_terminal(),
            progress: stderr && !global.quiet,
        }
    }

    /// Writes a result: as JSON, or as `table` makes it.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(Style) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.text(&table(self.style)),
        }
    }

    /// Writes JSON to standard output.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| {
            Failure::new(Exit::Failed, "cannot write the answer as JSON").with_detail(error)
        })?;
        text.push('\n');
        self.text(&text)
    }

    /// Writes text as it is to standard output. A reader that went away (`| head`) is no failure.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.piece(text).map(drop)
    }

    /// Writes a part of a result that has no end, and tells whether anybody still reads it.
    pub(crate) fn piece(&self, text: &str) -> Result<Reader, Failure> {
        self.bytes(text.as_bytes())
    }

    /// [`Out::piece`] of bytes that need not be text.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<Reader, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(Reader::There),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(Failure::new(
                Exit::Failed,
                format!("cannot write to standard output: {error}"),
            )),
        }
    }

    /// Talks, unless told to be quiet.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            // Nobody is left to hear that standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Says why the program ends badly.
    pub(crate) fn failure(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(failure_text(failure, self.color_err).as_bytes());
    }

    /// Asks a yes-or-no question; without a terminal, or with `--yes`, the answer is yes.
    pub(crate) fn confirm(&self, question: &str) -> Result<(), Failure> {
        if !self.asks {
            return Ok(());
        }
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot read your answer: {error}"))
        })?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new(Exit::Failed, "nothing was done")),
        }
    }

    /// A bar of `bytes`; invisible unless standard error is a terminal.
    pub(crate) fn bytes_bar(&self, label: &str, bytes: u64) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{msg} {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}",
        );
        self.bar(ProgressBar::new(bytes), label, style)
    }

    /// A line that shows that something goes on; invisible unless standard error is a terminal.
    pub(crate) fn spinner(&self, label: &str) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        let bar = self.bar(ProgressBar::no_length(), label, style);
        if self.progress {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        bar
    }

    /// Whether bars and spinners are seen.
    pub(crate) fn has_progress(&self) -> bool {
        self.progress
    }

    fn bar(
        &self,
        bar: ProgressBar,
        label: &str,
        style: Result<ProgressStyle, indicatif::style::TemplateError>,
    ) -> ProgressBar {
        bar.set_draw_target(if self.progress {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        bar.set_style(style.expect("the template is ours and right"));
        bar.with_message(label.to_owned())
    }
}

/// Whether a terminal may get colours.
pub(crate) fn colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn failure_text(failure: &Failure, color: bool) -> String {
    let (red, cyan, plain) = if color {
        ("\u{1b}[1;31m", "\u{1b}[1;36m", "\u{1b}[0m")
    } else {
        ("", "", "")
    };
    let mut text = format!("{red}error{plain}: {}\n", failure.message);
    if let Some(detail) = &failure.detail {
        text.push_str(detail.trim_end());
        text.push('\n');
    }
    if let Some(help) = &failure.help {
        text.push_str(&format!("{cyan}help{plain}: {help}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_where_and_the_way_out() {
        let failure = Failure::invalid("no context")
            .with_detail("line 1\nline 2\n")
            .with_help("make one");
        assert_eq!(
            failure_text(&failure, false),
            "error: no context\nline 1\nline 2\nhelp: make one\n"
        );
        assert!(failure_text(&failure, true).starts_with("\u{1b}[1;31merror\u{1b}[0m: no"));
    }
}
