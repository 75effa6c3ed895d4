//! Which files a ghost's directory has, where their content comes from, and their numbers in the file system.

use crate::fuse::{ROOT, S_IFDIR, S_IFLNK, S_IFREG};

/// Where content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The node's, with the ghost's identity.
    Stat,
    /// The node's, with the ghost's identity.
    Status,
    /// Sizes in pages.
    Statm,
    /// The name that the node's `stat` has.
    Comm,
    /// The node's as it is.
    Node,
    /// The target of the node's symbolic link.
    NodeLink,
    /// This host's.
    Own,
}

/// For whom a file is asked when somebody looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// For all ghosts of the node, together with the others of this kind.
    Always,
    /// For all ghosts of the node, as long as somebody has been looking at such files.
    Together,
    /// Of the one that is opened: large, or rarely of interest. See `snapshots`.
    Alone,
}

#[derive(Debug)]
pub(super) struct File {
    pub name: &'static str,
    /// Permission bits.
    pub mode: u32,
    pub source: Source,
    pub asked: Asked,
    /// A thread has its own.
    pub of_thread: bool,
}

const fn file(name: &'static str, mode: u32, source: Source, asked: Asked) -> File {
    File { name, mode, source, asked, of_thread: false }
}

const fn of_thread(name: &'static str, mode: u32, source: Source, asked: Asked) -> File {
    File { name, mode, source, asked, of_thread: true }
}

use Asked::{Alone, Always, Together};

/// Modes are those of fs/proc/base.c `tgid_base_stuff`, but 0400 where the kernel allows opening and then checks the right
/// to trace the process (maps and its kind, wchan).
pub(super) static FILES: [File; 45] = [
    of_thread("stat", 0o444, Source::Stat, Always),
    of_thread("status", 0o444, Source::Status, Always),
    file("statm", 0o444, Source::Statm, Always),
    file("cmdline", 0o444, Source::Node, Always),
    of_thread("comm", 0o444, Source::Comm, Always),
    of_thread("wchan", 0o400, Source::Node, Together),
    of_thread("schedstat", 0o444, Source::Node, Together),
    file("io", 0o400, Source::Node, Together),
    file("oom_score", 0o444, Source::Node, Together),
    file("oom_score_adj", 0o444, Source::Node, Together),
    file("oom_adj", 0o444, Source::Node, Together),
    // `ps aux` opens it of every process.
    file("environ", 0o400, Source::Node, Together),
    file("limits", 0o444, Source::Node, Together),
    file("exe", 0o777, Source::NodeLink, Together),
    file("cwd", 0o777, Source::NodeLink, Together),
    file("root", 0o777, Source::NodeLink, Together),
    file("arch_status", 0o444, Source::Node, Alone),
    file("auxv", 0o400, Source::Node, Alone),
    file("coredump_filter", 0o444, Source::Node, Alone),
    file("ksm_merging_pages", 0o400, Source::Node, Alone),
    file("ksm_stat", 0o400, Source::Node, Alone),
    file("maps", 0o400, Source::Node, Alone),
    file("mountinfo", 0o400, Source::Node, Alone),
    file("mounts", 0o400, Source::Node, Alone),
    file("mountstats", 0o400, Source::Node, Alone),
    file("numa_maps", 0o400, Source::Node, Alone),
    file("personality", 0o400, Source::Node, Alone),
    file("sched", 0o444, Source::Node, Alone),
    file("smaps", 0o400, Source::Node, Alone),
    file("smaps_rollup", 0o400, Source::Node, Together),
    file("stack", 0o400, Source::Node, Alone),
    file("syscall", 0o400, Source::Node, Alone),
    file("timers", 0o444, Source::Node, Alone),
    file("timerslack_ns", 0o400, Source::Node, Alone),
    file("autogroup", 0o444, Source::Own, Always),
    file("cgroup", 0o444, Source::Own, Always),
    file("cpuset", 0o444, Source::Own, Always),
    file("loginuid", 0o444, Source::Own, Always),
    file("sessionid", 0o444, Source::Own, Always),
    file("uid_map", 0o444, Source::Own, Always),
    file("gid_map", 0o444, Source::Own, Always),
    file("projid_map", 0o444, Source::Own, Always),
    file("setgroups", 0o444, Source::Own, Always),
    file("timens_offsets", 0o444, Source::Own, Always),
    of_thread(CHILDREN, 0o444, Source::Own, Always),
];

