//! Words for advice: lists, and the word that a slip of the keyboard was meant to be.

/// `a`, `b` and `c`.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [init @ .., last] => {
            let init: Vec<_> = init.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", init.join(", "))
        }
    }
}

/// The known word that `word` is most likely a slip of the keyboard for.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // A third of the word wrong is a slip; more is another word. The bound keeps the table small.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let distances = known
        .iter()
        .map(|known| (distance(word.as_bytes(), known.as_bytes()), *known));
    let (distance, known) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len().max(3) / 3).min(3)).then_some(known)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if swapped {
                        best.min(rows[i - 2][j - 2] + 1)
                    } else {
                        best
                    }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        for (word, expected) in [
            ("plugn", Some("plugin")),
            ("pulgin", Some("plugin")),
            ("Plugin", Some("plugin")),
            ("stages", Some("stage")),
            ("banana", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(
                nearest(word, &["plugin", "stage", "name"]),
                expected,
                "{word}"
            );
        }
        assert_eq!(nearest("a", &[]), None);
    }
}
