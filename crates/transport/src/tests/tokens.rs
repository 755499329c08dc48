//! Tokens as text: written, read back, damaged.

use sluice_model::TokenId;

use crate::Address;
use crate::identity::{JoinToken, TOKEN_ADDRESSES_MAX, TokenError, TokenSecret};

fn token() -> JoinToken {
    JoinToken {
        authority_sha256: [0xa5; 32],
        id: TokenId::from_random([7; 16]),
        secret: TokenSecret::from_slice(&[0x3c; 32]).unwrap(),
        addresses: [
            "orchestrator.example:7443",
            "192.0.2.7:7443",
            "[2001:db8::1]:65535",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec(),
    }
}

#[test]
fn a_token_reads_back_however_it_was_copied() {
    let text = token().encode().unwrap();
    assert!(text.starts_with("sluice1-") && text.len() < 400, "{text}");
    assert!(
        text[8..]
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte))
    );
    let wrapped: String = text
        .as_bytes()
        .chunks(40)
        .map(|line| format!("  {}\r\n", String::from_utf8_lossy(line)))
        .collect();
    let shouted = format!("sluice1-{}", text[8..].to_uppercase());
    for copied in [text.as_str(), &format!("\n{text}\n"), &wrapped, &shouted] {
        assert_eq!(JoinToken::parse(copied).unwrap(), token());
    }
}

#[test]
fn every_number_of_addresses_within_the_bound_passes() {
    let long: Address = format!("{}:7443", "a".repeat(240)).parse().unwrap();
    for count in 1..=TOKEN_ADDRESSES_MAX {
        let token = JoinToken {
            addresses: vec![long.clone(); count],
            ..token()
        };
        assert_eq!(JoinToken::parse(&token.encode().unwrap()).unwrap(), token);
    }
    for count in [0, TOKEN_ADDRESSES_MAX + 1] {
        let token = JoinToken {
            addresses: vec![long.clone(); count],
            ..token()
        };
        assert_eq!(token.encode(), Err(TokenError::Addresses));
    }
}

#[test]
fn a_token_cut_anywhere_is_noticed() {
    let text = token().encode().unwrap();
    for end in 0..text.len() {
        assert!(
            JoinToken::parse(&text[..end]).is_err(),
            "the first {end} letters passed"
        );
    }
    for start in 1..text.len() {
        assert_eq!(JoinToken::parse(&text[start..]), Err(TokenError::NotAToken));
    }
    assert_eq!(
        JoinToken::parse(&text[..text.len() - 1]),
        Err(TokenError::Damaged)
    );
    assert_eq!(
        JoinToken::parse(&format!("{text}{}", &text[8..])),
        Err(TokenError::Damaged)
    );
}

#[test]
fn a_mistyped_token_is_noticed() {
    let text = token().encode().unwrap();
    for index in 8..text.len() {
        for other in ["a", "q", "7"] {
            let mut typed = text.clone();
            typed.replace_range(index..=index, other);
            assert!(
                typed == text || JoinToken::parse(&typed).is_err(),
                "`{other}` at {index} passed"
            );
        }
        if index + 1 < text.len() {
            let mut swapped = text.clone().into_bytes();
            swapped.swap(index, index + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            assert!(
                swapped == text || JoinToken::parse(&swapped).is_err(),
                "swapped at {index}"
            );
        }
    }
}

#[test]
fn what_is_no_token_says_what_to_do() {
    let text = token().encode().unwrap();
    let cases = [
        (
            String::new(),
            "not a join token: it must start with `sluice1-`; get one with `sluice token create`",
        ),
        (
            "eyJhbGciOiJ".to_owned(),
            "not a join token: it must start with `sluice1-`; get one with `sluice token create`",
        ),
        (
            text.replace("sluice1-", "sluice2-"),
            "the join token has version `2`, but this program knows only version 1; use a newer program",
        ),
        (
            "sluice1-ab0d".to_owned(),
            "the join token has the letter `0` at position 11, which no token has; copy it again",
        ),
        (
            "sluice1-".to_owned(),
            "the join token is damaged (cut short or mistyped); copy it again, whole",
        ),
        (
            "x".repeat(10_000),
            "not a join token: it has more than 8192 bytes",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(JoinToken::parse(&text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_secret_shows_only_its_hash() {
    let token = token();
    assert!(
        !format!("{token:?}").contains("60"),
        "0x3c is 60: {token:?}"
    );
    assert_eq!(
        token.secret.hash(),
        TokenSecret::from_slice(&[0x3c; 32]).unwrap().hash()
    );
    assert_ne!(token.secret.hash(), TokenSecret::generate().unwrap().hash());
    assert!(TokenSecret::from_slice(&[0; 31]).is_none());
}

#[test]
fn addresses_read_back_and_wrong_ones_say_why() {
    for good in [
        "localhost:1",
        "10.0.0.1:7443",
        "[::1]:7443",
        "a-b.c_d.example:65535",
    ] {
        assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
    }
    for (bad, why) in [
        ("", "it has no port"),
        ("host", "it has no port"),
        ("host:", "its port is not a number"),
        ("host:0", "port 0 cannot be reached"),
        ("host:+7", "its port is not a number"),
        ("host:65536", "its port is not a number"),
        (":7443", "its host is neither a name nor an IP address"),
        ("ho st:7443", "its host is neither a name nor an IP address"),
        ("::1:7443", "an IPv6 address needs brackets"),
        ("[::1:7443", "a bracket is missing"),
        ("[host]:7443", "the brackets do not hold an IPv6 address"),
        ("https://host:7443", "it is a URL"),
    ] {
        let error = bad.parse::<Address>().unwrap_err().to_string();
        assert!(
            error.contains(why) && error.contains("HOST:PORT"),
            "{bad}: {error}"
        );
    }
}