/// A thread has this file, a process has not: the processes that it has forked, which are ghosts of this host.
pub(super) const CHILDREN: &str = "children";
/// `net/`: what everybody may read of the process's network.
pub(super) const NET: [&str; 22] = [
    "arp",
    "dev",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "mcfilter",
    "netlink",
    "netstat",
    "packet",
    "protocols",
    "psched",
    "raw",
    "raw6",
    "route",
    "snmp",
    "sockstat",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "unix",
];

/// This host's namespaces, as links that lead to the kernel's own, which checks who may.
pub(super) const NAMESPACES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];
/// Security attributes of the ghost.
pub(super) const ATTRIBUTES: [&str; 6] = ["current", "exec", "fscreate", "keycreate", "prev", "sockcreate"];

/// Something in the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Root,
    /// A ghost's directory.
    Ghost,
    /// An index into [`FILES`].
    File(u8),
    Tasks,
    /// A thread by the number it is shown under.
    Task(u32),
    TaskFile(u32, u8),
    Descriptors,
    Descriptor(u32),
    Namespaces,
    Namespace(u8),
    Attributes,
    Attribute(u8),
    DescriptorInfos,
    DescriptorInfo(u32),
    Net,
    /// An index into [`NET`].
    NetFile(u8),
    /// One opening of a file that is asked for alone, by its number, which is not 0.
    Snapshot(u32),
}

/// Bits of a node id, from above: ghost, what kind of place, a number (a thread's, a descriptor's), an index.
const GHOST_SHIFT: u64 = 36;
const KIND_SHIFT: u64 = 32;
const NUMBER_SHIFT: u64 = 8;
/// Threads and descriptors have at most 22 and 20 bits.
const MOST: u32 = (1 << 24) - 1;
/// The largest number of a ghost.
pub(super) const LAST_GHOST: u32 = (1 << 28) - 1;

impl Place {
    /// The node id of this place of a ghost. `None`: a number that no thread or descriptor has.
    pub(super) fn node(self, ghost: u32) -> Option<u64> {
        let (kind, number, index) = match self {
            Place::Root => return Some(ROOT),
            Place::Ghost => (1, 0, 0),
            Place::File(index) => (2, 0, index),
            Place::Tasks => (3, 0, 0),
            Place::Task(tid) => (4, tid, 0),
            Place::TaskFile(tid, index) => (5, tid, index),
            Place::Descriptors => (6, 0, 0),
            Place::Descriptor(fd) => (7, fd, 0),
            Place::Namespaces => (8, 0, 0),
            Place::Namespace(index) => (9, 0, index),
            Place::Attributes => (10, 0, 0),
            Place::Attribute(index) => (11, 0, index),
            Place::DescriptorInfos => (12, 0, 0),
            Place::DescriptorInfo(fd) => (13, fd, 0),
            Place::Net => (14, 0, 0),
            Place::NetFile(index) => (15, 0, index),
            Place::Snapshot(number) => (0, number, 0),
        };
        (number <= MOST && ghost <= LAST_GHOST).then(|| {
            u64::from(ghost) << GHOST_SHIFT | kind << KIND_SHIFT | u64::from(number) << NUMBER_SHIFT | u64::from(index)
        })
    }

    /// The ghost's number and the place in its directory.
    pub(super) fn of_node(node: u64) -> Option<(u32, Place)> {
        if node == ROOT {
            return Some((0, Place::Root));
        }
        let ghost = u32::try_from(node >> GHOST_SHIFT).ok()?;
        let number = (node >> NUMBER_SHIFT) as u32 & MOST;
        let index = node as u8;
        let file = |index: u8| (usize::from(index) < FILES.len()).then_some(index);
        let place = match node >> KIND_SHIFT & 0xf {
            1 => Place::Ghost,
            2 => Place::File(file(index)?),
            3 => Place::Tasks,
            4 => Place::Task(number),
            5 => Place::TaskFile(number, file(index)?),
            6 => Place::Descriptors,
            7 => Place::Descriptor(number),
            8 => Place::Namespaces,
            9 => Place::Namespace(index),
            10 => Place::Attributes,
            11 => Place::Attribute(index),
            12 => Place::DescriptorInfos,
            13 => Place::DescriptorInfo(number),
            14 => Place::Net,
            15 => Place::NetFile(index),
            0 if number != 0 => Place::Snapshot(number),
            _ => return None,
        };
        Some((ghost, place))
    }

