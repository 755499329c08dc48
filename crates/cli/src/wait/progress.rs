//! Says on standard error what a wait is for: a line that moves on a terminal, now and then a line elsewhere.

use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;

use crate::out::Out;
use crate::render;

/// Time between two lines where nothing can be overwritten: a log of a wait of minutes stays readable.
const NEWS_PAUSE: Duration = Duration::from_secs(10);

/// Things that one line names; it says how many more there are.
const NAMED_MAX: usize = 3;

pub(super) struct Progress<'a> {
    out: &'a Out,
    doing: String,
    within: Duration,
    spinner: ProgressBar,
    said: Option<(String, Instant)>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(out: &'a Out, doing: String, within: Duration) -> Self {
        Self {
            spinner: out.spinner(&doing),
            out,
            doing,
            within,
            said: None,
        }
    }

    /// A look at `now` missed this.
    pub(super) fn missing(&mut self, missing: &[String], now: Instant) {
        let text = text(&self.doing, missing);
        if self.out.has_progress() {
            self.spinner.set_message(text);
            return;
        }
        match &self.said {
            None => {
                let within = render::duration(self.within);
                self.out.say(&format!("{text} (for at most {within})"));
            }
            Some((said, at)) if *said == text || now < *at + NEWS_PAUSE => return,
            Some(_) => self.out.say(&text),
        }
        self.said = Some((text, now));
    }

    pub(super) fn end(&self) {
        self.spinner.finish_and_clear();
    }
}

fn text(doing: &str, missing: &[String]) -> String {
    let named: Vec<&str> = missing.iter().take(NAMED_MAX).map(String::as_str).collect();
    let mut text = doing.to_owned();
    if !named.is_empty() {
        text.push_str(": ");
        text.push_str(&named.join(" | "));
    }
    match missing.len() - named.len() {
        0 => {}
        more => text.push_str(&format!(" | and {more} more")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_few_things_and_counts_the_rest() {
        let missing: Vec<String> = (1..=5).map(|node| format!("e{node}: pending")).collect();
        assert_eq!(text("waiting for a", &[]), "waiting for a");
        assert_eq!(
            text("waiting for a", &missing[..1]),
            "waiting for a: e1: pending"
        );
        assert_eq!(
            text("waiting for a", &missing),
            "waiting for a: e1: pending | e2: pending | e3: pending | and 2 more"
        );
    }
}
