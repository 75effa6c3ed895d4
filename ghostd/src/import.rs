//! `ghostd import-config`: what a BProc, Clustermatic or Scyld configuration says, as one of ghostd's.
//!
//! Pure: a text in, a text and a line about each line out. The file's form is that of BProc's `config`: a keyword and words behind
//! it, `#` begins a comment. Keywords are those of BProc 4 and of what was built around it.
//! Invariants: every line that says something has its answer, also one that is not understood; what comes out is a valid
//! configuration of ghostd.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ghost_proto::ids::NodeNumber;

use crate::config::{Config, MAX_LEASE, MAX_LEASE_AND_MARGIN, PORT};

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the new file, as this.
    Taken(String),
    /// There is nothing to take over, and why.
    Needless(&'static str),
    /// It has to be seen to by hand: why.
    ByHand(String),
    /// It is wrong, or nobody knows what it means.
    Wrong(String),
}

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    pub text: String,
    pub fate: Fate,
}

impl Line {
    /// For people; `file` is the name of the file that was read.
    pub fn say(&self, file: &str) -> String {
        let (text, number) = (&self.text, self.number);
        match &self.fate {
            Fate::Taken(what) => format!("{file}:{number}: {text}: taken as {what}"),
            Fate::Needless(why) => format!("{file}:{number}: {text}: not needed: {why}"),
            Fate::ByHand(what) => format!("{file}:{number}: {text}: to be done by hand: {what}"),
            Fate::Wrong(why) => format!("{file}:{number}: {text}: not taken: {why}"),
        }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Import {
    /// The new configuration file.
    pub config: String,
    pub lines: Vec<Line>,
}

impl Import {
    /// How many lines were not taken because they are wrong or unknown.
    pub fn wrong(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line.fate, Fate::Wrong(_))).count()
    }
}

/// What the file has said so far.
#[derive(Default)]
struct Said {
    address: Option<IpAddr>,
    interface: Option<String>,
    port: Option<u16>,
    lease: Option<u64>,
    nodes: Option<i32>,
    /// First node, first and last address.
    ranges: Vec<(i32, Ipv4Addr, Ipv4Addr)>,
}

/// The address of a network interface of this host; of several the first one of IPv4.
pub fn address_of(interface: &str) -> Option<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    all.filter(|one| one.interface_name == interface)
        .find_map(|one| Some(IpAddr::V4(one.address?.as_sockaddr_in()?.ip())))
}

/// Understands the text of such a file. `address_of` is asked for the address of a network interface of this host.
pub fn import(text: &str, address_of: impl Fn(&str) -> Option<IpAddr>) -> Import {
    let mut said = Said::default();
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((keyword, values)) = words.split_first() else { continue };
        let fate = said.line(&keyword.to_ascii_lowercase(), values, &address_of).unwrap_or_else(Fate::Wrong);
        // Of what the file holds nothing but text comes out again.
        let text = words.join(" ").chars().filter(|c| !c.is_control()).take(200).collect();
        lines.push(Line { number: index + 1, text, fate });
    }
    Import { config: said.config(), lines }
}

