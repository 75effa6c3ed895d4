//! What there is to tell about a launch besides its output: lines for people, or the events of `--json`. Pure.
//!
//! The stream of `--json` is one object a line. The first has the stream's version; a reader skips events and fields that it does
//! not know. `seconds` counts from ghostd's answer.

use ghost_proto::client::Obstacle;
use ghost_proto::nodeset::fold_set;
use ghost_proto::status::{Usage, WaitStatus};
use serde::Serialize;

use super::outcome::{Outcome, Verdict, signal_name};

/// Version of the stream of events.
const VERSION: u32 = 1;

#[derive(Serialize, Debug)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    Begin {
        version: u32,
        command: Vec<String>,
        ranks: Vec<Place<'a>>,
    },
    Started {
        #[serde(flatten)]
        place: Place<'a>,
        /// The ghost's number here, and the process's there.
        pid: i32,
        node_pid: u32,
    },
    Output {
        #[serde(flatten)]
        place: Place<'a>,
        stream: &'static str,
        #[serde(flatten)]
        bytes: Content<'a>,
    },
    Warning {
        #[serde(flatten)]
        place: Place<'a>,
        reason: &'a str,
    },
    Unreachable(NotRun<'a>),
    Forbidden(NotRun<'a>),
    NotStarted(NotRun<'a>),
    Exit {
        #[serde(flatten)]
        place: Place<'a>,
        #[serde(flatten)]
        status: Status,
        #[serde(flatten)]
        usage: Option<Used>,
    },
    Lost {
        #[serde(flatten)]
        place: Place<'a>,
    },
    Timeout {
        #[serde(flatten)]
        place: Place<'a>,
    },
    Halted {
        #[serde(flatten)]
        place: Place<'a>,
    },
    /// bpsh itself ends like this.
    End {
        #[serde(flatten)]
        status: Status,
    },
}

/// Which of the launch's processes.
#[derive(Serialize, Debug, Clone, Copy)]
pub struct Place<'a> {
    pub rank: usize,
    pub node: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Content<'a> {
    Text(&'a str),
    Base64(String),
}

#[derive(Serialize, Debug)]
pub struct NotRun<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    pub reason: &'a str,
    pub code: u8,
}

#[derive(Serialize, Debug)]
#[serde(untagged)]
pub enum Status {
    Exited { code: u8 },
    Signalled { signal: u8, signal_name: String, core: bool },
}

#[derive(Serialize, Debug)]
pub struct Used {
    user_seconds: f64,
    system_seconds: f64,
    max_rss_kib: u64,
}

impl From<&Usage> for Used {
    fn from(usage: &Usage) -> Used {
        let seconds = |us: u64| us as f64 / 1e6;
        Used {
            user_seconds: seconds(usage.user_us),
            system_seconds: seconds(usage.system_us),
            max_rss_kib: usage.max_rss_kib,
        }
    }
}

impl From<WaitStatus> for Status {
    fn from(status: WaitStatus) -> Status {
        match status {
            WaitStatus::Exited(code) => Status::Exited { code },
            WaitStatus::Signaled { signal, core } => {
                Status::Signalled { signal, signal_name: signal_name(signal), core }
            }
        }
    }
}

impl From<Verdict> for Status {
    fn from(verdict: Verdict) -> Status {
        match verdict {
            Verdict::Exit(code) => Status::Exited { code },
            Verdict::Signal(signal) => WaitStatus::Signaled { signal, core: false }.into(),
        }
    }
}

impl<'a> Event<'a> {
    pub fn begin(argv: impl Iterator<Item = &'a [u8]>, ranks: Vec<Place<'a>>) -> Event<'a> {
        let command = argv.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Event::Begin { version: VERSION, command, ranks }
    }

    /// The end of a rank.
    pub fn end(place: Place<'a>, outcome: Outcome, usage: Option<&Usage>) -> Option<Event<'a>> {
        match outcome {
            Outcome::Ended(status) => Some(Event::Exit { place, status: status.into(), usage: usage.map(Used::from) }),
            Outcome::Lost => Some(Event::Lost { place }),
            Outcome::TimedOut => Some(Event::Timeout { place }),
            Outcome::Halted => Some(Event::Halted { place }),
            // Has been told when it was known.
            Outcome::NotStarted(_) => None,
        }
    }

    /// As a line of the stream.
    pub fn line(&self, seconds: f64) -> String {
        #[derive(Serialize)]
        struct Line<'a, 'b> {
            seconds: f64,
            #[serde(flatten)]
            event: &'a Event<'b>,
        }
        let seconds = (seconds * 1e6).round() / 1e6;
        // Strings and numbers: nothing in it can fail to be written.
        let mut line = serde_json::to_string(&Line { seconds, event: self }).unwrap_or_default();
        line.push('\n');
        line
    }
}

/// Why a rank cannot be started, by what ghostd says of its node: for people, with the way out.
pub fn obstacle(obstacle: Obstacle, reason: &str) -> String {
    match obstacle {
        Obstacle::Forbidden if reason.ends_with(')') => {
            format!("forbidden: {reason}; only root may use it until it is up")
        }
        Obstacle::Forbidden if reason.starts_with("--") => format!("forbidden: {reason}; leave it out"),
        Obstacle::Forbidden => format!("forbidden: {reason}; `bpstat` shows whose it is and its mode"),
        Obstacle::Unreachable if reason.contains("has not joined") => {
            format!("unreachable: {reason}; let it join, see `bpctl token --help`")
        }
        Obstacle::Unreachable if reason.contains("revoked") => {
            format!("unreachable: {reason}; `bpctl nodes replace` lets it join anew")
        }
        Obstacle::Unreachable if reason.contains("set by root") => {
            format!("unreachable: {reason}; `bpctl -s up` lets programs run there again")
        }
        Obstacle::Unreachable if reason.contains("root's order") => {
            format!("unreachable: {reason}; wait until it is back")
        }
        Obstacle::Unreachable => format!("unreachable: {reason}; does nodeagent run there?"),
        Obstacle::Unknown => format!("{reason}; `bpstat` shows those that there are"),
        Obstacle::Other => reason.to_owned(),
    }
}

/// Lines of several nodes, equal ones folded: `0-2,5: unreachable: …`. In the order in which they come first.
pub fn fold_lines(lines: impl IntoIterator<Item = (i32, String)>) -> Vec<String> {
    let mut folded: Vec<(String, Vec<i32>)> = Vec::new();
    for (node, text) in lines {
        match folded.iter_mut().find(|(known, _)| *known == text) {
            Some((_, nodes)) => nodes.push(node),
            None => folded.push((text, vec![node])),
        }
    }
    folded.into_iter().map(|(text, nodes)| format!("{}: {text}", fold_set(nodes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { rank: 1, node: 3, name: "n3" };

    #[test]
    fn events_are_lines_of_json() {
        let usage = Usage { user_us: 1_500_000, system_us: 250, max_rss_kib: 4096 };
        let killed = Outcome::Ended(WaitStatus::Signaled { signal: 11, core: true });
        let not_run = NotRun { place: Place { name: "", ..PLACE }, reason: "down", code: 125 };
        for (event, line) in [
            (
                Event::begin([&b"ls"[..], b"\xff"].into_iter(), vec![PLACE]),
                r#"{"seconds":0.25,"event":"begin","version":1,"command":["ls","�"],"ranks":[{"rank":1,"node":3,"name":"n3"}]}"#,
            ),
            (
                Event::Started { place: PLACE, pid: 77, node_pid: 78 },
                r#"{"seconds":0.25,"event":"started","rank":1,"node":3,"name":"n3","pid":77,"node_pid":78}"#,
            ),
            (
                Event::Output { place: PLACE, stream: "stdout", bytes: Content::Text("a\n") },
                r#"{"seconds":0.25,"event":"output","rank":1,"node":3,"name":"n3","stream":"stdout","text":"a\n"}"#,
            ),
            (
                Event::Output { place: PLACE, stream: "stderr", bytes: Content::Base64("/w==".into()) },
                r#"{"seconds":0.25,"event":"output","rank":1,"node":3,"name":"n3","stream":"stderr","base64":"/w=="}"#,
            ),
            (
                Event::Unreachable(not_run),
                r#"{"seconds":0.25,"event":"unreachable","rank":1,"node":3,"reason":"down","code":125}"#,
            ),
            (
                Event::end(PLACE, killed, Some(&usage)).expect("an event"),
                r#"{"seconds":0.25,"event":"exit","rank":1,"node":3,"name":"n3","signal":11,"signal_name":"SIGSEGV","core":true,"user_seconds":1.5,"system_seconds":0.00025,"max_rss_kib":4096}"#,
            ),
            (
                Event::end(PLACE, Outcome::TimedOut, None).expect("an event"),
                r#"{"seconds":0.25,"event":"timeout","rank":1,"node":3,"name":"n3"}"#,
            ),
            (Event::End { status: Verdict::Exit(3).into() }, r#"{"seconds":0.25,"event":"end","code":3}"#),
        ] {
            assert_eq!(event.line(0.25), line.to_owned() + "\n");
        }
        assert!(Event::end(PLACE, Outcome::NotStarted(125), None).is_none());
    }

    #[test]
    fn equal_lines_are_folded() {
        let lines = [(0, "down"), (2, "no"), (1, "down"), (5, "down")].map(|(node, text)| (node, text.to_owned()));
        assert_eq!(fold_lines(lines), ["0-1,5: down", "2: no"]);
    }

    #[test]
    fn an_obstacle_has_its_word_and_the_way_out() {
        for (kind, reason, part) in [
            (
                Obstacle::Forbidden,
                "Operation not permitted",
                "forbidden: Operation not permitted; `bpstat` shows whose",
            ),
            (Obstacle::Forbidden, "Operation not permitted (boot: node_up runs)", "until it is up"),
            (Obstacle::Unreachable, "down (set by root)", "-s up"),
            (Obstacle::Unreachable, "reboot (by root's order)", "until it is back"),
            (Obstacle::Unreachable, "down (not connected)", "unreachable: down (not connected); does nodeagent run"),
            (Obstacle::Unreachable, "down (has not joined)", "bpctl token"),
            (Obstacle::Unreachable, "down (revoked)", "bpctl nodes replace"),
            (Obstacle::Unknown, "no such node", "no such node; `bpstat`"),
            (Obstacle::Other, "the master runs no nodeagent", "the master runs no nodeagent"),
        ] {
            let text = obstacle(kind, reason);
            assert!(text.contains(part), "{text}");
        }
    }
}
