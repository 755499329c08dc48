//! `HOST:PORT`, where the host is a DNS name or an IP address (IPv6 in brackets). Names are resolved at each dial.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest host name that DNS knows.
const HOST_BYTES_MAX: usize = 253;

/// Where a server can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host: a name, or an IP address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; never 0.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// A text that is not `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an address: {problem}; write HOST:PORT, for example `orchestrator.example:7443`"
)]
pub struct AddressError {
    text: String,
    problem: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |problem| AddressError {
            text: text.to_owned(),
            problem,
        };
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("it has no port"))?;
        let port = match port.parse() {
            Ok(0) => return Err(wrong("port 0 cannot be reached")),
            Ok(port) if port_is_plain(text) => port,
            _ => return Err(wrong("its port is not a number from 1 to 65535")),
        };
        let host = if let Some(bracketed) = host.strip_prefix('[') {
            let ip = bracketed
                .strip_suffix(']')
                .ok_or_else(|| wrong("a bracket is missing"))?;
            let ip: Ipv6Addr = ip
                .parse()
                .map_err(|_| wrong("the brackets do not hold an IPv6 address"))?;
            ip.to_string()
        } else if host.parse::<Ipv6Addr>().is_ok() {
            return Err(wrong("an IPv6 address needs brackets"));
        } else if host.contains("//") {
            return Err(wrong("it is a URL"));
        } else {
            host.to_owned()
        };
        let is_ip = host.parse::<IpAddr>().is_ok();
        let is_name = !host.is_empty()
            && host.len() <= HOST_BYTES_MAX
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if !is_ip && !is_name {
            return Err(wrong("its host is neither a name nor an IP address"));
        }
        Ok(Self { host, port })
    }
}

/// `u16::from_str` takes `+7`; an address does not.
fn port_is_plain(text: &str) -> bool {
    text.rsplit(':')
        .next()
        .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}