impl Said {
    fn line(
        &mut self,
        keyword: &str,
        values: &[&str],
        address_of: &impl Fn(&str) -> Option<IpAddr>,
    ) -> Result<Fate, String> {
        match keyword {
            "interface" => self.interface(values, address_of),
            "bprocport" => {
                let port = number(values.first().copied(), "a port", 1..=65_535)?;
                self.port = u16::try_from(port).ok();
                Ok(Fate::Taken(format!("the port of `listen`, {port}")))
            }
            "nodes" => {
                let most = u64::from(NodeNumber::MAX.0.unsigned_abs()) + 1;
                let count = number(values.first().copied(), "how many nodes", 1..=most)?;
                self.nodes = i32::try_from(count).ok();
                Ok(Fate::Taken(format!("nodes = \"{}\"", self.node_list())))
            }
            "iprange" => self.iprange(values),
            "ip" => self.ip(values),
            "pingtimeout" => {
                let seconds = number(values.first().copied(), "seconds", 1..=u64::from(u32::MAX))?;
                let lease = seconds.min(MAX_LEASE);
                self.lease = Some(lease);
                let cut = if lease < seconds { ", the longest that there is" } else { "" };
                Ok(Fate::Taken(format!("lease_seconds = {lease}{cut}")))
            }
            "allowinsecureports" => {
                Ok(Fate::Needless("nodes show certificates; from which port they come does not count"))
            }
            "slavetimesync" => {
                Ok(Fate::Needless("nodes keep their own clocks, and nothing here depends on them; let chrony set them"))
            }
            "logfacility" => Ok(Fate::Needless("the daemons log to the journal, or to standard error")),
            "libraries" | "librariesfrombinary" | "libraryexcl" | "prestage" => Ok(Fate::ByHand(
                "programs use the libraries of the node that they run on: install them there".to_owned(),
            )),
            "master" => {
                Ok(Fate::ByHand("one master each: `nodeagent join` on a node says which one is its".to_owned()))
            }
            "node" => Ok(Fate::ByHand(
                "nodes are known by certificates, not by hardware addresses: make tokens with `bpctl token --nodes N`"
                    .to_owned(),
            )),
            "nodeup" | "node_up" | "nodescript" => {
                Ok(Fate::ByHand("name the script in ghostd.toml, if it is still of use".to_owned()))
            }
            "bootfile" | "bootport" | "kernelimage" | "kernelcommandline" | "initrdimage" | "bootmodule" | "modarg"
            | "pci" | "fsck" | "mkfs" | "hostname" | "transmitfqdn" | "nodeassign" | "filecache" | "masterorder"
            | "readonly" | "rarp" | "norarp" | "slave" | "monte" => {
                Ok(Fate::Needless("nodes boot by themselves, with the system that is installed there"))
            }
            _ => Err("no such keyword is known; nothing in the new file comes of it".to_owned()),
        }
    }

    fn interface(&mut self, values: &[&str], address_of: &impl Fn(&str) -> Option<IpAddr>) -> Result<Fate, String> {
        let Some(&name) = values.first() else { return Err("the interface's name is missing".to_owned()) };
        let given = values.get(1).map(|address| ipv4(address).map(IpAddr::V4)).transpose()?;
        self.interface = Some(name.chars().filter(|c| !c.is_control()).collect());
        self.address = given.or_else(|| address_of(name));
        Ok(match self.address {
            Some(address) => Fate::Taken(format!("the address of `listen`, {address}")),
            None => Fate::ByHand(format!(
                "this host has no interface {name} with an address: ghostd listens on all; set `listen` to narrow that"
            )),
        })
    }

    /// `iprange [FIRST_NODE] LOW HIGH`
    fn iprange(&mut self, values: &[&str]) -> Result<Fate, String> {
        let (first, low, high) = match values {
            [low, high] => (0, low, high),
            [first, low, high] => (node(first)?, low, high),
            _ => return Err("two addresses are wanted, with the first node's number before them or without".to_owned()),
        };
        let (low, high) = (ipv4(low)?, ipv4(high)?);
        if low > high {
            return Err(format!("the range ends before it begins: {low} to {high}"));
        }
        let last = i64::from(first) + i64::from(u32::from(high) - u32::from(low));
        if last > i64::from(NodeNumber::MAX.0) {
            return Err(format!("{high} would be node {last}; the highest is {}", NodeNumber::MAX.0));
        }
        self.ranges.push((first, low, high));
        Ok(Fate::Taken(format!("a [[join]] rule: {low} to {high} are nodes {first} to {last}")))
    }

    /// `ip NODE ADDRESS...`, or `ip ADDRESS...` for the nodes from 0 on.
    fn ip(&mut self, values: &[&str]) -> Result<Fate, String> {
        let (first, addresses) = match values.split_first() {
            Some((first, rest)) if !first.contains('.') => (node(first)?, rest),
            _ => (0, values),
        };
        if addresses.is_empty() {
            return Err("an address is missing".to_owned());
        }
        let addresses = addresses.iter().map(|address| ipv4(address)).collect::<Result<Vec<_>, _>>()?;
        for (number, address) in (first..).zip(&addresses) {
            node(&number.to_string())?;
            self.ranges.push((number, *address, *address));
        }
        Ok(Fate::Taken(match addresses.as_slice() {
            [address] => format!("a [[join]] rule: {address} is node {first}"),
            more => format!("{} [[join]] rules, from node {first} on", more.len()),
        }))
    }

