//! Whole numbers of requests, as JSON means them: `3.0` is 3, and none is larger than what a store counts to.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use sluice_model::Version;

/// The largest: counters are stored as signed numbers of 64 bits.
const WHOLE_MAX: u64 = i64::MAX as u64;

/// A field that is a whole number.
pub(crate) fn whole<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
    Whole::deserialize(input).map(|Whole(number)| number)
}

/// A field that is a whole number or null.
pub(crate) fn maybe_whole<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Whole>::deserialize(input)?.map(|Whole(number)| number))
}

/// A field that is a version or null.
pub(crate) fn maybe_version<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<Version>, D::Error> {
    Ok(maybe_whole(input)?.map(Version))
}

struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_u64(Wanted)
    }
}

struct Wanted;

impl Visitor<'_> for Wanted {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {WHOLE_MAX}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Whole, E> {
        if number > WHOLE_MAX {
            return Err(E::invalid_value(
                serde::de::Unexpected::Unsigned(number),
                &self,
            ));
        }
        Ok(Whole(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Whole, E> {
        // Its digits say exactly which whole number it is, if it is one.
        match format!("{:.0}", number.abs()).parse() {
            Ok(whole) if number.fract() == 0.0 && number >= 0.0 => self.visit_u64(whole),
            _ => Err(E::invalid_value(
                serde::de::Unexpected::Float(number),
                &self,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{AuditQuery, RollbackRequest, TokenCreate};

    #[test]
    fn a_whole_number_is_one_however_it_is_written_and_nothing_else_is() {
        for (text, number) in [
            ("0", 0),
            ("3", 3),
            ("3.0", 3),
            ("-0", 0),
            ("2.83e2", 283),
            ("9223372036854775807", WHOLE_MAX),
        ] {
            let rollback: RollbackRequest =
                serde_json::from_str(&format!(r#"{{"to":{text}}}"#)).unwrap();
            assert_eq!(rollback.to, Some(Version(number)), "{text}");
            let token: TokenCreate =
                serde_json::from_str(&format!(r#"{{"ttl_ms":{text},"uses":{text}}}"#)).unwrap();
            assert_eq!((token.ttl_ms, token.uses), (number, number), "{text}");
        }
        for text in [
            "-1",
            "-1.0",
            "0.5",
            "1e19",
            "1e300",
            "9223372036854775808",
            "18446744073709551616",
            "\"3\"",
            "true",
            "[3]",
        ] {
            let read = serde_json::from_str::<RollbackRequest>(&format!(r#"{{"to":{text}}}"#));
            assert!(read.is_err(), "{text}");
            let read = serde_json::from_str::<TokenCreate>(&format!(r#"{{"ttl_ms":{text}}}"#));
            assert!(read.is_err(), "{text}");
        }
        let none: RollbackRequest = serde_json::from_str(r#"{"to":null}"#).unwrap();
        assert_eq!(none, RollbackRequest::default());
        let absent: AuditQuery = serde_json::from_str("{}").unwrap();
        assert_eq!(absent.before, None);
    }
}
