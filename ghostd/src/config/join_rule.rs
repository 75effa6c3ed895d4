//! `[[join]]`: how the number of a joining node follows from its host name or address.
//!
//! ```toml
//! [[join]]
//! hostname = "n{}"                            # {} stands for digits: n7 (also n7.example.org) is node 7
//! [[join]]
//! hostname = "rack2-{}"
//! add = 32                                    # rack2-0 is node 32
//! [[join]]
//! addresses = "10.0.0.10-10.0.0.73"
//! first = 0                                   # 10.0.0.10 is node 0, 10.0.0.73 node 63
//! ```
//! A host name is what the joining machine says of itself, an address is what the connection comes from.

use std::net::IpAddr;

use ghost_proto::ids::NodeNumber;
use serde::Deserialize;

/// A rule, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinRule {
    /// `{}` in the host name, plus `add`.
    Hostname { before: String, after: String, add: i32 },
    /// The address's position in the range, plus `number`. Both ends are included and of one family.
    Addresses { first: IpAddr, last: IpAddr, number: i32 },
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    hostname: Option<String>,
    add: Option<i32>,
    addresses: Option<String>,
    first: Option<i32>,
}

impl JoinRule {
    pub(super) fn understand(written: Written) -> Result<JoinRule, String> {
        match written {
            Written { hostname: Some(pattern), add, addresses: None, first: None } => {
                let (before, after) = pattern
                    .split_once("{}")
                    .filter(|(_, after)| !after.contains("{}"))
                    .ok_or_else(|| format!("`{pattern}` must contain `{{}}` once, in place of the number"))?;
                Ok(JoinRule::Hostname { before: before.into(), after: after.into(), add: add.unwrap_or(0) })
            }
            Written { hostname: None, add: None, addresses: Some(range), first } => {
                let (low, high) = range.split_once('-').unwrap_or((&range, &range));
                let address = |text: &str| {
                    text.trim().parse::<IpAddr>().map_err(|_| {
                        format!("`{}` is not an address; write for example `10.0.0.10-10.0.0.73`", text.trim())
                    })
                };
                let (low, high) = (address(low)?, address(high)?);
                if low.is_ipv4() != high.is_ipv4() || low > high {
                    return Err(format!("`{range}` is not a range from a lower to a higher address of one family"));
                }
                Ok(JoinRule::Addresses { first: low, last: high, number: first.unwrap_or(0) })
            }
            _ => Err("a rule has either `hostname` (and perhaps `add`) or `addresses` (and perhaps `first`)".into()),
        }
    }

    /// The number that this rule gives to a machine, if it fits the rule and the number is one a node can have.
    pub fn number(&self, hostname: &str, address: IpAddr) -> Option<NodeNumber> {
        let number = match self {
            JoinRule::Hostname { before, after, add } => {
                // A pattern without a dot is about the host's own label, whatever domain follows.
                let dotted = before.contains('.') || after.contains('.');
                let name = if dotted { hostname } else { hostname.split('.').next().unwrap_or(hostname) };
                let digits = name.strip_prefix(before.as_str())?.strip_suffix(after.as_str())?;
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                digits.parse::<i32>().ok()?.checked_add(*add)?
            }
            JoinRule::Addresses { first, last, number } => {
                let address = address.to_canonical();
                if address.is_ipv4() != first.is_ipv4() || address < *first || address > *last {
                    return None;
                }
                i32::try_from(as_number(address).checked_sub(as_number(*first))?).ok()?.checked_add(*number)?
            }
        };
        let number = NodeNumber(number);
        (number > NodeNumber::MASTER && number <= NodeNumber::MAX).then_some(number)
    }
}

fn as_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostname(pattern: &str, add: Option<i32>) -> Result<JoinRule, String> {
        JoinRule::understand(Written { hostname: Some(pattern.into()), add, addresses: None, first: None })
    }

    fn addresses(range: &str, first: Option<i32>) -> Result<JoinRule, String> {
        JoinRule::understand(Written { hostname: None, add: None, addresses: Some(range.into()), first })
    }

    fn number(rule: &JoinRule, hostname: &str, address: &str) -> Option<i32> {
        rule.number(hostname, address.parse().unwrap()).map(|n| n.0)
    }

    #[test]
    fn host_names() {
        let rule = hostname("n{}", None).unwrap();
        for (name, expected) in [
            ("n7", Some(7)),
            ("n007", Some(7)),
            ("n7.example.org", Some(7)),
            ("n", None),
            ("n7b", None),
            ("xn7", None),
            ("n-7", None),
            ("n+7", None),
            ("n65535", Some(65_535)),
            ("n65536", None),
            ("n99999999999", None),
        ] {
            assert_eq!(number(&rule, name, "::1"), expected, "{name}");
        }
        let rule = hostname("r{}.a", Some(-1)).unwrap();
        assert_eq!(number(&rule, "r1.a", "::1"), Some(0));
        assert_eq!(number(&rule, "r0.a", "::1"), None, "-1 is the master's");
        assert_eq!(number(&rule, "r1.a.b", "::1"), None);
        // Prefix and suffix may not share letters.
        assert_eq!(number(&hostname("aa{}a", None).unwrap(), "aa", "::1"), None);
        assert!(hostname("n", None).is_err());
        assert!(hostname("n{}{}", None).is_err());
    }

    #[test]
    fn address_ranges() {
        let rule = addresses("10.0.0.10-10.0.1.9", Some(100)).unwrap();
        for (address, expected) in [
            ("10.0.0.10", Some(100)),
            ("10.0.1.9", Some(355)),
            ("10.0.0.9", None),
            ("10.0.1.10", None),
            ("::ffff:10.0.0.11", Some(101)),
            ("fe80::1", None),
        ] {
            assert_eq!(number(&rule, "n3", address), expected, "{address}");
        }
        let one = addresses("fd00::5", Some(3)).unwrap();
        assert_eq!(number(&one, "", "fd00::5"), Some(3));
        assert_eq!(number(&addresses("::-ffff::", None).unwrap(), "", "fd00::5"), None, "beyond the largest number");
        for bad in ["10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "10.0.0.1-", "n{}"] {
            assert!(addresses(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rule_is_of_one_kind() {
        let mixed = Written { hostname: Some("n{}".into()), add: None, addresses: None, first: Some(1) };
        assert!(JoinRule::understand(mixed).is_err());
        assert!(JoinRule::understand(Written { hostname: None, add: None, addresses: None, first: None }).is_err());
    }
}
