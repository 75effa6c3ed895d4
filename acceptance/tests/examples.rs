//! Every example of the manual is run, and its transcript is the golden one.
//!
//! `GHOSTPROC_GOLDEN=FILE` writes the transcripts to that file, to be looked at and put in place of `golden/examples.txt`.

use std::fmt::Write;
use std::time::Duration;

use acceptance::{Cluster, Ended, Finished, User};

const PAGES: [(&str, &str); 4] = [
    ("bpsh", include_str!("../../cli/manual/bpsh.txt")),
    ("bpcp", include_str!("../../cli/manual/bpcp.txt")),
    ("bpstat", include_str!("../../cli/manual/bpstat.txt")),
    ("bpctl", include_str!("../../cli/manual/bpctl.txt")),
];
const PLACE: &str = "/tmp/examples";

/// The manual speaks of larger clusters, and of more people than there are here.
const SMALLER: [(&str, &str); 4] = [("0-63", "0-3"), ("4-7", "0-2"), ("0-7", "0-3"), ("alice", "nobody")];

/// The commands among a page's lines: what stands behind three blanks is a remark.
fn examples(page: &str) -> Vec<&str> {
    let behind = page.split("# EXAMPLES\n").nth(1).expect("examples");
    let lines = behind.lines().take_while(|line| line.starts_with("  "));
    lines.map(|line| line.trim_start().split("   ").next().unwrap_or_default()).collect()
}

fn smaller(command: &str) -> String {
    SMALLER.iter().fold(command.to_owned(), |command, (large, small)| command.replace(large, small))
}

/// What differs from run to run is left out.
fn plain(command: &str, text: &str) -> String {
    let is_of_node = |line: &&str| !command.contains("ps xf") || line.starts_with(|c: char| c.is_ascii_digit());
    let mut lines: Vec<String> = text.lines().filter(is_of_node).map(|line| plain_line(command, line)).collect();
    if command.starts_with("bpstat -U") {
        // What comes later depends on the time.
        let again = lines.iter().skip(1).position(|line| line.starts_with("Node"));
        lines.truncate(again.map_or(lines.len(), |again| again + 1));
    }
    if command.contains("doctor") {
        // What this host lacks is its own affair.
        lines.retain(|line| line.contains("nodes: "));
    }
    if command.contains("-a") && !command.contains("--gather") {
        // Nodes answer in any order.
        lines.sort();
    }
    lines.join("\n")
}

/// Numbers that nobody can foretell.
fn plain_line(command: &str, line: &str) -> String {
    let varies = ["--json", "--tty", "wc -l", "bpstat -l", "-U", "ps xf", "uname", "doctor", "ls -l"];
    if !varies.iter().any(|words| command.contains(words)) {
        return line.to_owned();
    }
    let ends = [' ', '\t', ',', ':', '}'];
    let words = line.split_inclusive(ends).map(|word| {
        let bare = word.trim_end_matches(ends);
        let is_number = bare.starts_with(|c: char| c.is_ascii_digit())
            && (command.contains("uname") || bare.bytes().all(|b| b"0123456789.e-/GM".contains(&b)));
        let is_figure = is_number || bare == "-" || bare.starts_with("/dev/pts/");
        if is_figure { word.replace(bare, "N") } else { word.to_owned() }
    });
    words.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn prepare(cluster: &Cluster) {
    let nodes = (0..5).map(|node| cluster.node(node));
    for member in nodes.chain([cluster.master()]) {
        let line = format!(
            "rm -rf {PLACE} /srv/* /tmp/data /tmp/dir /tmp/result /tmp/out; mkdir -p {PLACE}/dir /srv; cd {PLACE}; echo data > data; echo a > a; echo b > b; echo c > dir/c"
        );
        member.command("sh").args(["-ec", &line]).run().success();
    }
    cluster.command("bpctl").args(["nodes", "add", "90"]).run().success();
    let there = "rm -rf /tmp/[!e]*; echo result > /tmp/result; mkdir -p /tmp/dir; echo d > /tmp/dir/d; echo out > /tmp/out; touch -d 2004-12-17 /tmp/* /tmp";
    cluster.node(3).command("sh").args(["-ec", there]).run().success();
}

fn run(cluster: &Cluster, command: &str) -> Finished {
    let command = smaller(command);
    // What never ends is ended; what wants somebody at the terminal is another program.
    let line = match command.as_str() {
        live if live.starts_with("bpstat -U") => format!("timeout -s INT 3 {live} || :"),
        terminal if terminal.contains("--tty") => format!("{} < /dev/null", terminal.replace("vi data", "tty")),
        other => other.to_owned(),
    };
    let line = format!("{{ {line}; }} 2>&1");
    cluster.command("bash").args(["-c", &line]).directory(PLACE).limit(Duration::from_secs(60)).user(User::root()).run()
}

#[test]
fn the_transcript_of_every_example_is_the_golden_one() {
    let cluster = Cluster::attach();
    prepare(&cluster);
    let mut sleeper = cluster.command("bpsh").args(["0-3", "sleep", "1000"]).start();
    acceptance::eventually("the ghosts", Duration::from_secs(30), || {
        (acceptance::process::children_of(sleeper.pid()).len() == 4).then_some(())
    });
    let mut transcript = String::new();
    for (name, page) in PAGES {
        for command in examples(page) {
            let finished = run(&cluster, command);
            let said = plain(command, &finished.text());
            let _ = write!(transcript, "$ {command}\n{said}{}", if said.is_empty() { "" } else { "\n" });
            match finished.ended {
                Ended::Exited(0) => {}
                ended => {
                    let _ = writeln!(transcript, "[{ended:?}]");
                }
            }
        }
        // The help says nothing that the manual does not.
        let help = cluster.command(name).arg("--help").run().success();
        let short =
            help.split("Examples:\n").nth(1).unwrap_or_default().lines().take_while(|line| line.starts_with("  "));
        for line in short {
            let command =
                line.trim_start().split("   ").next().unwrap_or_default().split(';').next().unwrap_or_default();
            assert!(examples(page).contains(&command), "{name} --help shows `{command}`, the manual does not");
        }
    }
    cluster.command("bpctl").args(["nodes", "remove", "90"]).run().success();
    cluster.command("bpctl").args(["-S", "0-3", "-s", "up", "-u", "default", "-m", "default"]).run().success();
    sleeper.kill();
    if let Some(file) = std::env::var_os("GHOSTPROC_GOLDEN") {
        std::fs::write(file, &transcript).expect("the transcript");
    }
    assert_eq!(transcript, include_str!("golden/examples.txt"), "\n{transcript}");
}