    /// For whom this is asked, if it is a file of a process that comes from the node.
    pub(super) fn asked(self) -> Option<Asked> {
        let Place::File(index) = self else { return None };
        let file = FILES.get(usize::from(index))?;
        (!matches!(file.source, Source::Own | Source::NodeLink)).then_some(file.asked)
    }

    /// If each opening of this is a snapshot of its own: the place that it is one of, the same for all threads, and what that
    /// is called in a [`ghost_proto::view::ReadPart`].
    pub(super) fn of_snapshot(self) -> Option<(Place, String)> {
        match self {
            Place::File(index) | Place::TaskFile(_, index) => {
                let file = FILES.get(usize::from(index)).filter(|file| file.asked == Asked::Alone)?;
                Some((Place::File(index), file.name.to_owned()))
            }
            Place::DescriptorInfo(fd) => Some((self, format!("fdinfo/{fd}"))),
            Place::NetFile(index) => Some((self, format!("net/{}", NET.get(usize::from(index))?))),
            _ => None,
        }
    }

    /// Kind and permission bits.
    pub(super) fn mode(self) -> u32 {
        match self {
            Place::Root => S_IFDIR | 0o500,
            Place::Ghost | Place::Tasks | Place::Task(_) | Place::Attributes | Place::Net => S_IFDIR | 0o555,
            // Reading a namespace's name needs the right to trace the process; the target asks for it.
            Place::Descriptors | Place::DescriptorInfos | Place::Namespaces => S_IFDIR | 0o500,
            Place::DescriptorInfo(_) => S_IFREG | 0o400,
            Place::File(index) | Place::TaskFile(_, index) => FILES.get(usize::from(index)).map_or(0, |file| {
                let kind = if file.source == Source::NodeLink { S_IFLNK } else { S_IFREG };
                kind | file.mode
            }),
            Place::Descriptor(_) => S_IFLNK | 0o500,
            Place::Namespace(_) => S_IFLNK | 0o777,
            Place::Attribute(_) | Place::NetFile(_) => S_IFREG | 0o444,
            // That of what it is a snapshot of; see `snapshots`.
            Place::Snapshot(_) => S_IFREG,
        }
    }

    /// The place with this name in this directory; threads and descriptors by number, whether they exist or not.
    pub(super) fn child(self, name: &str) -> Option<Place> {
        let index = |names: &[&str]| names.iter().position(|it| *it == name).map(|at| at as u8);
        let file = || FILES.iter().position(|file| file.name == name).map(|at| at as u8);
        // A number has one form only.
        let number = || name.parse::<u32>().ok().filter(|number| number.to_string() == name);
        match self {
            Place::Ghost => match name {
                "task" => Some(Place::Tasks),
                "fd" => Some(Place::Descriptors),
                "ns" => Some(Place::Namespaces),
                "attr" => Some(Place::Attributes),
                "fdinfo" => Some(Place::DescriptorInfos),
                "net" => Some(Place::Net),
                CHILDREN => None,
                _ => file().map(Place::File),
            },
            Place::Tasks => number().map(Place::Task),
            Place::Task(tid) => file().map(|file| Place::TaskFile(tid, file)),
            Place::Descriptors => number().map(Place::Descriptor),
            Place::DescriptorInfos => number().map(Place::DescriptorInfo),
            Place::Net => index(&NET).map(Place::NetFile),
            Place::Namespaces => index(&NAMESPACES).map(Place::Namespace),
            Place::Attributes => index(&ATTRIBUTES).map(Place::Attribute),
            _ => None,
        }
    }

