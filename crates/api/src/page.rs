//! Lists come in pages: one array each, and a cursor to ask for what follows.
//!
//! A page may have fewer items than were asked for, even none, and be followed by others: how much an answer looks at is
//! bounded, not only how much it shows. The last page is the one without a cursor, which travels in the header
//! `Link: <...>; rel="next"`, as the path and query to ask for.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ErrorBody, ErrorCode};

/// Most items in one page, and how many when the question names no number: a fleet of ordinary size is one page.
pub const PAGE_ITEMS_MAX: u32 = 1_000;

/// Where a page ends, for asking for the next. Opaque: what is in it may change with any version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// A cursor of the keys by which a list is ordered.
    pub fn of(keys: &[&str]) -> Self {
        let bytes = keys.join("\n").into_bytes();
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The keys, if there are so many; whatever a client sends, this only fails.
    pub fn keys<const N: usize>(&self) -> Result<[String; N], ErrorBody> {
        let unread = || {
            ErrorBody::new(ErrorCode::Invalid, "the cursor is not one of this list")
                .with_help("take it from the `Link` header of the page before, as it is")
        };
        let digits = self.0.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| match pair {
                &[high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
                _ => None,
            })
            .collect();
        let text = bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(unread)?;
        let keys: Vec<String> = text.split('\n').map(str::to_owned).collect();
        keys.try_into().map_err(|_| unread())
    }

    /// The keys, each read as what it is.
    pub fn key<T: std::str::FromStr>(text: &str) -> Result<T, ErrorBody> {
        text.parse().map_err(|_| {
            ErrorBody::new(ErrorCode::Invalid, "the cursor is not one of this list")
                .with_help("take it from the `Link` header of the page before, as it is")
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Query of a list that is only paged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Most items; [`PAGE_ITEMS_MAX`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Where the page before ended; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// How many items a page may have, as was asked.
pub fn page_items(limit: Option<u32>) -> Result<usize, ErrorBody> {
    let limit = limit.unwrap_or(PAGE_ITEMS_MAX);
    if !(1..=PAGE_ITEMS_MAX).contains(&limit) {
        let message = format!("`limit` is 1 to {PAGE_ITEMS_MAX}");
        return Err(ErrorBody::new(ErrorCode::Invalid, message));
    }
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// A list that is one page.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// The page that `query` asks for, of a list that is in memory, ordered by `key`.
    pub fn of_list(
        list: Vec<T>,
        query: &PageQuery,
        key: impl Fn(&T) -> String,
    ) -> Result<Self, ErrorBody> {
        let limit = page_items(query.limit)?;
        let after: Option<String> = match &query.cursor {
            Some(cursor) => {
                let [after] = cursor.keys()?;
                Some(after)
            }
            None => None,
        };
        let mut items: Vec<T> = list
            .into_iter()
            .filter(|item| after.as_ref().is_none_or(|after| key(item) > *after))
            .collect();
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more);
        let next = next.map(|last| Cursor::of(&[&key(last)]));
        Ok(Self { items, next })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_cursor_carries_its_keys_and_whatever_else_is_sent_is_refused() {
        let cursor = Cursor::of(&["a", "b c/é"]);
        assert_eq!(cursor.keys::<2>().unwrap(), ["a", "b c/é"]);
        assert!(
            cursor
                .to_string()
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
        );
        for wrong in ["", "6", "zz", "61", "+1", "é", "ff0a61"] {
            let read: Cursor = serde_json::from_str(&format!("{wrong:?}")).unwrap();
            let error = read.keys::<2>().unwrap_err();
            assert_eq!(error.code, ErrorCode::Invalid, "{wrong}");
        }
        assert!(Cursor::key::<u64>("17").is_ok() && Cursor::key::<u64>("x").is_err());
    }

    #[test]
    fn pages_of_a_list_have_each_item_once() {
        for (items, limit) in [(0, 1), (1, 1), (7, 3), (6, 3), (5, 1000)] {
            let list: Vec<String> = (0..items).map(|n| format!("{n:03}")).collect();
            let mut query = PageQuery {
                limit: Some(limit),
                cursor: None,
            };
            let mut seen = Vec::new();
            loop {
                let page = Page::of_list(list.clone(), &query, String::clone).unwrap();
                assert!(page.items.len() <= limit as usize);
                seen.extend(page.items);
                query.cursor = page.next;
                if query.cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen, list);
        }
        for limit in [0, PAGE_ITEMS_MAX + 1, u32::MAX] {
            assert!(page_items(Some(limit)).is_err());
        }
    }
}