    fn node_list(&self) -> String {
        match self.nodes {
            Some(1) => "0".to_owned(),
            Some(count) => format!("0-{}", count - 1),
            None => {
                // Those that have addresses; ranges may overlap.
                let numbers: BTreeSet<(i32, i32)> = self.ranges.iter().map(|range| (range.0, last_of(range))).collect();
                let parts = numbers
                    .into_iter()
                    .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
                parts.collect::<Vec<_>>().join(",")
            }
        }
    }

    fn config(&self) -> String {
        let mut text = String::from("# Configuration of ghostd, made from one of BProc by `ghostd import-config`.\n");
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let listen = SocketAddr::new(self.address.unwrap_or(any), self.port.unwrap_or(PORT));
        if let Some(interface) = &self.interface {
            let _ = writeln!(text, "\n# Interface {interface}.");
        }
        let _ = writeln!(text, "listen = \"{listen}\"");
        if let Some(lease) = self.lease {
            let _ = writeln!(text, "lease_seconds = {lease}");
            let margin = Config::default().margin.as_secs().min(MAX_LEASE_AND_MARGIN - 1 - lease);
            let _ = writeln!(text, "margin_seconds = {margin}");
        }
        let nodes = self.node_list();
        if !nodes.is_empty() {
            let _ = writeln!(text, "nodes = \"{nodes}\"");
        }
        for range in &self.ranges {
            let (first, low, high) = range;
            let addresses = if low == high { low.to_string() } else { format!("{low}-{high}") };
            let _ = write!(text, "\n[[join]]\naddresses = \"{addresses}\"\nfirst = {first}\n");
        }
        text
    }
}

fn last_of((first, low, high): &(i32, Ipv4Addr, Ipv4Addr)) -> i32 {
    first + i32::try_from(u32::from(*high) - u32::from(*low)).unwrap_or(i32::MAX - first)
}

fn number(word: Option<&str>, what: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let word = word.ok_or_else(|| format!("{what} is missing"))?;
    let good = word.parse().ok().filter(|value| range.contains(value));
    good.ok_or_else(|| format!("`{word}` is not {what} between {} and {}", range.start(), range.end()))
}

fn node(word: &str) -> Result<i32, String> {
    let good = word.parse().ok().filter(|number| (0..=NodeNumber::MAX.0).contains(number));
    good.ok_or_else(|| format!("`{word}` is not a node's number between 0 and {}", NodeNumber::MAX.0))
}