    /// The names in this directory that are always there.
    pub(super) fn children(self) -> Vec<(String, Place)> {
        let files = || FILES.iter().zip(0u8..);
        match self {
            Place::Ghost => {
                let directories = [
                    ("attr", Place::Attributes),
                    ("fd", Place::Descriptors),
                    ("fdinfo", Place::DescriptorInfos),
                    ("net", Place::Net),
                    ("ns", Place::Namespaces),
                    ("task", Place::Tasks),
                ];
                let directories = directories.map(|(name, place)| (name.to_owned(), place));
                let files = files().filter(|(file, _)| file.name != CHILDREN);
                let files = files.map(|(file, index)| (file.name.to_owned(), Place::File(index)));
                directories.into_iter().chain(files).collect()
            }
            Place::Task(tid) => {
                files().map(|(file, index)| (file.name.to_owned(), Place::TaskFile(tid, index))).collect()
            }
            Place::Namespaces => {
                NAMESPACES.iter().zip(0u8..).map(|(&name, index)| (name.to_owned(), Place::Namespace(index))).collect()
            }
            Place::Attributes => {
                ATTRIBUTES.iter().zip(0u8..).map(|(&name, index)| (name.to_owned(), Place::Attribute(index))).collect()
            }
            Place::Net => {
                NET.iter().zip(0u8..).map(|(&name, index)| (name.to_owned(), Place::NetFile(index))).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_again_by_its_node() {
        let last = FILES.len() as u8 - 1;
        let places = [
            Place::Ghost,
            Place::File(0),
            Place::File(last),
            Place::Tasks,
            Place::Task(4_194_303),
            Place::TaskFile(4_194_303, last),
            Place::Descriptors,
            Place::Descriptor(1_048_575),
            Place::Namespaces,
            Place::Namespace(9),
            Place::Attributes,
            Place::Attribute(5),
            Place::DescriptorInfos,
            Place::DescriptorInfo(1_048_575),
            Place::Net,
            Place::NetFile(NET.len() as u8 - 1),
            Place::Snapshot(1),
            Place::Snapshot(MOST),
        ];
        let mut seen = std::collections::HashSet::new();
        for ghost in [1, LAST_GHOST] {
            for place in places {
                let node = place.node(ghost).unwrap();
                assert_eq!(Place::of_node(node), Some((ghost, place)));
                assert!(node != ROOT && seen.insert(node));
            }
        }
        assert_eq!(Place::Descriptor(1 << 24).node(1), None);
        assert_eq!(Place::of_node(1 << GHOST_SHIFT), None);
    }

    #[test]
    fn names_lead_to_places_and_back() {
        for directory in [Place::Ghost, Place::Task(7), Place::Namespaces, Place::Attributes, Place::Net] {
            for (name, place) in directory.children() {
                assert_eq!(directory.child(&name), Some(place), "{name}");
            }
        }
        assert_eq!(Place::Tasks.child("7"), Some(Place::Task(7)));
        for name in ["", "+7", "07", "x", "-1"] {
            assert_eq!(Place::Tasks.child(name), None, "{name}");
        }
        for name in ["mem", "pagemap", "..", "map_files", "children"] {
            assert_eq!(Place::Ghost.child(name), None, "{name}");
        }
    }

    /// Their content comes as it is, whatever thread they are looked at by.
    #[test]
    fn what_is_asked_for_alone_is_the_nodes_own_text() {
        for (file, index) in FILES.iter().zip(0u8..).filter(|(file, _)| file.asked == Asked::Alone) {
            assert_eq!((file.source, file.of_thread), (Source::Node, false), "{}", file.name);
            let of_snapshot = Some((Place::File(index), file.name.to_owned()));
            assert_eq!(Place::TaskFile(7, index).of_snapshot(), of_snapshot);
        }
        let name = |place: Place| place.of_snapshot().map(|(_, name)| name);
        assert_eq!(name(Place::DescriptorInfo(7)).as_deref(), Some("fdinfo/7"));
        assert_eq!(name(Place::NetFile(0)).as_deref(), Some("net/arp"));
        assert_eq!(name(Place::File(0)), None);
    }

    /// What is asked for alone costs a request for each process, and a reader may wait for it.
    #[test]
    fn what_ps_and_top_open_of_every_process_is_asked_for_together() {
        for name in
            ["stat", "status", "statm", "cmdline", "environ", "wchan", "io", "schedstat", "smaps_rollup", "oom_score"]
        {
            let file = FILES.iter().find(|file| file.name == name).unwrap();
            assert_ne!(file.asked, Asked::Alone, "{name}");
        }
    }

    /// The nodes' own figures must not be taken for this host's identity.
    #[test]
    fn identity_never_comes_from_a_node() {
        for name in ["cgroup", "loginuid", "sessionid", "uid_map", "gid_map", "cpuset"] {
            let file = FILES.iter().find(|file| file.name == name).unwrap();
            assert_eq!(file.source, Source::Own, "{name}");
        }
    }
}
