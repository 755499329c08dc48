//! Messages that say the same become one template.
//!
//! In the manner of Drain (He et al., 2017): masked messages are split into words and looked up in a tree of fixed depth
//! (level, number of words, first word). Among the templates there the most similar one takes the message if enough of
//! its words are equal; where they differ the template has `<*>` from then on.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sluice_log_lines::{Level, Moment};

/// Templates that are kept apart; what would be one more is counted, and no more.
pub(crate) const TEMPLATES_MAX: usize = 2_000;
/// Words of a template: what is behind them differs in few messages, and each costs a comparison.
const WORDS_MAX: usize = 48;
/// Bytes of a template's words together; with [`TEMPLATES_MAX`] at most 4 MiB.
const TEMPLATE_BYTES_MAX: usize = 1_024;
/// Bytes of an example.
const EXAMPLE_BYTES_MAX: usize = 512;
/// Stands where messages of a template differ.
const ANY: &str = "<*>";
/// Stands for what was cut off.
const CUT: &str = "<...>";

/// One template.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) level: Level,
    words: Vec<Box<str>>,
    pub(crate) count: u64,
    pub(crate) first: Option<Moment>,
    pub(crate) last: Option<Moment>,
    /// Its first message, as it was.
    pub(crate) example: String,
}

impl Template {
    /// Its words in a row.
    pub(crate) fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// All templates so far.
#[derive(Debug)]
pub(crate) struct Templates {
    all: Vec<Template>,
    /// Which templates may be alike: by level, number of words, first word.
    leaves: BTreeMap<(Level, usize, Box<str>), Vec<usize>>,
    similarity_percent: usize,
    /// Messages that found no template and no room for one.
    pub(crate) left_out: u64,
}

impl Templates {
    /// None yet. Messages of which so many words in a hundred are equal are alike.
    pub(crate) fn new(similarity_percent: usize) -> Self {
        Self {
            all: Vec::new(),
            leaves: BTreeMap::new(),
            similarity_percent,
            left_out: 0,
        }
    }

    /// Takes a message in; gives its template, if it has one.
    pub(crate) fn add(
        &mut self,
        level: Level,
        masked: &str,
        message: &str,
        at: Option<Moment>,
    ) -> Option<usize> {
        let words = split(masked);
        let first = words.first().copied().unwrap_or_default();
        // A word with a mask or a digit in it says nothing of what the message is about.
        let variable = first.contains('<') || first.bytes().any(|byte| byte.is_ascii_digit());
        let key = if variable { ANY } else { first };
        let leaf = self.leaves.entry((level, words.len(), key.into()));
        if let Entry::Vacant(_) = leaf
            && self.all.len() >= TEMPLATES_MAX
        {
            self.left_out += 1;
            return None;
        }
        let leaf = leaf.or_default();
        let alike = leaf
            .iter()
            .map(|&index| (equal(&self.all[index].words, &words), index))
            // The first of the most similar ones.
            .max_by_key(|&(equal, index)| (equal, std::cmp::Reverse(index)))
            .filter(|(equal, _)| equal * 100 >= words.len() * self.similarity_percent);
        let index = match alike {
            Some((_, index)) => index,
            None if self.all.len() >= TEMPLATES_MAX => {
                self.left_out += 1;
                return None;
            }
            None => {
                let end = message.floor_char_boundary(EXAMPLE_BYTES_MAX);
                self.all.push(Template {
                    level,
                    words: words.iter().map(|word| (*word).into()).collect(),
                    count: 0,
                    first: at,
                    last: at,
                    example: message[..end].to_owned(),
                });
                leaf.push(self.all.len() - 1);
                self.all.len() - 1
            }
        };
        let template = &mut self.all[index];
        for (known, word) in template.words.iter_mut().zip(&words) {
            if **known != **word && **known != *ANY {
                *known = ANY.into();
            }
        }
        template.count += 1;
        template.first = earlier(template.first, at);
        template.last = template.last.max(at);
        Some(index)
    }

    /// The template with this number.
    pub(crate) fn at(&self, index: usize) -> &Template {
        &self.all[index]
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The numbers of all, the most frequent first, then the first seen.
    pub(crate) fn by_count(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|&index| (std::cmp::Reverse(self.all[index].count), index));
        order
    }
}

/// The earlier of two, where one is known.
pub(crate) fn earlier(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The words of a masked message, not more than a template has.
fn split(masked: &str) -> Vec<&str> {
    let mut words = Vec::with_capacity(16);
    let mut bytes = 0;
    for word in masked.split_ascii_whitespace() {
        bytes += word.len() + 1;
        if words.len() == WORDS_MAX || bytes > TEMPLATE_BYTES_MAX {
            words.push(CUT);
            break;
        }
        words.push(word);
    }
    words
}

/// How many words are equal. `<*>` is equal to none, so that templates do not swallow everything.
fn equal(template: &[Box<str>], words: &[&str]) -> usize {
    let pairs = template.iter().zip(words);
    pairs.filter(|(known, word)| ***known == ***word).count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn add(templates: &mut Templates, message: &str) -> Option<usize> {
        templates.add(Level::Info, message, message, None)
    }

    #[test]
    fn what_is_alike_becomes_one_with_its_differences_open() {
        let mut templates = Templates::new(50);
        for (message, expected) in [
            ("Failed password for root from <ip>", 0),
            ("Failed password for ftp from <ip>", 0),
            ("Failed none for uucp to <ip>", 0),
            ("Accepted password for root from <ip>", 1),
            ("Failed to open it at all", 2),
            ("<ip> GET done", 3),
            ("<uuid> GET done", 3),
            ("alone", 4),
            ("", 5),
        ] {
            assert_eq!(add(&mut templates, message), Some(expected), "{message}");
        }
        let texts: Vec<String> = (0..templates.len())
            .map(|index| templates.at(index).text())
            .collect();
        assert_eq!(
            texts,
            [
                "Failed <*> for <*> <*> <ip>",
                "Accepted password for root from <ip>",
                "Failed to open it at all",
                "<*> GET done",
                "alone",
                ""
            ]
        );
        assert_eq!(templates.by_count(), [0, 3, 1, 2, 4, 5]);
        assert_eq!(
            templates.at(0).example,
            "Failed password for root from <ip>"
        );
        let other = templates.add(Level::Error, "alone", "alone", None);
        assert_eq!(other, Some(6), "another level is another template");
    }

    #[test]
    fn templates_are_bounded_in_number_and_size() {
        let mut templates = Templates::new(50);
        let name = |number: usize| {
            let letter = |place: u32| char::from(b'a' + (number / 26_usize.pow(place) % 26) as u8);
            (0..4).map(letter).collect::<String>()
        };
        for number in 0..TEMPLATES_MAX + 10 {
            add(&mut templates, &name(number));
        }
        assert_eq!((templates.len(), templates.left_out), (TEMPLATES_MAX, 10));
        assert_eq!(
            add(&mut templates, &name(0)),
            Some(0),
            "known ones still count"
        );
        assert_eq!(
            templates.leaves.len(),
            TEMPLATES_MAX,
            "nothing is kept of what was left out"
        );

        let mut templates = Templates::new(50);
        add(&mut templates, &"w ".repeat(1_000));
        add(&mut templates, &"ä".repeat(5_000));
        assert_eq!(templates.at(0).words.len(), WORDS_MAX + 1);
        assert_eq!(templates.at(1).text(), CUT);
        assert!(templates.at(1).example.len() <= EXAMPLE_BYTES_MAX);
    }
}
