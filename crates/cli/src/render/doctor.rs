//! What `doctor` found.

use std::fmt::Write as _;

use sluice_doctor::Finding;

use super::clean;

/// One line for each check, and below it the way out where there is something to mend.
pub(crate) fn findings(findings: &[Finding]) -> String {
    let width = findings.iter().map(|it| it.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let Finding {
            check,
            verdict,
            seen,
            mend,
        } = finding;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{verdict:<5}{check:<width$}  {}", clean(seen));
        if let Some(mend) = mend {
            let _ = writeln!(text, "     {:<width$}  to mend it: {}", "", clean(mend));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_and_what_can_be_mended_says_how() {
        let text = findings(&[
            Finding::ok("store", "it is whole"),
            Finding::fail("port-api", "another program\u{7} has it", "stop that one"),
        ]);
        let expected = "ok   store     it is whole\n\
                        fail port-api  another program";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with("               to mend it: stop that one\n"),
            "{text}"
        );
    }
}
