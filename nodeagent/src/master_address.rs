//! Where the master is: `HOST[:PORT]`, and the addresses that a host's name stands for.
//!
//! The program is linked statically, so the C library cannot load the modules of nsswitch.conf: /etc/hosts is read here,
//! and other sources (DNS, …) are asked through getent(1).

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::str::FromStr;

/// The port of the cluster protocol.
pub const PORT: u16 = 2223;

/// The master as the administrator names it; resolved anew for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterAddress {
    pub host: String,
    pub port: u16,
}

/// The text names no master.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no HOST or HOST:PORT; an IPv6 address with a port is written [ADDRESS]:PORT")]
pub struct BadAddress(String);

/// The host's name stands for no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the master's name `{0}` stands for no address (neither /etc/hosts nor `getent ahosts` knows it)")]
pub struct Unresolved(String);

impl MasterAddress {
    /// The address, if it is named by that: nobody has to be asked.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, self.port))
    }

    /// The addresses to try, in order. May wait for a name server.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Some(address) = self.literal() {
            return Ok(vec![address]);
        }
        let mut found = fs::read_to_string("/etc/hosts").map(|text| in_hosts(&text, &self.host)).unwrap_or_default();
        if found.is_empty() {
            // "--": a name that begins with a dash is not an option.
            if let Ok(output) = Command::new("getent").args(["ahosts", "--", &self.host]).output() {
                found = in_ahosts(&String::from_utf8_lossy(&output.stdout));
            }
        }
        if found.is_empty() {
            return Err(Unresolved(self.host.clone()));
        }
        Ok(found.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }
}

impl FromStr for MasterAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<MasterAddress, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        if let Ok(SocketAddr::V6(address)) = text.parse() {
            return Ok(MasterAddress { host: address.ip().to_string(), port: address.port() });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<Ipv6Addr>().is_ok() {
            return Ok(MasterAddress { host: bare.to_owned(), port: PORT });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?),
            None => (text, PORT),
        };
        let letters = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if host.is_empty() || host.len() > 253 || host.starts_with('-') || !letters {
            return Err(bad());
        }
        Ok(MasterAddress { host: host.to_owned(), port })
    }
}

impl fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses of a name in the text of /etc/hosts (hosts(5)).
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = fields.next().and_then(|field| field.parse::<IpAddr>().ok());
        if let Some(address) = address
            && fields.any(|alias| alias.eq_ignore_ascii_case(name))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The addresses in the output of `getent ahosts`: each stands there once for every kind of socket.
fn in_ahosts(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(Ok(address)) = line.split_whitespace().next().map(str::parse)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: u16) {
        let address: MasterAddress = text.parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
        assert_eq!(address.to_string().parse(), Ok(address), "what is written reads back");
    }

    #[test]
    fn every_form_of_an_address() {
        check("head", "head", PORT);
        check("head.example.org:99", "head.example.org", 99);
        check("10.0.0.1", "10.0.0.1", PORT);
        check("10.0.0.1:99", "10.0.0.1", 99);
        check("fd00::1", "fd00::1", PORT);
        check("[fd00::1]", "fd00::1", PORT);
        check("[fd00::1]:99", "fd00::1", 99);
        for bad in ["", ":99", "head:", "head:0", "head:65536", "head:x", "a b", "-x", "a:b:c", "[head]", "é"] {
            assert!(bad.parse::<MasterAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hosts_files() {
        let text =
            "127.0.0.1 localhost\n10.0.0.1\thead.example.org head # the head node\n# 10.0.0.2 head\nfd00::1 HEAD\n";
        assert_eq!(in_hosts(text, "head"), ["10.0.0.1", "fd00::1"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert!(in_hosts(text, "node").is_empty());
        assert!(in_hosts(text, "10.0.0.1").is_empty());
        let text = "10.0.0.1        STREAM head\n10.0.0.1        DGRAM\n10.0.0.1        RAW\nfd00::1 STREAM\n";
        assert_eq!(in_ahosts(text).len(), 2);
    }

    #[test]
    fn names_of_this_host_are_found() {
        let address: MasterAddress = "localhost:7".parse().unwrap();
        assert!(address.resolve().unwrap().iter().all(|a| a.ip().is_loopback() && a.port() == 7));
        assert!("no-such-host.invalid".parse::<MasterAddress>().unwrap().resolve().is_err());
    }
}
