//! The reference run: the same small programs as plain local children and through `bpsh 0`, seen by the same observer. Linux
//! itself says what is right: the transcripts must be equal, but for the closed list of [`acceptance::reference::permitted`].

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use acceptance::reference::{compare, permitted_in};
use acceptance::{Cluster, Ended, User};

/// How many cases run at a time.
const WORKERS: usize = 6;
const LAUNCHER: &[&str] = &["bpsh", "0"];

#[derive(Debug, Clone)]
struct Case {
    theme: String,
    name: String,
    user: User,
}

fn attach() -> Cluster {
    let cluster = Cluster::attach();
    for member in [cluster.master(), cluster.node(0)] {
        member.install("reference");
    }
    cluster
}

fn cases(cluster: &Cluster) -> Vec<Case> {
    let list = cluster.command("reference").arg("list").run().success();
    let case = |line: &str| -> Option<Case> {
        let mut words = line.split(' ').map(str::to_owned);
        let (theme, name, user) = (words.next()?, words.next()?, words.next()?);
        Some(Case { theme, name, user: if user == "root" { User::root() } else { User::ordinary() } })
    };
    list.lines().map(|line| case(line).unwrap_or_else(|| panic!("`{line}` is no case"))).collect()
}

fn transcript(cluster: &Cluster, case: &Case, launcher: &[&str]) -> String {
    // The observer leads a session, so that the numbers of sessions mean something.
    let observer = cluster.command("setsid").args(["--wait", "reference", "observe"]);
    let observer = observer.arg(&case.name).args(launcher);
    let finished = observer.user(case.user.clone()).run();
    let errors = finished.error_text();
    assert!(errors.is_empty(), "{}: its observer says {errors}", case.name);
    finished.expect(Ended::Exited(0)).text()
}

/// What is wrong with a case; `None`: nothing.
fn judge(cluster: &Cluster, case: &Case) -> Option<String> {
    let local = transcript(cluster, case, &[]);
    let launched = transcript(cluster, case, LAUNCHER);
    for reason in permitted_in(&local, &launched).into_iter().collect::<BTreeSet<_>>() {
        println!("{}: permitted: {reason}", case.name);
    }
    compare(&local, &launched).err()
}

/// Judges these, several at a time; gives those with which something is wrong.
fn judge_all(cluster: &Cluster, cases: &[Case]) -> Vec<(String, String)> {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(cases.len()) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if let Some(why) = judge(cluster, case) {
                        wrong.lock().expect("nobody panicked").push((case.name.clone(), why));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().expect("nobody panicked");
    wrong.sort();
    wrong
}

#[track_caller]
fn theme(name: &str) {
    let cluster = attach();
    let mut all = cases(&cluster);
    all.retain(|case| case.theme == name);
    let wrong = judge_all(&cluster, &all);
    let told: Vec<String> =
        wrong.iter().map(|(case, why)| format!("==== {case}: local -, launched +\n{why}")).collect();
    println!("{name}: {} of {} cases are equal", all.len() - wrong.len(), all.len());
    assert!(wrong.is_empty(), "{} of the theme {name}:\n{}", wrong.len(), told.join("\n"));
}

macro_rules! themes {
    ($($name:ident)*) => {
        const THEMES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { theme(stringify!($name)); })*
    };
}

themes!(credentials exec exits fork groups handlers inherited limits masks siginfo signals stdio stops threads tree view);

#[test]
fn every_theme_is_judged_and_the_list_is_long_enough() {
    let cluster = attach();
    let all = cases(&cluster);
    let themes: BTreeSet<&str> = all.iter().map(|case| case.theme.as_str()).collect();
    assert_eq!(themes, THEMES.iter().copied().collect());
    let names: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "no name twice");
    assert!(all.len() >= 80, "only {} cases", all.len());
}

/// The checker: launchers that are not what a local child has.
#[test]
fn planted_differences_are_caught() {
    let cluster = attach();
    let all = cases(&cluster);
    let planted: &[(&str, &[&str])] = &[
        ("niceness", &["nice", "-n", "3"]),
        ("environment", &["env", "PLANTED=1"]),
        ("umask-77", &["sh", "-c", "umask 22; exec \"$@\"", "sh"]),
        ("directory", &["env", "-C", "/tmp"]),
        ("nothing-special", &["nohup"]),
        ("child-in-its-own-group", &["sh", "-c", "\"$@\"; exit 4", "sh"]),
        ("both-outputs", &["sh", "-c", "exec \"$@\" 2>&1", "sh"]),
        ("stops-itself", &["sh", "-c", "\"$@\"", "sh"]),
        ("dies-by-term", &["sh", "-c", "\"$@\"; exit $?", "sh"]),
        ("parent-group-session", &["setsid"]),
        ("all-limits", &["prlimit", "--nofile=77"]),
    ];
    for (name, launcher) in planted {
        let case = all.iter().find(|case| case.name == *name).unwrap_or_else(|| panic!("no case {name}"));
        let local = transcript(&cluster, case, &[]);
        assert_eq!(compare(&local, &transcript(&cluster, case, &[])), Ok(()), "{name}, twice locally");
        let told = compare(&local, &transcript(&cluster, case, launcher)).expect_err(name);
        println!("{name} by {launcher:?}:\n{told}");
    }
}