fn ipv4(word: &str) -> Result<Ipv4Addr, String> {
    word.parse().map_err(|_| format!("`{word}` is not an IPv4 address"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::JoinRule;

    const CLUSTERMATIC: &str = "\
# Sample Clustermatic configuration
interface eth0 10.0.4.1 255.255.255.0
bprocport 2224
nodes 5
iprange 0 10.0.4.10 10.0.4.13   # the first four
ip 4 10.0.4.20
pingtimeout 30
allowinsecureports no
slavetimesync yes
libraries /lib/ld-linux.so* /lib/libc.so*
LibrariesFromBinary /bin/ps
logfacility daemon
bootfile /boot/node.img
frobnicate 7
";

    fn read(text: &str) -> (Import, Config) {
        let import = import(text, |name| (name == "eth1").then(|| IpAddr::from([192, 168, 1, 1])));
        let config =
            Config::parse(&import.config, Path::new("new")).unwrap_or_else(|e| panic!("{e}:\n{}", import.config));
        (import, config)
    }

    #[test]
    fn a_whole_file() {
        let (import, config) = read(CLUSTERMATIC);
        assert_eq!(config.listen.to_string(), "10.0.4.1:2224");
        assert_eq!(config.lease.as_secs(), 30);
        assert_eq!(config.nodes, [0, 1, 2, 3, 4].map(NodeNumber));
        let numbers = |address: [u8; 4]| config.join.iter().find_map(|rule| rule.number("x", IpAddr::from(address)));
        assert_eq!(numbers([10, 0, 4, 12]), Some(NodeNumber(2)));
        assert_eq!(numbers([10, 0, 4, 20]), Some(NodeNumber(4)));
        assert_eq!(import.lines.len(), 13, "every line has its answer");
        let said: Vec<String> = import.lines.iter().map(|line| line.say("config")).collect();
        assert_eq!(
            said[0],
            "config:2: interface eth0 10.0.4.1 255.255.255.0: taken as the address of `listen`, 10.0.4.1"
        );
        assert_eq!(said[2], "config:4: nodes 5: taken as nodes = \"0-4\"");
        assert!(said[9].starts_with("config:11: LibrariesFromBinary /bin/ps: to be done by hand: "), "{}", said[9]);
        assert!(said[12].starts_with("config:14: frobnicate 7: not taken: no such keyword"), "{}", said[12]);
        assert_eq!(import.wrong(), 1);
    }

    #[test]
    fn an_interface_is_asked_for_its_address() {
        assert_eq!(read("interface eth1\n").1.listen.to_string(), "192.168.1.1:2223");
        let (import, config) = read("interface eth7\n");
        assert_eq!(config.listen.to_string(), "0.0.0.0:2223");
        assert!(matches!(&import.lines[0].fate, Fate::ByHand(why) if why.contains("eth7")));
        assert_eq!(import.wrong(), 0);
    }

    #[test]
    fn nodes_are_also_those_that_have_addresses() {
        let (_, config) = read("ip 10.0.0.1 10.0.0.7\niprange 8 10.0.1.1 10.0.1.2\n");
        assert_eq!(config.nodes, [0, 1, 8, 9].map(NodeNumber));
        assert_eq!(config.join.len(), 3);
        assert!(matches!(&config.join[0], JoinRule::Addresses { number: 0, .. }));
    }

    #[test]
    fn what_is_wrong_is_said_and_left_out() {
        for (line, why) in [
            ("nodes", "is missing"),
            ("nodes many", "`many`"),
            ("nodes 0", "between 1"),
            ("bprocport 70000", "65535"),
            ("iprange 10.0.0.9 10.0.0.1", "ends before"),
            ("iprange 0 10.0.0.1", "`0` is not an IPv4 address"),
            ("iprange 10.0.0.1", "two addresses"),
            ("iprange 0 0.0.0.0 255.255.255.255", "the highest is"),
            ("ip 3", "an address is missing"),
            ("ip -3 10.0.0.1", "`-3`"),
            ("interface", "name is missing"),
            ("interface eth0 here", "`here`"),
            ("pingtimeout soon", "`soon`"),
        ] {
            let (import, config) = read(line);
            assert!(matches!(&import.lines[0].fate, Fate::Wrong(text) if text.contains(why)), "{:?}", import.lines);
            assert_eq!(config, Config::default(), "{line}");
        }
    }

    #[test]
    fn a_long_ping_timeout_is_the_longest_lease() {
        let (import, config) = read("pingtimeout 300");
        assert_eq!((config.lease.as_secs(), config.margin.as_secs()), (40, 5));
        assert!(matches!(&import.lines[0].fate, Fate::Taken(what) if what.contains("longest")));
    }

    proptest! {
        /// Whatever the file holds, what comes out is a configuration, and each line has an answer of one line.
        #[test]
        fn anything_gives_a_configuration(lines in prop::collection::vec(
            prop_oneof![
                "(interface|iprange|ip|nodes|bprocport|pingtimeout) [a-z0-9.\"\\\\ -]{0,30}",
                "(iprange|ip) [0-9]{1,2} 10\\.0\\.0\\.[0-9]{1,3} 10\\.0\\.0\\.[0-9]{1,3}",
                "nodes [0-9]{1,6}",
                "\\PC{0,40}",
            ], 0..12)) {
            let (import, _) = read(&lines.join("\n"));
            for line in &import.lines {
                prop_assert_eq!(line.say("f").lines().count(), 1);
            }
        }
    }
}
